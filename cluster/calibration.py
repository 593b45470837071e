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
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from cluster.call_history import LAST_CALLS, CallKind, Place, RecentCalls, aged, kind_of, middle, typical
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
_KIND_HALF_LIFE = 200.0  # calls on the accelerator, since a kind was last seen
_MOST_KINDS = 64
_MOST_ANSWERS = 10_000
_SURE = 4.0  # a kind with more calls than this says no more about other kinds
_PRIOR_CALLS = 2.0
_PRIOR_CALLS_MEASURED = 4.0  # a profile that was measured is believed for longer
_PRIOR_SIGMA, _SIGMA_CALLS = 0.3, 5.0
_LEAST_KINDS_TO_FIT = 4


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


class Calibrator:
    """Predictions for a catalog's variants that learn from finished calls."""

    def __init__(self, variants: Iterable[Variant], state: CalibrationState | None = None) -> None:
        self._variants = {variant.name: variant for variant in variants}
        self._digests = {name: variant.digest for name, variant in self._variants.items()}
        self._places: dict[tuple[str, str], Place] = {}
        self._loads: dict[tuple[str, str, Load], deque[float]] = {}
        # What was measured of other weights or settings is of another variant by the same name.
        for call in state.calls if state else ():
            if self._digests.get(call.variant) == call.digest:
                place = self._places.setdefault((call.variant, call.accelerator), Place())
                kind = CallKind(call.width, call.height, call.frames, call.steps, call.guidance, call.batch)
                place.kinds[kind] = RecentCalls(deque(call.seconds, maxlen=LAST_CALLS), call.last)
                place.count = max(place.count, call.last)
        for load in state.loads if state else ():
            if self._digests.get(load.variant) == load.digest:
                self._loads[load.variant, load.accelerator, load.load] = deque(load.seconds, maxlen=LAST_CALLS)

    # -- learning ------------------------------------------------------------------------------------------------

    def observe(self, variant: str, accelerator: str, call: Measured) -> None:
        """A call has finished. Unknown variants and impossible seconds are passed over."""
        if variant not in self._variants or not 0 < call.seconds < math.inf:
            return
        place = self._places.setdefault((variant, accelerator), Place())
        kind = kind_of(self._variants[variant], call.shape, call.steps, call.guidance, call.batch)
        if kind not in place.kinds and len(place.kinds) >= _MOST_KINDS:
            del place.kinds[min(place.kinds, key=lambda other: place.kinds[other].last)]
        place.count += 1
        history = place.kinds.setdefault(kind, RecentCalls())
        history.seconds.append(call.seconds)
        history.last = place.count
        for (name, _), other in self._places.items():
            if name == variant:  # the other accelerators lean on this one
                other.answers.clear()
                other.whole = None

    def observe_load(self, variant: str, accelerator: str, load: Load, seconds: float) -> None:
        """A model was loaded, from there."""
        if variant in self._variants and load is not Load.NONE and 0 < seconds < math.inf:
            self._loads.setdefault((variant, accelerator, load), deque(maxlen=LAST_CALLS)).append(seconds)
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
        place = self._places.setdefault((variant, accelerator), Place())
        kind = kind_of(entry, shape, steps, guidance, batch)
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
        return math.exp(middle([(math.log(max(prior_s, 1e-3)), 1.0), *aged(seen)])) if seen else prior_s

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
            weighed = aged(history.seconds)
            own = middle(weighed)
            off += [abs(log_s - own) for log_s, _ in weighed] if len(weighed) > 1 else []
        count = len(off)
        spread = 1.4826 * sorted(off)[count // 2] if count else 0.0
        return (count * spread + _SIGMA_CALLS * _PRIOR_SIGMA) / (count + _SIGMA_CALLS)

    def profile(self, variant: str, accelerator: str) -> tuple[CostProfile, tuple[BatchPoint, ...]]:
        """Profile and batch curve that say what is known now, for a catalog entry: a new fit where calls of enough
        kinds were seen and it explains them better, else the profile there is, scaled."""
        entry = self._variants[variant]
        profile = seconds_on(entry, accelerator)
        place = self._places.get((variant, accelerator))
        calls = typical(place) if place else []
        factor = math.exp(self._whole(variant, accelerator)) if place else 1.0
        scaled = {name: getattr(profile, name) * factor for name in _OF_A_CALL}
        loads = {f"load_{load.value}_s": self.load_s(variant, accelerator, load) for load in (Load.WARM, Load.COLD)}
        measured = entry.cost.measured or bool(calls)
        best = profile.model_copy(update={**scaled, **loads, "measured": measured}), entry.batch_curve
        single = {(call.shape, call.steps) for call in calls if call.batch == 1}
        if len(single) >= _LEAST_KINDS_TO_FIT and len({shape for shape, _ in single}) > 1:
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
                **{slot: getattr(kind, slot) for slot in CallKind.__slots__},
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

    def _correction(self, variant: str, accelerator: str, kind: CallKind) -> float:
        whole = self._whole(variant, accelerator)
        history = self._places[variant, accelerator].kinds.get(kind)
        if history is None:
            return whole
        base = self._base(variant, accelerator, kind)
        return middle([(whole, _PRIOR_CALLS), *((log_s - base, weight) for log_s, weight in aged(history.seconds))])

    def _whole(self, variant: str, accelerator: str) -> float:
        """The variant on the accelerator, from all kinds of calls there and, as a start, from other accelerators."""
        place = self._places.setdefault((variant, accelerator), Place())
        if place.whole is None:
            prior = _PRIOR_CALLS_MEASURED if self._variants[variant].cost.measured else _PRIOR_CALLS
            others = [
                votes
                for (name, where), other in self._places.items()
                if name == variant and where != accelerator
                for votes in self._votes(variant, where, other)
            ]
            start = middle([(0.0, prior), *others])
            place.whole = middle([(start, prior), *self._votes(variant, accelerator, place)])
        return place.whole

    def _votes(self, variant: str, accelerator: str, place: Place) -> list[tuple[float, float]]:
        """What each kind of call says about the others, and how surely."""
        votes = []
        for kind, history in place.kinds.items():
            weighed = aged(history.seconds)
            sure = min(_SURE, sum(weight for _, weight in weighed))
            fresh = 0.5 ** ((place.count - history.last) / _KIND_HALF_LIFE)
            votes.append((middle(weighed) - self._base(variant, accelerator, kind), sure * fresh))
        return votes

    def _base(self, variant: str, accelerator: str, kind: CallKind) -> float:
        cost = predict(
            self._variants[variant], accelerator, kind.shape, kind.steps, kind.guidance, kind.batch, load=Load.NONE
        )
        return math.log(max(cost.execution_s, 1e-9))


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
