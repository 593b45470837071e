"""What the last calls took, by kind of call: recent seconds, and the middle of what they say.

Weights halve with age, so the last dozen calls decide, and an outlier is outvoted by two calls that agree.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cluster.cost import Cost
from cluster.fit import Measured
from schemas.catalog import Variant
from schemas.shape import Shape

LAST_CALLS = 32
"""How many of one kind are kept."""
_HALF_LIFE = 12.0  # calls of one kind
_LEAST_CALLS_TO_FIT = 3


@dataclass(frozen=True, slots=True)
class CallKind:
    """Calls that take the same."""

    width: int
    height: int
    frames: int
    steps: int
    guidance: float
    batch: int

    @property
    def shape(self) -> Shape:
        return Shape(width=self.width, height=self.height, frames=self.frames)


@dataclass(slots=True)
class RecentCalls:
    """Seconds of the last calls of one kind, the oldest first; `last` is when the last one was, in calls."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=LAST_CALLS))
    last: int = 0


@dataclass(slots=True)
class Place:
    """One variant on one accelerator."""

    count: int = 0
    kinds: dict[CallKind, RecentCalls] = field(default_factory=dict)
    answers: dict[CallKind, Cost] = field(default_factory=dict)
    whole: float | None = None


def kind_of(variant: Variant, shape: Shape, steps: int, guidance: float, batch: int) -> CallKind:
    """The kind of such a call."""
    # Only whether guidance is on decides how long a call takes.
    guided = variant.guidance_off_at + 1.0 if variant.runs_guided(guidance) else 0.0
    return CallKind(shape.width, shape.height, shape.frames, steps, guided, batch)


def aged(seconds: Iterable[float]) -> list[tuple[float, float]]:
    """(log seconds, weight), the newest with weight 1."""
    found = list(seconds)
    return [(math.log(value), 0.5 ** ((len(found) - 1 - i) / _HALF_LIFE)) for i, value in enumerate(found)]


def middle(votes: Sequence[tuple[float, float]]) -> float:
    """The weighted median; halfway between two values where each has half."""
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


def typical(place: Place) -> list[Measured]:
    """Of each kind that was seen often enough, the call that is in the middle."""
    return [
        Measured(kind.shape, kind.steps, kind.guidance, kind.batch, math.exp(middle(aged(history.seconds))))
        for kind, history in place.kinds.items()
        if len(history.seconds) >= _LEAST_CALLS_TO_FIT
    ]
