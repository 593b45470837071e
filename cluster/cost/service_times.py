"""What a task takes on an accelerator: a prior, corrected by what finished tasks really took.

    log seconds = log prior(key) + all + variant + variant on accelerator + configuration + its tenant + noise

The production scheduler and the simulator predict with this one class; only the prior differs (`Prior`): the cost model
for variants whose architecture is known, a regression on a trace's features for those whose is not.

Each term is a node with an offset and a variance. An observation's error is shared out in proportion to the variances
(a Kalman filter with a diagonal covariance), so that what little is known of moves most, an unseen configuration gets
what its relatives got, and a node that is sure ages exponentially. Errors beyond two standard deviations count less the
farther they are, so that outliers are outvoted. A two-sided CUSUM of the standardised errors at every node finds
changes: the first node to alarm is unsure again, by as much as it is off, and takes the next observation nearly whole.
"""

import math
from collections import deque
from collections.abc import Hashable
from typing import NamedTuple, Protocol

from cluster.cost.correction import Correction, LeafCorrection, PlaceCorrection, share_out
from cluster.cost.load_times import LoadTimes
from cluster.cost.model import Load
from cluster.cost.service_times_state import (
    LeafState,
    NodeState,
    PlaceState,
    ServiceTimesState,
    VariantState,
)

_FLOORS = (0.0004, 0.004, 0.004, 0.025, 0.025)  # least variances, in variances of the noise: how fast they age
_PLACE_VARIANCE = 0.15**2
_TENANT_VARIANCE = 0.1**2
_LEAST_LEVEL_VARIANCE = 0.01**2
_LEVEL_WEIGHT, _LEVEL_GAIN, _LEVEL_CLIP = 50.0, 0.002, 0.7
_NOISE_WEIGHT, _NOISE_GAIN = 3.0, 0.02
_USUAL_GAIN = 0.08
_MOST_DEVIATION, _MEAN_DEVIATION = 2.0, 0.7810  # in standard deviations: where errors are cut, and what is left of them
_FIRST_VARIANCE = 0.5**2  # more, of the first observation at a place: first calls compile and fill caches
_MOVED_MATERIALLY = 0.1  # of log seconds
_FEW = 8
_MOST_NODES = 8192
_FRESH = 4 * _MOST_NODES  # observations: what was seen since is not forgotten first


class CostKey(NamedTuple):
    """Tasks that take the same, but for noise and tenant."""

    variant: str
    accelerator: str
    configuration: Hashable  # (width, height, frames, steps, guidance) of a call, a number in a trace
    batch: int = 1


class Prediction(NamedTuple):
    """Seconds of one call. `sigma` is the spread of log seconds around the median: noise, and what is not known yet."""

    seconds: float  # the mean
    median_s: float
    sigma: float


class Seen(NamedTuple):
    """Calls of one configuration: how many, and what they usually took."""

    key: CostKey
    calls: int
    usual_s: float


class Prior(Protocol):
    """What is known before anything was observed."""

    @property
    def doubt(self) -> float:
        """By how much it may be off for all variants alike, as a standard deviation of log seconds."""
        ...

    @property
    def doubt_of_configurations(self) -> float:
        """By how much it may be off for one configuration against the others, likewise."""
        ...

    def identity(self, variant: str) -> str | None:
        """Changes when what was learnt of a variant by that name is void; None for a variant that is not known."""
        ...

    def doubt_of(self, variant: str) -> float:
        """By how much it may be off for this variant, as a standard deviation of log seconds."""
        ...

    def seconds(self, key: CostKey) -> float:
        """Seconds of a call, positive. KeyError for a variant that is not known."""
        ...

    def load_s(self, variant: str, accelerator: str, load: Load) -> float:
        """Seconds to make a variant resident."""
        ...

    def observe(self, key: CostKey, seconds: float) -> bool:
        """A call has finished. True when what `seconds` answers has changed."""
        ...


