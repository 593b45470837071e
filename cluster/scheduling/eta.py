"""When a task will be done: an estimate, and a bound that nine of ten keep.

The raw figure comes from running the live policy forward over the queue. What that leaves out (times that scatter,
replicas that come and go, later tasks with priority, predictions that were still being learnt) is learnt from completed
tasks: the estimate is raw times the median of actual / raw, and bounds come from scores

    z = log(actual / (raw · median)) / scale    scale² = sigma² · ((own² + ahead) / raw² + shared) + floor² + warm-up²

The work ahead averages out: `ahead` is the sum of squares of so many seconds in tasks of the usual size. Some of the
error does not, however deep the queue: what is off for one of a variant's tasks is off for the next (`shared`). Without
it scores shrink as a crowd fills the queues, and bounds with them. A variant whose time has just changed has a large
sigma: bounds are wide from the next promise on. The median is that at completion: where the estimate stood at admission
does not matter to later ones. The warm-up variance is for predictions that have seen few completions against what is on
its way: it only ever fades, and scores that it dominated teach no quantile. A bound is the 90 % quantile of the scores
(split conformal) of the task's regime, which is how deep the queue was, mixed with those of all; its level follows the
share of bounds that held (adaptive conformal inference, Gibbs & Candès 2021). An answer takes as many completions as
there are tasks on their way, so the level moves the slower the more those are, and not far; faster or farther, it would
swing.

A promise is a pure function of the estimator's terms, a small value: whoever has them promises as the estimator does.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

COVERAGE = 0.90
_REGIMES = 6
_BAND_OF = (0, 1, 1, 1, 2, 3)  # regimes that share scores and level: starts at once, waits, waits long, and longer
_BANDS = max(_BAND_OF) + 1
_WINDOW = 2000
_MEDIAN_WINDOW, _MEDIAN_PRIOR = 3000, 100  # long: what many tasks shared must not swing the estimates of the next
_PRIOR_WEIGHT = 50
_POOLED_WEIGHT = 300
_FLOOR = 0.01
_SHARED = 0.09  # of the variance of log seconds: what tasks in one queue have in common
_WARM_UP = 0.3
_GAIN, _FEW_ON_THEIR_WAY = 0.06, 20
_USUAL_TASKS = 200  # that say what size is usual
_LEVELS = (0.8, 0.97)
_DRIFTS, _STALE = 100, 0.1
_P90 = 1.2816  # of the standard normal
_BOUNDS = (0.55, 5.0)  # of scores: a lull, or a change that nobody could know of, says no more about what comes
_MOST_LOG_BOUND = 1.5


class Eta(NamedTuple):
    """Seconds from admission. The rest goes back in when the task is admitted, and when it has completed."""

    estimate_s: float
    p90_s: float
    regime: int
    raw_s: float
    scale: float
    own_s: float
    warming_up: bool = False  # the scale was mostly the warm-up variance


class EtaTerms(NamedTuple):
    """All that a promise depends on beside the forecast."""

    log_median: float = 0.0  # of actual over raw seconds
    bounds: tuple[float, ...] = (_P90,) * _BANDS  # quantiles of scores
    warm_up: float = _WARM_UP
    usual_s: float = 0.0  # what tasks take by themselves: mean, and mean square
    usual_squared: float = 0.0

    def promise(self, raw_s: float, own_s: float, sigma: float = 0.2) -> Eta:
        """An ETA to be frozen: `raw_s` is the forecast, `own_s` the task's own part of it, `sigma` the spread of the
        logarithm of service times. Changes nothing."""
        raw_s, own_s = max(raw_s, 1e-3), max(own_s, 1e-6)
        regime = regime_of(raw_s, own_s)
        wait_s = max(0.0, raw_s - own_s)
        one_s = self.usual_squared / self.usual_s if self.usual_s else own_s
        squares = min(own_s, raw_s) ** 2 + wait_s * min(wait_s, one_s)
        scatter = sigma * math.sqrt(squares / (raw_s * raw_s) + _SHARED)
        scatter = math.hypot(scatter, _FLOOR)
        scale = math.hypot(scatter, self.warm_up)
        estimate_s = raw_s * math.exp(self.log_median)
        bound_s = estimate_s * math.exp(min(self.bounds[_BAND_OF[regime]] * scale, _MOST_LOG_BOUND))
        return Eta(estimate_s, bound_s, regime, raw_s, scale, own_s, self.warm_up > scatter)


class EtaState(BaseModel):
    """All that an estimator has learnt, for a store; the oldest first."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1  # of this format
    levels: tuple[float, ...] = ()
    scores: tuple[tuple[int, float], ...] = ()  # (band, score)
    medians: tuple[float, ...] = ()
    drifts: tuple[float, ...] = ()
    on_their_way: tuple[int, ...] = ()
    warm_up: float = _WARM_UP
    usual_s: float = 0.0
    usual_squared: float = 0.0

    @classmethod
    def read(cls, note: object) -> Self | None:
        """The state in a JSON value; None where there is none or it is of another format."""
        try:
            return cls.model_validate(note)
        except ValidationError:
            return None


