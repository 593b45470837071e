"""One term of what `ServiceTimes` adds to a prior: an offset of log seconds, how sure it is, whether it has changed."""

import math
from collections.abc import Sequence
from typing import Any

_CLIP, _REJECT = 2.0, 6.0  # standard deviations from which on an error counts less, and from which on not at all
_SLACK, _ALARM, _MOST_SCORE = 0.75, 6.0, 3.0  # of the CUSUM, in standard deviations
_MOST_CHANGE = 2.5  # of log seconds
_MOVED = 0.003  # of log seconds: less leaves answers as they are
_FEW = 8


class Correction:
    """`stamp` rises when answers that were made with it are stale; `answer` is the last one, with the stamps' sum.
    `up` and `down` are the CUSUMs, `changes` how often they have alarmed."""

    __slots__ = (
        "answer",
        "before",
        "changes",
        "count",
        "down",
        "moved",
        "offset",
        "signature",
        "stamp",
        "up",
        "variance",
    )

    def __init__(self, variance: float, offset: float = 0.0, count: int = 0) -> None:
        self.offset, self.variance, self.count = offset, variance, count
        self.up = self.down = self.before = self.moved = 0.0
        self.stamp = self.changes = 0
        self.signature = -1
        self.answer: Any = None


def share_out(nodes: Sequence[Correction], off: float, noise_squared: float, floors: Sequence[float]) -> float:
    """Each node takes over the share of the error `off` that its variance has in that of the whole, and is suspected of
    having changed where errors stay to one side. Returns the share of the noise, which nobody takes over. `floors` are
    the nodes' least variances, in variances of the noise."""
    whole = noise_squared
    for node in nodes:
        whole += node.variance
    score = off / math.sqrt(whole)
    size = abs(score)
    weight = 1.0
    if size > _CLIP:  # an outlier moves little, and makes nobody surer
        weight = _CLIP * (_REJECT - size) / ((_REJECT - _CLIP) * size) if size < _REJECT else 0.0
        score = max(-_MOST_SCORE, min(_MOST_SCORE, score))
    rising, falling, share = score - _SLACK, -score - _SLACK, weight / whole
    alarmed: Correction | None = None
    for node, floor in zip(nodes, floors, strict=False):
        gain = node.variance * share
        step = gain * off
        variance, least = node.variance * (1.0 - gain), floor * noise_squared
        node.variance = variance if variance > least else least
        node.offset += step
        node.moved += step
        node.count += 1
        if node.count < _FEW or not -_MOVED < node.moved < _MOVED:
            node.moved = 0.0
            node.stamp += 1
        up, down = node.up + rising, node.down + falling
        node.up = up if up > 0.0 else 0.0
        node.down = down if down > 0.0 else 0.0
        if (up > _ALARM or down > _ALARM) and alarmed is None:
            alarmed = node
    if alarmed is not None:
        alarmed.variance += max(noise_squared, min(abs(off), _MOST_CHANGE) ** 2)
        alarmed.changes += 1
        for node in nodes:
            node.up = node.down = 0.0
            node.stamp += 1
    return noise_squared / whole


class PlaceCorrection(Correction):
    """Of a variant on an accelerator; `told` is where its level stood when `ServiceTimes.version` last rose for it."""

    __slots__ = ("noise", "told", "variant")

    def __init__(self, variant: Correction, noise: float, variance: float, offset: float = 0.0, count: int = 0) -> None:
        super().__init__(variance, offset, count)
        self.variant, self.noise, self.told = variant, noise, 0.0


class LeafCorrection(Correction):
    """Of a configuration there; `last` is when it was last seen, in observations."""

    __slots__ = ("last", "place", "prior_log_s", "tenants", "usual_log_s")

    def __init__(
        self,
        place: PlaceCorrection,
        prior_log_s: float,
        variance: float,
        offset: float = 0.0,
        count: int = 0,
        last: int = 0,
        usual_log_s: float = 0.0,
    ) -> None:
        super().__init__(variance, offset, count)
        self.place, self.prior_log_s, self.last = place, prior_log_s, last
        self.usual_log_s = usual_log_s  # by itself: nothing of its relatives in it
        self.tenants: dict[str, Correction] = {}