class ServiceTimes:
    """Predictions that learn from finished calls. No clock, no files; not thread-safe."""

    def __init__(self, prior: Prior, state: ServiceTimesState | None = None) -> None:
        self._prior = prior
        self.version = 0
        """Rises when predictions have changed so much that what was planned with them is worth planning again."""
        state = state or ServiceTimesState()
        self._observed = state.observed
        self._noise = state.noise  # usual: where a place begins
        self._levels = [
            list(level) for level in state.levels or ((prior.doubt_of_configurations**2, 0), (_TENANT_VARIANCE, 0))
        ]
        """Variances among configurations and among tenants, and from how many observations."""
        self._all = Correction(*_of(state.every, prior.doubt**2))
        self._variants: dict[str, Correction] = {}
        self._places: dict[tuple[str, str], PlaceCorrection] = {}
        self._leaves: dict[CostKey, LeafCorrection] = {}
        for known in state.variants:
            if prior.identity(known.variant) == known.identity:
                self._variants[known.variant] = Correction(known.node.variance, known.node.offset, known.node.calls)
        for there in state.places:
            if there.variant in self._variants:
                offset, variance, count = there.node
                place = PlaceCorrection(self._variants[there.variant], there.noise, variance, offset, count)
                place.told = self._all.offset + place.variant.offset + offset
                self._places[there.variant, there.accelerator] = place
        for one in state.leaves:
            if (one.variant, one.accelerator) in self._places:
                place = self._places[one.variant, one.accelerator]
                offset, variance, count = one.node
                leaf = LeafCorrection(place, one.prior_log_s, variance, offset, count, one.last)
                leaf.usual_log_s = one.usual_log_s
                leaf.tenants = {name: Correction(node.variance, node.offset, node.calls) for name, node in one.tenants}
                self._leaves[CostKey(one.variant, one.accelerator, one.configuration, one.batch)] = leaf
        # The oldest first, each with how often it had been seen when it was put there.
        self._tenants = deque(
            (leaf, name, node.count) for leaf in self._leaves.values() for name, node in leaf.tenants.items()
        )
        self._loads = LoadTimes(
            prior.load_s, state.loads.of({known.variant for known in state.variants} & self._variants.keys())
        )
        self._rebase()

    # -- predicting ----------------------------------------------------------------------------------------------

    def predict(self, key: CostKey, tenant: str = "") -> Prediction:
        """What a call takes. KeyError for a variant that the prior does not know."""
        leaf = self._leaves.get(key)
        if leaf is None:
            leaf = self._leaf(key)
        place = leaf.place
        signature = self._all.stamp + place.variant.stamp + place.stamp + leaf.stamp
        node: Correction = leaf
        if tenant and tenant in leaf.tenants:
            node = leaf.tenants[tenant]
            signature += node.stamp
        if node.answer is not None and node.signature == signature:
            return node.answer
        offset = self._all.offset + place.variant.offset + place.offset + leaf.offset
        variance = self._all.variance + place.variant.variance + place.variance + leaf.variance
        if node is not leaf:
            offset += node.offset
            variance += node.variance
        noise_squared = place.noise * place.noise
        median_s = math.exp(leaf.prior_log_s + offset)
        said = Prediction(
            median_s * math.exp(min(noise_squared, 1.0) / 2), median_s, math.sqrt(noise_squared + variance)
        )
        node.answer, node.signature = said, signature
        return said

    def load_s(self, variant: str, accelerator: str, load: Load) -> float:
        """Seconds to make a variant resident from there."""
        return self._loads.seconds(variant, accelerator, load)

    def factor(self, variant: str, accelerator: str) -> float:
        """By what the prior is multiplied there, whatever the configuration."""
        variant_node, place = self._variants.get(variant), self._places.get((variant, accelerator))
        nodes = (self._all, variant_node, place)
        return math.exp(sum(node.offset for node in nodes if node is not None))

    def seen(self) -> tuple[Seen, ...]:
        """The configurations that calls were observed of, in a stable order."""
        found = [Seen(key, leaf.count, math.exp(leaf.usual_log_s)) for key, leaf in self._leaves.items() if leaf.count]
        return tuple(sorted(found, key=lambda one: (one.key.variant, one.key.accelerator, repr(one.key))))

    # -- learning ------------------------------------------------------------------------------------------------

    def observe(self, key: CostKey, seconds: float, tenant: str = "") -> None:
        """A call has finished. Unknown variants and impossible seconds are passed over."""
        if not 0 < seconds < math.inf or self._prior.identity(key.variant) is None:
            return
        self._observed += 1
        leaf = self._leaves.get(key) or self._leaf(key)
        place = leaf.place
        log_s = math.log(seconds)
        if leaf.count:
            most = 3 * place.noise
            moved = max(-most, min(most, log_s - leaf.usual_log_s))
            leaf.usual_log_s += max(_USUAL_GAIN, 1 / (leaf.count + 1)) * moved
        else:
            leaf.usual_log_s, leaf.variance = log_s, self._levels[0][0]
        leaf.last = self._observed
        nodes: list[Correction] = [self._all, place.variant, place, leaf]
        if tenant:
            nodes.append(leaf.tenants.get(tenant) or self._tenant(leaf, tenant))
        off = log_s - leaf.prior_log_s
        for node in nodes:
            off -= node.offset
        self._learn_level(self._levels[0], leaf, off + leaf.offset)
        if tenant:
            self._learn_level(self._levels[1], nodes[4], off + nodes[4].offset)
        noise_squared = place.noise * place.noise + _FIRST_VARIANCE / (1 + place.count) ** 2
        changes = self._all.changes + place.variant.changes + place.changes
        share = share_out(nodes, off, noise_squared, _FLOORS)
        self._learn_noise(place, abs(off), share)
        stands = self._all.offset + place.variant.offset + place.offset
        if (
            not -_MOVED_MATERIALLY < stands - place.told < _MOVED_MATERIALLY
            or self._all.changes + place.variant.changes + place.changes != changes
        ):
            place.told = stands
            self.version += 1
        if self._prior.observe(key, seconds):
            self._rebase()

    def observe_load(self, variant: str, accelerator: str, load: Load, seconds: float) -> None:
        """A model was loaded, from there."""
        if self._prior.identity(variant) is not None:
            self._loads.observe(variant, accelerator, load, seconds)

    def _learn_level(self, level: list[float], node: Correction, off: float) -> None:
        """What two observations of a node have in common is the node's, their noise is not: the mean product of
        successive residuals is the variance among nodes of the level."""
        off = max(-_LEVEL_CLIP, min(_LEVEL_CLIP, off))
        if node.count:
            level[1] += 1
            level[0] += max(_LEVEL_GAIN, 1 / (_LEVEL_WEIGHT + level[1])) * (off * node.before - level[0])
            level[0] = max(level[0], _LEAST_LEVEL_VARIANCE)
        node.before = off

    def _learn_noise(self, place: PlaceCorrection, off: float, share: float) -> None:
        """`share` of the error's variance is noise's."""
        before = place.noise
        deviation = min(off, _MOST_DEVIATION * before) / _MEAN_DEVIATION
        place.noise = max(
            1e-3, before + share * max(_NOISE_GAIN, 1 / (_NOISE_WEIGHT + place.count)) * (deviation - before)
        )
        self._noise += share * max(_NOISE_GAIN, 1 / (_NOISE_WEIGHT + self._observed)) * (place.noise - self._noise)
        if abs(place.noise - before) > 0.02 * before:
            place.stamp += 1

    # -- nodes ---------------------------------------------------------------------------------------------------

    def _leaf(self, key: CostKey) -> LeafCorrection:
        prior_log_s = math.log(max(self._prior.seconds(key), 1e-9))
        place = self._places.get((key.variant, key.accelerator))
        if place is None:
            variant = self._variants.get(key.variant)
            if variant is None:
                variant = self._variants[key.variant] = Correction(self._prior.doubt_of(key.variant) ** 2)
            place = self._places[key.variant, key.accelerator] = PlaceCorrection(variant, self._noise, _PLACE_VARIANCE)
        for _ in range(_FEW if len(self._leaves) >= _MOST_NODES else 0):
            oldest = next(iter(self._leaves))
            leaf = self._leaves.pop(oldest)
            if not leaf.count or self._observed - leaf.last > _FRESH:
                break
            self._leaves[oldest] = leaf
        while len(self._leaves) >= _MOST_NODES:
            del self._leaves[next(iter(self._leaves))]
        leaf = self._leaves[key] = LeafCorrection(place, prior_log_s, self._levels[0][0])
        return leaf

    def _tenant(self, leaf: LeafCorrection, tenant: str) -> Correction:
        for last_try in range(_FEW, -1, -1):
            if len(self._tenants) < _MOST_NODES:
                break
            other, name, count = self._tenants.popleft()
            if last_try and other.tenants[name].count > count:  # seen since: it has another turn
                self._tenants.append((other, name, other.tenants[name].count))
            else:
                del other.tenants[name]
        node = leaf.tenants[tenant] = Correction(self._levels[1][0])
        self._tenants.append((leaf, tenant, 1))
        return node

    def _rebase(self) -> None:
        """The prior answers differently: what was seen keeps its prediction, by what levels and then leaves take up."""
        rest: dict[LeafCorrection, float] = {}
        for key, leaf in list(self._leaves.items()):
            if not leaf.count:
                del self._leaves[key]
                continue
            prior_log_s = math.log(max(self._prior.seconds(key), 1e-9))
            rest[leaf] = prior_log_s - leaf.prior_log_s
            leaf.prior_log_s = prior_log_s
        if not any(rest.values()):
            return
        self.version += 1
        parents = (lambda leaf: self._all, lambda leaf: leaf.place.variant, lambda leaf: leaf.place)
        for parent in parents:
            sums: dict[Correction, list[float]] = {}
            for leaf, moved in rest.items():
                of = sums.setdefault(parent(leaf), [0.0, 0.0])
                of[0] += moved * min(leaf.count, _FEW)
                of[1] += min(leaf.count, _FEW)
            for node, (total, weight) in sums.items():
                node.offset -= total / weight
                node.stamp += 1
            for leaf in rest:
                total, weight = sums[parent(leaf)]
                rest[leaf] -= total / weight
        for leaf, moved in rest.items():
            # Of a configuration that was hardly seen, the prior knows more than its few calls said.
            noise_squared = leaf.place.noise**2
            leaf.offset -= moved * leaf.count / (leaf.count + noise_squared / self._levels[0][0])
            leaf.stamp += 1
        for place in self._places.values():
            place.told = self._all.offset + place.variant.offset + place.offset

    @property
    def doubt(self) -> float:
        """By how much predictions may be off for all variants alike, as a standard deviation of log seconds."""
        return math.sqrt(self._all.variance)

    @property
    def observed(self) -> int:
        """How many calls were observed."""
        return self._observed

    @property
    def state(self) -> ServiceTimesState:
        """Everything that was learnt, in a stable order."""
        leaves = [(key, leaf) for key, leaf in self._leaves.items() if leaf.count]
        return ServiceTimesState(
            observed=self._observed,
            noise=self._noise,
            every=_state(self._all),
            levels=tuple((variance, int(count)) for variance, count in self._levels),
            variants=tuple(
                VariantState(name, self._prior.identity(name) or "", _state(node))
                for name, node in sorted(self._variants.items())
            ),
            places=tuple(
                PlaceState(name, accelerator, place.noise, _state(place))
                for (name, accelerator), place in sorted(self._places.items())
            ),
            leaves=tuple(
                LeafState(
                    key.variant,
                    key.accelerator,
                    _storable(key.configuration),
                    key.batch,
                    leaf.prior_log_s,
                    leaf.usual_log_s,
                    leaf.last,
                    _state(leaf),
                    tuple((name, _state(node)) for name, node in leaf.tenants.items()),
                )
                for key, leaf in sorted(leaves, key=lambda item: item[1].last)
            ),
            loads=self._loads.state,
        )


def _state(node: Correction) -> NodeState:
    return NodeState(node.offset, node.variance, node.count)


def _of(node: NodeState | None, variance: float) -> tuple[float, float, int]:
    return (variance, 0.0, 0) if node is None else (node.variance, node.offset, node.calls)


def _storable(configuration: Hashable) -> tuple[int | float, ...] | int | str:
    assert isinstance(configuration, tuple | int | str)
    return configuration
