"""What loading a model takes, by variant, accelerator and where its weights were.

The weighted median of the last loads and of what the prior says, which counts as one: weights halve with age, so the
last dozen loads decide, and an outlier is outvoted by two loads that agree.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from cluster.cost.model import Load

_LAST_LOADS = 32
_HALF_LIFE = 12.0


class LoadHistory(NamedTuple):
    """Seconds of the last loads of a variant, the oldest first."""

    variant: str
    accelerator: str
    load: Load
    seconds: tuple[float, ...]


class LoadTimesState(BaseModel):
    """The last loads of all variants."""

    model_config = ConfigDict(frozen=True)

    loads: tuple[LoadHistory, ...] = ()

    def of(self, variants: Collection[str]) -> "LoadTimesState":
        """Those of some variants."""
        return LoadTimesState(loads=tuple(one for one in self.loads if one.variant in variants))


class LoadTimes:
    """Learns from loads; `prior_s` answers (variant, accelerator, load) where nothing was seen."""

    def __init__(self, prior_s: Callable[[str, str, Load], float], state: LoadTimesState) -> None:
        self._prior_s = prior_s
        self._seen = {(one.variant, one.accelerator, one.load): _last(one.seconds) for one in state.loads}
        self._answers: dict[tuple[str, str, Load], float] = {}

    def observe(self, variant: str, accelerator: str, load: Load, seconds: float) -> None:
        """Impossible seconds are passed over."""
        if load is not Load.NONE and 0 < seconds < math.inf:
            self._seen.setdefault((variant, accelerator, load), _last(())).append(seconds)
            self._answers.pop((variant, accelerator, load), None)

    def seconds(self, variant: str, accelerator: str, load: Load) -> float:
        """Of a load from there."""
        key = variant, accelerator, load
        found = self._answers.get(key)
        if found is None:
            found = self._prior_s(*key)
            if seen := self._seen.get(key):
                aged = [
                    (math.log(value), 0.5 ** ((len(seen) - 1 - place) / _HALF_LIFE)) for place, value in enumerate(seen)
                ]
                found = math.exp(weighted_median([(math.log(max(found, 1e-3)), 1.0), *aged]))
            self._answers[key] = found
        return found

    @property
    def state(self) -> LoadTimesState:
        """In a stable order."""
        return LoadTimesState(loads=tuple(LoadHistory(*key, tuple(seen)) for key, seen in sorted(self._seen.items())))


def weighted_median(votes: Sequence[tuple[float, float]]) -> float:
    """Of (value, weight); halfway between two values where each has half."""
    ordered = sorted(votes)
    half = sum(weight for _, weight in ordered) / 2
    below = 0.0
    for place, (value, weight) in enumerate(ordered):
        below += weight
        if abs(below - half) <= 1e-9 * half and place + 1 < len(ordered):
            return (value + ordered[place + 1][0]) / 2
        if below >= half:
            return value
    return ordered[-1][0]


def _last(seconds: Iterable[float]) -> deque[float]:
    return deque(seconds, maxlen=_LAST_LOADS)
