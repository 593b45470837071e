"""The cost model, corrected by what finished calls really took.

    correction(variant, accelerator, call) = median of log(seconds / predicted) of calls like it

taken level by level: the variant, the variant on one accelerator, and there calls of one shape, steps and batch. Each
level starts from the one above, which counts as a few observations of its own: two calls change nothing, an outlier (a
cold start, a page fault) is outvoted, and a shape or accelerator that was never seen gets what its relatives got.
Weights halve with age, so the last dozen calls decide. Seconds are kept, not ratios: a new profile in the catalog does
not make the history wrong. No clock, no files: `state` is JSON to be stored by whoever owns a store.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from pydantic import BaseModel, ConfigDict

from cluster.cost import Cost, Load, predict, seconds_on
from cluster.fit import Measured, fit_profile
from cluster.terms import PoolView, Wanted
from schemas.catalog import BatchPoint, CostProfile, Variant
from schemas.shape import Shape

_OF_A_CALL = (
    "fixed_s",
    "clip_s",
    "step_s",
    "step_s_per_token",
    "step_s_per_token_squared",
    "decode_s_per_megapixel",
)
_WINDOW = 32
_HALF_LIFE = 12.0  # calls of one kind
_KIND_HALF_LIFE = 200.0  # calls on the accelerator, since a kind was last seen
_MOST_KINDS = 64
_MOST_ANSWERS = 10_000
_SURE = 4.0  # a kind with more calls than this says no more about other kinds
_PRIOR_CALLS = 2.0
_PRIOR_CALLS_MEASURED = 4.0  # a profile that was measured is believed for longer
_PRIOR_SIGMA, _SIGMA_CALLS = 0.3, 5.0
_LEAST_TO_FIT, _LEAST_CALLS_TO_FIT = 4, 3


class CallHistory(BaseModel):
    """Seconds of the last calls of one kind, the oldest first; `last` is when the last one was, in calls."""

    model_config = ConfigDict(frozen=True)

    variant: str
    digest: str
    accelerator: str
    width: int
    height: int
    frames: int
    steps: int
    guidance: float
    batch: int
    last: int
    seconds: tuple[float, ...]


class LoadHistory(BaseModel):
    """Seconds of the last loads of a variant, the oldest first."""

    model_config = ConfigDict(frozen=True)

    variant: str
    digest: str
    accelerator: str
    load: Load
    seconds: tuple[float, ...]


class CalibrationState(BaseModel):
    """All that a `Calibrator` knows, for a store: `model_dump_json` and `model_validate_json`."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    calls: tuple[CallHistory, ...] = ()
    loads: tuple[LoadHistory, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kind:
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
class _History:
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    last: int = 0


@dataclass(slots=True)
class _Place:
    """One variant on one accelerator."""

    count: int = 0
    kinds: dict[_Kind, _History] = field(default_factory=dict)
    answers: dict[_Kind, Cost] = field(default_factory=dict)
    whole: float | None = None


class Calibrator:
    """Predictions for a catalog's variants that learn from finished calls."""

    def __init__(self, variants: Iterable[Variant], state: CalibrationState | None = None) -> None:
        self._variants = {variant.name: variant for variant in variants}
        self._digests = {name: variant.digest for name, variant in self._variants.items()}
        self._places: dict[tuple[str, str], _Place] = {}
        self._loads: dict[tuple[str, str, Load], deque[float]] = {}
        # What was measured of other weights or settings is of another variant by the same name.
        for call in state.calls if state else ():
            if self._digests.get(call.variant) == call.digest:
                place = self._places.setdefault((call.variant, call.accelerator), _Place())
                kind = _Kind(call.width, call.height, call.frames, call.steps, call.guidance, call.batch)
                place.kinds[kind] = _History(deque(call.seconds, maxlen=_WINDOW), call.last)
                place.count = max(place.count, call.last)
        for load in state.loads if state else ():
            if self._digests.get(load.variant) == load.digest:
                self._loads[load.variant, load.accelerator, load.load] = deque(load.seconds, maxlen=_WINDOW)

    # -- learning ------------------------------------------------------------------------------------------------

    def observe(self, variant: str, accelerator: str, call: Measured) -> None:
        """A call has finished. Unknown variants and impossible seconds are passed over."""
        if variant not in self._variants or not 0 < call.seconds < math.inf:
            return
        place = self._places.setdefault((variant, accelerator), _Place())
        kind = _kind(self._variants[variant], call.shape, call.steps, call.guidance, call.batch)
        if kind not in place.kinds and len(place.kinds) >= _MOST_KINDS:
            del place.kinds[min(place.kinds, key=lambda other: place.kinds[other].last)]
        place.count += 1
        history = place.kinds.setdefault(kind, _History())
        history.seconds.append(call.seconds)
        history.last = place.count
        for (name, _), other in self._places.items():
            if name == variant:  # the other accelerators lean on this one
                other.answers.clear()
                other.whole = None

    def observe_load(self, variant: str, accelerator: str, load: Load, seconds: float) -> None:
        """A model was loaded, from there."""
        if variant in self._variants and load is not Load.NONE and 0 < seconds < math.inf:
            self._loads.setdefault((variant, accelerator, load), deque(maxlen=_WINDOW)).append(seconds)
            for (name, _), place in self._places.items():
                if name == variant:
                    place.answers.clear()

    # -- predicting ----------------------------------------------------------------------------------------------

    def predict(
        self,
        variant: str,
        accelerator: str,
        shape: Shape,
        steps: int,
        guidance: float,
        batch: int = 1,
        *,
        load: Load = Load.NONE,
    ) -> Cost:
        """As `cluster.cost.predict`, corrected. KeyError for a variant that was not given."""
        entry = self._variants[variant]
        place = self._places.setdefault((variant, accelerator), _Place())
        kind = _kind(entry, shape, steps, guidance, batch)
        cost = place.answers.get(kind)
        if cost is None:
            raw = predict(entry, accelerator, shape, steps, guidance, batch, load=Load.NONE)
            factor = math.exp(self._correction(variant, accelerator, kind))
            cost = replace(
                raw, fixed_s=raw.fixed_s * factor, steps_s=raw.steps_s * factor, decode_s=raw.decode_s * factor
            )
            if len(place.answers) >= _MOST_ANSWERS:
                place.answers.clear()
            place.answers[kind] = cost
        return cost if load is Load.NONE else replace(cost, load_s=self.load_s(variant, accelerator, load))

    def load_s(self, variant: str, accelerator: str, load: Load) -> float:
        """Seconds to make the variant resident from there."""
        profile = seconds_on(self._variants[variant], accelerator)
        prior_s = {Load.NONE: 0.0, Load.WARM: profile.load_warm_s, Load.COLD: profile.load_cold_s}[load]
        seen = self._loads.get((variant, accelerator, load), ())
        return math.exp(_middle([(math.log(max(prior_s, 1e-3)), 1.0), *_aged(seen)])) if seen else prior_s

    def estimate(self, pool: PoolView, wanted: Wanted) -> float:
        """Execution seconds of a task on a pool, as `Router` and `Dispatcher` ask for them."""
        variant, terms = pool.variant, wanted.terms
        guidance = variant.guidance if terms.guidance is None else terms.guidance
        shape = terms.shape or variant.shape.default()
        return self.predict(variant.name, pool.accelerator, shape, terms.steps or variant.steps, guidance).execution_s

    def sigma(self, variant: str, accelerator: str) -> float:
        """Spread of the logarithm of a call's seconds around the prediction."""
        place = self._places.get((variant, accelerator))
        off = []
        for history in place.kinds.values() if place else ():
            aged = _aged(history.seconds)
            own = _middle(aged)
            off += [abs(log_s - own) for log_s, _ in aged] if len(aged) > 1 else []
        count = len(off)
        spread = 1.4826 * sorted(off)[count // 2] if count else 0.0
        return (count * spread + _SIGMA_CALLS * _PRIOR_SIGMA) / (count + _SIGMA_CALLS)

    def profile(self, variant: str, accelerator: str) -> tuple[CostProfile, tuple[BatchPoint, ...]]:
        """Profile and batch curve that say what is known now, for a catalog entry: a new fit where calls of enough
        kinds were seen and it explains them better, else the profile there is, scaled."""
        entry = self._variants[variant]
        profile = seconds_on(entry, accelerator)
        place = self._places.get((variant, accelerator))
        calls = _typical(place) if place else []
        factor = math.exp(self._whole(variant, accelerator)) if place else 1.0
        scaled = {name: getattr(profile, name) * factor for name in _OF_A_CALL}
        loads = {f"load_{load.value}_s": self.load_s(variant, accelerator, load) for load in (Load.WARM, Load.COLD)}
        measured = entry.cost.measured or bool(calls)
        best = profile.model_copy(update={**scaled, **loads, "measured": measured}), entry.batch_curve
        single = {(call.shape, call.steps) for call in calls if call.batch == 1}
        if len(single) >= _LEAST_TO_FIT and len({shape for shape, _ in single}) > 1:
            fitted = fit_profile(entry, calls, accelerator, profile.load_cold_s, profile.encode_s_per_megapixel)
            again = fitted[0].model_copy(update=loads), fitted[1]
            if _off(entry, again, calls) < _off(entry, best, calls):
                return again
        return best

    @property
    def state(self) -> CalibrationState:
        """Everything, in a stable order."""
        calls = [
            CallHistory(
                variant=name,
                digest=self._digests[name],
                accelerator=accelerator,
                **{slot: getattr(kind, slot) for slot in _Kind.__slots__},
                last=history.last,
                seconds=tuple(history.seconds),
            )
            for (name, accelerator), place in sorted(self._places.items())
            for kind, history in sorted(place.kinds.items(), key=lambda item: item[1].last)
        ]
        loads = [
            LoadHistory(variant=n, digest=self._digests[n], accelerator=a, load=load, seconds=tuple(seconds))
            for (n, a, load), seconds in sorted(self._loads.items())
        ]
        return CalibrationState(calls=tuple(calls), loads=tuple(loads))

    # -- levels --------------------------------------------------------------------------------------------------

    def _correction(self, variant: str, accelerator: str, kind: _Kind) -> float:
        whole = self._whole(variant, accelerator)
        history = self._places[variant, accelerator].kinds.get(kind)
        if history is None:
            return whole
        base = self._base(variant, accelerator, kind)
        return _middle([(whole, _PRIOR_CALLS), *((log_s - base, weight) for log_s, weight in _aged(history.seconds))])

    def _whole(self, variant: str, accelerator: str) -> float:
        """The variant on the accelerator, from all kinds of calls there and, as a start, from other accelerators."""
        place = self._places.setdefault((variant, accelerator), _Place())
        if place.whole is None:
            prior = _PRIOR_CALLS_MEASURED if self._variants[variant].cost.measured else _PRIOR_CALLS
            others = [
                votes
                for (name, where), other in self._places.items()
                if name == variant and where != accelerator
                for votes in self._votes(variant, where, other)
            ]
            start = _middle([(0.0, prior), *others])
            place.whole = _middle([(start, prior), *self._votes(variant, accelerator, place)])
        return place.whole

    def _votes(self, variant: str, accelerator: str, place: _Place) -> list[tuple[float, float]]:
        """What each kind of call says about the others, and how surely."""
        votes = []
        for kind, history in place.kinds.items():
            aged = _aged(history.seconds)
            sure = min(_SURE, sum(weight for _, weight in aged))
            fresh = 0.5 ** ((place.count - history.last) / _KIND_HALF_LIFE)
            votes.append((_middle(aged) - self._base(variant, accelerator, kind), sure * fresh))
        return votes

    def _base(self, variant: str, accelerator: str, kind: _Kind) -> float:
        cost = predict(
            self._variants[variant], accelerator, kind.shape, kind.steps, kind.guidance, kind.batch, load=Load.NONE
        )
        return math.log(max(cost.execution_s, 1e-9))


def _kind(variant: Variant, shape: Shape, steps: int, guidance: float, batch: int) -> _Kind:
    # Only whether guidance is on decides how long a call takes.
    guided = variant.guidance_off_at + 1.0 if variant.runs_guided(guidance) else 0.0
    return _Kind(shape.width, shape.height, shape.frames, steps, guided, batch)


def _aged(seconds: Iterable[float]) -> list[tuple[float, float]]:
    """(log seconds, weight), the newest with weight 1."""
    found = list(seconds)
    return [(math.log(value), 0.5 ** ((len(found) - 1 - i) / _HALF_LIFE)) for i, value in enumerate(found)]


def _middle(votes: Sequence[tuple[float, float]]) -> float:
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


def _typical(place: _Place) -> list[Measured]:
    return [
        Measured(kind.shape, kind.steps, kind.guidance, kind.batch, math.exp(_middle(_aged(history.seconds))))
        for kind, history in place.kinds.items()
        if len(history.seconds) >= _LEAST_CALLS_TO_FIT
    ]


def _off(variant: Variant, found: tuple[CostProfile, tuple[BatchPoint, ...]], calls: Sequence[Measured]) -> float:
    """Median relative error of a profile on calls."""
    entry = variant.model_copy(update={"cost": found[0], "batch_curve": found[1]})
    errors = sorted(
        abs(
            predict(entry, found[0].accelerator, c.shape, c.steps, c.guidance, c.batch, load=Load.NONE).execution_s
            / c.seconds
            - 1
        )
        for c in calls
    )
    return errors[len(errors) // 2]
