"""When a task will be done: an estimate, a bound that nine of ten keep, and both in words.

The raw figure comes from running the live policy forward over the queue (`pool.project`). What it leaves out (service
times that scatter, replicas that come and go, later tasks with priority) is learnt from completed tasks: by regime,
which is how deep the queue was at admission, the ratio of what happened to what was said. The estimate takes the
median of the recent ratios, the bound their 90 % quantile (split conformal with its finite-sample correction), and
the quantile's level follows the share of bounds that held lately (adaptive conformal inference, Gibbs & Candès 2021).
"""

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

COVERAGE = 0.90
_WINDOW = 400
_REGIMES = 6
_STEP = 0.01
_PRIOR_WEIGHT = 20


class Eta(NamedTuple):
    """Seconds from admission. `regime` and `raw_s` go back in with the completion."""

    estimate_s: float
    p90_s: float
    regime: int
    raw_s: float


class _Ratios:
    """The last ratios of one regime, sorted."""

    __slots__ = ("ordered", "recent")

    def __init__(self) -> None:
        self.recent: deque[float] = deque()
        self.ordered: list[float] = []

    def add(self, ratio: float) -> None:
        self.recent.append(ratio)
        insort(self.ordered, ratio)
        if len(self.recent) > _WINDOW:
            del self.ordered[bisect_left(self.ordered, self.recent.popleft())]

    def quantile(self, level: float, prior: float) -> float:
        """Of the ratios seen; few observations are mixed with the prior."""
        count = len(self.ordered)
        if not count:
            return prior
        place = min(count - 1, math.ceil((count + 1) * level) - 1)
        weight = count / (count + _PRIOR_WEIGHT)
        return weight * self.ordered[max(0, place)] + (1 - weight) * prior


class EtaBook:
    """Turns raw forecasts into estimates and bounds, and learns from completions only."""

    def __init__(self, coverage: float = COVERAGE) -> None:
        self._coverage = coverage
        self._levels = [coverage] * _REGIMES
        self._ratios = [_Ratios() for _ in range(_REGIMES)]

    def admit(self, raw_s: float, own_s: float, sigma: float = 0.2) -> Eta:
        """An ETA to be frozen: `raw_s` is the forecast, `own_s` the task's own part of it, `sigma` the spread of the
        logarithm of service times."""
        raw_s = max(raw_s, 1e-3)
        regime = regime_of(raw_s, own_s)
        ratios = self._ratios[regime]
        # Work ahead averages out: the spread of the whole is that of the own part and of a few independent ones.
        spread = sigma * math.sqrt(max(own_s, 1e-6) / raw_s) if raw_s > own_s else sigma
        estimate_s = raw_s * ratios.quantile(0.5, 1.0)
        bound_s = raw_s * ratios.quantile(self._levels[regime], math.exp(1.2816 * spread))
        return Eta(estimate_s, max(bound_s, estimate_s), regime, raw_s)

    def table(self) -> tuple[tuple[float, float], ...]:
        """(median, bound) of actual over raw seconds by regime, for who quotes elsewhere; zeros where nothing is
        known yet."""
        return tuple(
            (ratios.quantile(0.5, 1.0), ratios.quantile(level, 1.0)) if ratios.ordered else (0.0, 0.0)
            for ratios, level in zip(self._ratios, self._levels, strict=True)
        )

    def complete(self, eta: Eta, actual_s: float) -> None:
        """A task was done `actual_s` after its admission."""
        self._ratios[eta.regime].add(actual_s / eta.raw_s)
        missed = actual_s > eta.p90_s
        level = self._levels[eta.regime] + _STEP * ((1.0 if missed else 0.0) - (1 - self._coverage))
        self._levels[eta.regime] = min(max(level, self._coverage - 0.08), 0.995)


def regime_of(raw_s: float, own_s: float) -> int:
    """0: starts at once; then one more for each doubling of the wait against the task's own seconds."""
    wait = (raw_s - own_s) / max(own_s, 1e-6)
    if wait <= 0.05:
        return 0
    return min(_REGIMES - 1, max(1, 2 + math.floor(math.log2(wait))))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a user is told of a waiting task."""

    pool: str
    ahead: int
    wait_s: float
    load_s: float
    work_s: float
    p90_s: float

    def __str__(self) -> str:
        position = f"{self.ahead} ahead of you" if self.ahead else "you are next"
        load = f"; model loads first: +{self.load_s:.0f} s" if self.load_s else ""
        total_s = self.wait_s + self.load_s + self.work_s
        return f"{position} on {self.pool}{load}; done in {total_s:.0f} s, nine of ten times within {self.p90_s:.0f} s"
