"""Outages of a simulated fleet: pools that die, are missed some seconds later, and may come back.

What was said (`Failure`) becomes what happens (`Outage`): outages of one pool that touch are one, and a pool that is
back before anybody has missed it is noticed when it registers again.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from schemas.errors import ConfigError

DETECTED_AFTER_S = 5.0


@dataclass(frozen=True)
class Failure:
    """A pool of the fleet dies, and comes back with nothing resident if it does."""

    pool: str
    at_s: float
    back_s: float | None = None
    detected_after_s: float = DETECTED_AFTER_S


class Change(IntEnum):
    """What happens to the accelerators of a pool. Of changes at one instant the lower comes first."""

    DIES = 0
    MISSED = 1  # the policy is told
    BACK = 2


class PoolEvent(NamedTuple):
    """One change of one pool; `died_s` is the beginning of the outage that it belongs to."""

    at_s: float
    change: Change
    pool: str
    died_s: float


def check_failures(failures: Sequence[Failure], pools: Iterable[str]) -> None:
    """Raises ConfigError for what could never happen."""
    known = sorted(set(pools))
    for failure in failures:
        where = f"failure of {failure.pool!r}"
        if failure.pool not in known:
            raise ConfigError(f"unknown pool {failure.pool!r}; available: {', '.join(known)}")
        if not (math.isfinite(failure.at_s) and failure.at_s >= 0):
            raise ConfigError(f"{where}: it begins at {failure.at_s}, not a finite number of seconds, at least 0")
        if failure.back_s is not None and not (math.isfinite(failure.back_s) and failure.back_s > failure.at_s):
            raise ConfigError(f"{where}: it ends at {failure.back_s}, not a finite number after {failure.at_s:g}")
        if not (math.isfinite(failure.detected_after_s) and failure.detected_after_s >= 0):
            raise ConfigError(
                f"{where}: it is detected after {failure.detected_after_s}, not a finite number of seconds, at least 0"
            )


def pool_events(failures: Sequence[Failure]) -> list[PoolEvent]:
    """In order of time. Every pool dies, is missed and is back, in turn."""
    found: list[PoolEvent] = []
    for pool in sorted({failure.pool for failure in failures}):
        merged: list[list[float]] = []  # died, missed, back
        for failure in sorted((f for f in failures if f.pool == pool), key=lambda f: f.at_s):
            back_s = math.inf if failure.back_s is None else failure.back_s
            missed_s = failure.at_s + failure.detected_after_s
            if merged and failure.at_s <= merged[-1][2]:
                merged[-1][1] = min(merged[-1][1], missed_s)
                merged[-1][2] = max(merged[-1][2], back_s)
            else:
                merged.append([failure.at_s, missed_s, back_s])
        for died_s, missed_s, back_s in merged:
            found.append(PoolEvent(died_s, Change.DIES, pool, died_s))
            found.append(PoolEvent(min(missed_s, back_s), Change.MISSED, pool, died_s))
            if back_s < math.inf:
                found.append(PoolEvent(back_s, Change.BACK, pool, died_s))
    return sorted(found)
