"""When a task will be done: an estimate, a bound that nine of ten keep, and both in words.

The raw figure comes from running the live policy forward over the queue. What that leaves out (times that scatter,
replicas that come and go, later tasks with priority, predictions that were still being learnt) is learnt from completed
tasks: the estimate is raw times the median of actual / raw, and bounds come from scores

    z = log(actual / (raw · median)) / scale        scale² = sigma² · (own² + ahead) / raw² + floor² + youth²

The work ahead averages out: `ahead` is the sum of squares of so many seconds in tasks of the usual size. The median is
that at completion: where the estimate stood at admission does not matter to later ones. Youth is for a predictor that
has seen few completions against what is on its way: it only ever fades, and scores that it dominated teach no quantile.
A bound is the 90 % quantile of the scores (split conformal) of the task's regime, which is how deep the queue was,
mixed with those of all; its level follows the share of bounds that held (adaptive conformal inference, Gibbs & Candès
2021). An answer takes as many completions as there are tasks on their way, so the level moves the slower the more those
are, and not far; faster or farther, it would swing.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

COVERAGE = 0.90
_AIM = 0.905  # a miss more than the promise costs trust, a bound that is a percent longer nothing
_REGIMES = 6
_BAND_OF = (0, 1, 1, 1, 2, 3)  # regimes that share scores and level: starts at once, waits, waits long, and longer
_WINDOW = 4000
_MEDIAN_WINDOW = 1000
_PRIOR_WEIGHT = 50
_POOLED_WEIGHT = 300
_FLOOR = 0.015
_YOUTH = 0.3
_GAIN, _FEW_ON_THEIR_WAY = 0.06, 20
_USUAL_TASKS = 200  # that say what size is usual
_LEVELS = (0.8, 0.97)
_DRIFTS, _STALE = 100, 0.1
_P90 = 1.2816  # of the standard normal


class Eta(NamedTuple):
    """Seconds from admission. The rest goes back in with the completion; from `scale` on it may be left out."""

    estimate_s: float
    p90_s: float
    regime: int
    raw_s: float
    scale: float = 0.0
    own_s: float = 0.0
    young: bool = False  # the scale was that of a predictor that knew little


class _Scores:
    """The last scores, sorted."""

    __slots__ = ("ordered", "recent", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.recent: deque[float] = deque()
        self.ordered: list[float] = []

    def add(self, score: float) -> None:
        self.recent.append(score)
        insort(self.ordered, score)
        if len(self.recent) > self.window:
            del self.ordered[bisect_left(self.ordered, self.recent.popleft())]

    @property
    def median(self) -> float:
        """The upper one of two; some score must have been added."""
        return self.ordered[len(self.ordered) // 2]

    def quantile(self, level: float, prior: float, prior_weight: float) -> float:
        """Of the scores seen; few are mixed with the prior."""
        count = len(self.ordered)
        if not count:
            return prior
        place = min(count - 1, math.ceil((count + 1) * level) - 1)
        weight = count / (count + prior_weight)
        return weight * self.ordered[max(0, place)] + (1 - weight) * prior


class EtaBook:
    """Turns raw forecasts into estimates and bounds, and learns from completions only."""

    def __init__(self, coverage: float = COVERAGE) -> None:
        self._aim = coverage + (_AIM - COVERAGE)
        bands = max(_BAND_OF) + 1
        self._levels = [self._aim] * bands
        self._scores = _Scores(_WINDOW)
        self._of_band = [_Scores(_WINDOW) for _ in range(bands)]
        self._medians = _Scores(_MEDIAN_WINDOW)
        self._drifts = _Scores(_DRIFTS)
        self._admitted = [0] * bands
        self._completed = [0] * bands
        self._youth = _YOUTH
        self._own_s = self._own_squared = 0.0  # means over the last tasks
        self._scale_of = [0.0] * _REGIMES  # usual scale of a regime, for `table`

    def admit(self, raw_s: float, own_s: float, sigma: float = 0.2) -> Eta:
        """An ETA to be frozen: `raw_s` is the forecast, `own_s` the task's own part of it, `sigma` the spread of the
        logarithm of service times."""
        raw_s, own_s = max(raw_s, 1e-3), max(own_s, 1e-6)
        regime = regime_of(raw_s, own_s)
        band = _BAND_OF[regime]
        self._admitted[band] += 1
        scatter = math.hypot(sigma * math.sqrt(self._squares(raw_s, own_s)) / raw_s, _FLOOR)
        scale = math.hypot(scatter, self._youth)
        estimate_s = raw_s * math.exp(self._median())
        bound_s = estimate_s * math.exp(max(0.0, self._bound(band)) * scale)
        return Eta(estimate_s, bound_s, regime, raw_s, scale, own_s, self._youth > scatter)

    def complete(self, eta: Eta, actual_s: float, own_now_s: float | None = None) -> None:
        """A task was done `actual_s` after its admission. `own_now_s` is what its own part would be said to take now:
        while such predictions change, old forecasts say nothing about new ones, and are left out."""
        band = _BAND_OF[eta.regime]
        self._completed[band] += 1
        self._youth *= math.exp(-1 / max(_FEW_ON_THEIR_WAY, sum(self._admitted) - sum(self._completed)))
        if own_now_s and eta.own_s:
            self._drifts.add(abs(math.log(max(own_now_s, 1e-9) / eta.own_s)))
            if self._drifts.median > _STALE:
                return
        scale = eta.scale or max(_FLOOR, math.log(max(1.0, eta.p90_s / eta.estimate_s)) / _P90)
        off = math.log(max(actual_s, 1e-3) / eta.raw_s)
        self._medians.add(off)
        if not eta.young:
            score = (off - self._median()) / scale
            self._scores.add(score)
            self._of_band[band].add(score)
        usual = self._scale_of[eta.regime]
        self._scale_of[eta.regime] = usual + 0.02 * (scale - usual) if usual else scale
        on_their_way = max(_FEW_ON_THEIR_WAY, self._admitted[band] - self._completed[band])
        missed = 1.0 if actual_s > eta.p90_s else 0.0
        level = self._levels[band] + _GAIN / on_their_way * (missed - (1 - self._aim))
        self._levels[band] = min(max(level, _LEVELS[0]), _LEVELS[1])

    def table(self) -> tuple[tuple[float, float], ...]:
        """(median, bound) of actual over raw seconds by regime, for who quotes elsewhere; zeros where nothing is
        known yet."""
        median = self._median()
        return tuple(
            (math.exp(median), math.exp(median + max(0.0, self._bound(band)) * scale)) if scale else (0.0, 0.0)
            for scale, band in zip(self._scale_of, _BAND_OF, strict=True)
        )

    def _squares(self, raw_s: float, own_s: float) -> float:
        """The sum of the squares of the task's own seconds and of those ahead of it, were they of the usual size."""
        share = 1 / _USUAL_TASKS if self._own_s else 1.0
        self._own_s += share * (own_s - self._own_s)
        self._own_squared += share * (own_s * own_s - self._own_squared)
        own_s, wait_s = min(own_s, raw_s), max(0.0, raw_s - own_s)
        return own_s * own_s + wait_s * min(wait_s, self._own_squared / self._own_s)

    def _median(self) -> float:
        return self._medians.quantile(0.5, 0.0, _PRIOR_WEIGHT)

    def _bound(self, band: int) -> float:
        level = self._levels[band]
        pooled = self._scores.quantile(level, _P90, _PRIOR_WEIGHT)
        return self._of_band[band].quantile(level, pooled, _POOLED_WEIGHT)


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