class _Sorted:
    """The last values, in order."""

    __slots__ = ("ordered", "recent", "window")

    def __init__(self, window: int, values: Iterable[float] = ()) -> None:
        self.window = window
        self.recent: deque[float] = deque(values)
        self.ordered: list[float] = sorted(self.recent)

    def add(self, score: float) -> None:
        self.recent.append(score)
        insort(self.ordered, score)
        if len(self.recent) > self.window:
            self.drop()

    def drop(self) -> None:
        """The oldest."""
        del self.ordered[bisect_left(self.ordered, self.recent.popleft())]

    @property
    def median(self) -> float:
        """The upper one of two; some value must have been added."""
        return self.ordered[len(self.ordered) // 2]

    def quantile(self, level: float, prior: float, prior_weight: float) -> float:
        """Of the values seen; few are mixed with the prior."""
        count = len(self.ordered)
        if not count:
            return prior
        place = min(count - 1, math.ceil((count + 1) * level) - 1)
        weight = count / (count + prior_weight)
        return weight * self.ordered[max(0, place)] + (1 - weight) * prior


class EtaEstimator:
    """A conformal ETA estimator: turns raw forecasts into estimates and bounds, and learns from completions only."""

    def __init__(self, coverage: float = COVERAGE, state: EtaState | None = None) -> None:
        self._aim = coverage
        state = state or EtaState()
        self._levels = list(state.levels or [self._aim] * _BANDS)
        self._recent = deque(state.scores)
        self._scores = _Sorted(_WINDOW, (score for _, score in state.scores))
        self._of_band = [_Sorted(_WINDOW, (z for at, z in state.scores if at == band)) for band in range(_BANDS)]
        self._medians = _Sorted(_MEDIAN_WINDOW, state.medians)
        self._drifts = _Sorted(_DRIFTS, state.drifts)
        self._on_their_way = list(state.on_their_way or [0] * _BANDS)
        self._warm_up = state.warm_up
        self._usual_s, self._usual_squared = state.usual_s, state.usual_squared
        self._terms: EtaTerms | None = None
        self._learnt: tuple[float, tuple[float, ...]] | None = None  # median and bounds: completions alone change them

    @property
    def terms(self) -> EtaTerms:
        """What promises are made of now."""
        if self._learnt is None:
            self._learnt = self._median(), tuple(self._bound(band) for band in range(_BANDS))
            self._terms = None
        if self._terms is None:
            self._terms = EtaTerms(*self._learnt, self._warm_up, self._usual_s, self._usual_squared)
        return self._terms

    def promise(self, raw_s: float, own_s: float, sigma: float = 0.2) -> Eta:
        """As `EtaTerms.promise`, with the terms of now."""
        return self.terms.promise(raw_s, own_s, sigma)

    def admitted(self, eta: Eta) -> None:
        """A task was admitted with this ETA."""
        self._on_their_way[_BAND_OF[eta.regime]] += 1
        share = 1 / _USUAL_TASKS if self._usual_s else 1.0
        self._usual_s += share * (eta.own_s - self._usual_s)
        self._usual_squared += share * (eta.own_s * eta.own_s - self._usual_squared)
        self._terms = None

    def withdrawn(self, eta: Eta) -> None:
        """A task that was admitted will not complete, or not as it was forecast."""
        band = _BAND_OF[eta.regime]
        self._on_their_way[band] = max(0, self._on_their_way[band] - 1)

    def completed(self, eta: Eta, actual_s: float, own_now_s: float | None = None) -> None:
        """A task was done `actual_s` after its admission. `own_now_s` is what its own part would be said to take now:
        while such predictions change, old forecasts say nothing about new ones, and are left out."""
        band = _BAND_OF[eta.regime]
        self._on_their_way[band] = max(0, self._on_their_way[band] - 1)
        self._learnt = None
        self._warm_up *= math.exp(-1 / max(_FEW_ON_THEIR_WAY, sum(self._on_their_way)))
        if own_now_s and eta.own_s:
            self._drifts.add(abs(math.log(max(own_now_s, 1e-9) / eta.own_s)))
            if self._drifts.median > _STALE:
                return
        off = math.log(max(actual_s, 1e-3) / eta.raw_s)
        self._medians.add(off)
        if not eta.warming_up:
            self._score(band, (off - self._median()) / max(eta.scale, _FLOOR))
        on_their_way = max(_FEW_ON_THEIR_WAY, self._on_their_way[band])
        missed = 1.0 if actual_s > eta.p90_s else 0.0
        level = self._levels[band] + _GAIN / on_their_way * (missed - (1 - self._aim))
        self._levels[band] = min(max(level, _LEVELS[0]), _LEVELS[1])

    def _score(self, band: int, score: float) -> None:
        self._recent.append((band, score))
        self._of_band[band].add(score)
        self._scores.add(score)
        if len(self._recent) > _WINDOW:
            old, _ = self._recent.popleft()
            self._of_band[old].drop()

    def _median(self) -> float:
        return self._medians.quantile(0.5, 0.0, _MEDIAN_PRIOR)

    def _bound(self, band: int) -> float:
        level = self._levels[band]
        pooled = self._scores.quantile(level, _P90, _PRIOR_WEIGHT)
        found = self._of_band[band].quantile(level, pooled, _POOLED_WEIGHT)
        return min(max(found, _BOUNDS[0]), _BOUNDS[1])

    @property
    def state(self) -> EtaState:
        """Everything that was learnt."""
        return EtaState(
            levels=tuple(self._levels),
            scores=tuple(self._recent),
            medians=tuple(self._medians.recent),
            drifts=tuple(self._drifts.recent),
            on_their_way=tuple(self._on_their_way),
            warm_up=self._warm_up,
            usual_s=self._usual_s,
            usual_squared=self._usual_squared,
        )


def regime_of(raw_s: float, own_s: float) -> int:
    """0: starts at once; then one more for each doubling of the wait against the task's own seconds."""
    wait = (raw_s - own_s) / max(own_s, 1e-6)
    if wait <= 0.05:
        return 0
    return min(_REGIMES - 1, max(1, 2 + math.floor(math.log2(wait))))
