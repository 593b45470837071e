"""Who renders: the workers that were heard lately, and what is known of each variant that they could hold."""

import math
from dataclasses import dataclass

from cluster.scheduling.job import Lease
from cluster.scheduling.timelines import FixedMemory
from schemas.catalog import Variant

_ARRIVALS_S = 60.0
_DOWN_S, _LONGEST_DOWN_S = 30.0, 600.0
_OPEN_AFTER = 3  # load failures in a row
_FAILURES_S = 3600.0


@dataclass(frozen=True)
class ServedVariant:
    """A variant that may have workers of its own: on which accelerator, how many, and what starting one takes."""

    variant: Variant
    accelerator: str
    minimum: int = 0
    maximum: int = 0
    start_s: float = 0.0


@dataclass
class Worker:
    """A process that was heard lately."""

    name: str
    variant: str  # that it was started with; "" where it holds several
    accelerator: str
    heard_at: float
    unacknowledged: tuple[Lease, ...] = ()  # given, and not known to have arrived
    reported: int = 0  # leases that it named in its last heartbeat


class ColdStart(FixedMemory):
    """A worker that is not there yet: its first task waits until it is."""

    def __init__(self, variant: int, start_s: float) -> None:
        super().__init__(variant)
        self.start_s = start_s

    def load_s(self, variant: int) -> float:
        return self.start_s if variant == self.variant else math.inf

    def use(self, variant: int) -> float:
        load_s, self.start_s = self.load_s(variant), 0.0
        return load_s

    def copy(self) -> "ColdStart":
        return ColdStart(self.variant, self.start_s)


class VariantState:
    """What is known of a served variant: how long a start takes, whether it loads at all, what is asked of it."""

    def __init__(self, served: ServedVariant, now: float) -> None:
        self.served = served
        self.start_s = served.start_s
        self.target = 0  # workers that whoever starts them was told to keep
        self.starting_since: float | None = None
        self.worked_at = 0.0  # never, so far: what nobody asks for need not stay loaded
        self.placeholder = False  # a worker that could be started stands in the plan
        self.last_failure = ""
        self._failures_in_a_row = 0
        self._failed_at: list[float] = []
        self._closed_at = 0.0  # the circuit is open until then
        self._arriving, self._arrived_at = 0.0, now

    # -- circuit breaker -----------------------------------------------------------------------------------------

    def load_failed(self, error: str, now: float) -> None:
        """A worker could not load it: no other is expected for a while, the longer the more often it failed."""
        self._failures_in_a_row += 1
        self.last_failure = error
        self._failed_at = [at for at in self._failed_at if now - at < _FAILURES_S] + [now]
        self._closed_at = now + min(_LONGEST_DOWN_S, _DOWN_S * 2.0 ** (self._failures_in_a_row - 1))
        self.starting_since = None

    def up(self, load_s: float, now: float) -> None:
        """A worker holds it."""
        if self.starting_since is not None and load_s > 0:
            self.start_s += 0.5 * (max(load_s, now - self.starting_since) - self.start_s)
        self.starting_since, self._failures_in_a_row, self._closed_at = None, 0, 0.0

    def is_down(self, now: float) -> bool:
        """No worker is to be expected at present."""
        return now < self._closed_at

    @property
    def circuit_open(self) -> bool:
        """It failed to load so often that waiting for it makes no sense."""
        return self._failures_in_a_row >= _OPEN_AFTER

    def failures(self, now: float) -> int:
        """Of the last hour."""
        return sum(now - at < _FAILURES_S for at in self._failed_at)

    def state(self, now: float) -> str:
        """In words, for who was sent elsewhere."""
        if self.is_down(now) or self.circuit_open:
            return "is down"
        return "is not loaded" if self.placeholder else "is busy"

    # -- demand --------------------------------------------------------------------------------------------------

    def asked(self, work_s: float, now: float) -> None:
        """Work has arrived."""
        self._arriving = self.arriving(now) + work_s / _ARRIVALS_S
        self._arrived_at = now

    def arriving(self, now: float) -> float:
        """Seconds of work that arrive a second, lately."""
        return self._arriving * math.exp(min(0.0, (self._arrived_at - now) / _ARRIVALS_S))

    def remaining_start_s(self, now: float) -> float:
        """Until a worker that is being started, or could be, is ready."""
        if self.starting_since is None:
            return self.start_s
        return max(1.0, self.start_s - (now - self.starting_since))
