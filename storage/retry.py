"""Trying again while a store does not answer, within a budget of seconds."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from schemas.errors import is_transient

T = TypeVar("T")


@dataclass(frozen=True)
class Backoff:
    """How long to keep trying: `budget_s` from the first failure, pauses growing from `first_s` to `longest_s`."""

    budget_s: float = 60.0
    first_s: float = 0.1
    longest_s: float = 5.0

    def pause_s(self, failures: int, chance: float) -> float:
        """The pause after the n-th failure. `chance` in [0, 1) spreads clients that failed together."""
        return min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30)) * (0.5 + 0.5 * chance)


def retried(
    call: Callable[[], T],
    backoff: Backoff,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    chance: Callable[[], float] = random.random,
) -> T:
    """The call's answer. Transient errors are tried again while the budget lasts; then the last one is raised.

    Permanent errors are raised at once. `call` must be safe to repeat.
    """
    failures = 0
    deadline = 0.0
    while True:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            failures += 1
            deadline = deadline or clock() + backoff.budget_s
            pause_s = backoff.pause_s(failures, chance())
            if clock() + pause_s > deadline:
                raise
        sleep(pause_s)
