"""`ServiceTimes` for a catalog's variants: the cost model is the prior, and answers are the cost model's parts."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from cluster.cost.fit import Measured, fit_profile
from cluster.cost.model import CallShape, Cost, Load, calls_of, predict, seconds_on
from cluster.cost.service_times import CostKey, ServiceTimes
from cluster.cost.service_times_state import ServiceTimesState
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
_DOUBT, _DOUBT_MEASURED, _DOUBT_UNMEASURED, _DOUBT_OF_CONFIGURATIONS = 0.2, 0.2, 0.7, 0.3
_LEAST_CALLS_TO_FIT, _LEAST_KINDS_TO_FIT = 3, 4


class CostModelPrior:
    """What the architecture, or a measured profile, says of a catalog's variants."""

    doubt, doubt_of_configurations = _DOUBT, _DOUBT_OF_CONFIGURATIONS

    def __init__(self, variants: Iterable[Variant]) -> None:
        self._variants = {variant.name: variant for variant in variants}
        self._digests = {name: variant.digest for name, variant in self._variants.items()}

    def identity(self, variant: str) -> str | None:
        """What was measured of other weights or settings is of another variant by the same name."""
        return self._digests.get(variant)

    def doubt_of(self, variant: str) -> float:
        """A profile that was measured is believed for longer."""
        return _DOUBT_MEASURED if self._variants[variant].cost.measured else _DOUBT_UNMEASURED

    def seconds(self, key: CostKey) -> float:
        """Execution seconds of the call."""
        shape, steps, guidance = call_of(key)
        variant = self._variants[key.variant]
        return predict(variant, key.accelerator, shape, steps, guidance, key.batch, load=Load.NONE).execution_s

    def load_s(self, variant: str, accelerator: str, load: Load) -> float:
        """From the host's memory, or from the remote store."""
        profile = seconds_on(self._variants[variant], accelerator)
        return {Load.NONE: 0.0, Load.WARM: profile.load_warm_s, Load.COLD: profile.load_cold_s}[load]

    def observe(self, key: CostKey, seconds: float) -> bool:  # noqa: ARG002
        """The catalog does not change while it runs."""
        return False


def cost_key(variant: Variant, accelerator: str, shape: Shape, steps: int, guidance: float, batch: int = 1) -> CostKey:
    """The key of a call. Of the guidance only whether it is on decides how long a call takes."""
    guided = variant.guidance_off_at + 1.0 if variant.runs_guided(guidance) else 0.0
    calls = calls_of(shape)
    several = () if calls == 1 else (calls,)
    return CostKey(variant.name, accelerator, (shape.width, shape.height, shape.frames, steps, guided, *several), batch)


def call_of(key: CostKey) -> tuple[Shape, int, float]:
    """(shape, steps, guidance) of a key that `cost_key` made."""
    assert isinstance(key.configuration, tuple)
    width, height, frames, steps, guidance, *several = key.configuration
    return _shape(width, height, frames, *several), steps, guidance


@lru_cache(maxsize=4096)
def _shape(width: int, height: int, frames: int, calls: int = 1) -> Shape:
    if calls > 1:
        return CallShape(width=width, height=height, frames=frames, calls=calls)
    return Shape(width=width, height=height, frames=frames)


class Calibrator:
    """Predictions for a catalog's variants that learn from finished calls."""

    def __init__(self, variants: Iterable[Variant], state: ServiceTimesState | None = None) -> None:
        self._variants = {variant.name: variant for variant in variants}
        self.times = ServiceTimes(CostModelPrior(self._variants.values()), state)

    def observe(self, variant: str, accelerator: str, call: Measured) -> None:
        """A call has finished. Unknown variants and impossible seconds are passed over."""
        if variant in self._variants:
            self.times.observe(self._key(variant, accelerator, call), call.seconds)

    def observe_load(self, variant: str, accelerator: str, load: Load, seconds: float) -> None:
        """A model was loaded, from there."""
        self.times.observe_load(variant, accelerator, load, seconds)

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
        """As `cluster.cost.model.predict`, corrected. KeyError for a variant that was not given."""
        entry = self._variants[variant]
        raw = predict(entry, accelerator, shape, steps, guidance, batch, load=Load.NONE)
        said = self.times.predict(cost_key(entry, accelerator, shape, steps, guidance, batch))
        factor = said.median_s / max(raw.execution_s, 1e-9)
        return replace(
            raw,
            load_s=0.0 if load is Load.NONE else self.load_s(variant, accelerator, load),
            fixed_s=raw.fixed_s * factor,
            steps_s=raw.steps_s * factor,
            decode_s=raw.decode_s * factor,
        )

    def load_s(self, variant: str, accelerator: str, load: Load) -> float:
        """Seconds to make the variant resident from there."""
        return self.times.load_s(variant, accelerator, load)

    def sigma(self, variant: str, accelerator: str, shape: Shape, steps: int, guidance: float) -> float:
        """Spread of the logarithm of a call's seconds around the prediction."""
        return self.times.predict(cost_key(self._variants[variant], accelerator, shape, steps, guidance)).sigma

    def profile(self, variant: str, accelerator: str) -> tuple[CostProfile, tuple[BatchPoint, ...]]:
        """Profile and batch curve that say what is known now, for a catalog entry: a new fit where calls of enough
        kinds were seen and it explains them better, else the profile there is, scaled."""
        entry = self._variants[variant]
        profile = seconds_on(entry, accelerator)
        calls = self._typical(variant, accelerator)
        factor = self.times.factor(variant, accelerator)
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
    def state(self) -> ServiceTimesState:
        """Everything, in a stable order."""
        return self.times.state

    def _key(self, variant: str, accelerator: str, call: Measured) -> CostKey:
        return cost_key(self._variants[variant], accelerator, call.shape, call.steps, call.guidance, call.batch)

    def _typical(self, variant: str, accelerator: str) -> list[Measured]:
        """Of each kind of call that was seen often enough, one that takes what it usually takes. What took several is
        of no kind."""
        return [
            Measured(*call_of(key), key.batch, usual_s)
            for key, calls, usual_s in self.times.seen()
            if (key.variant, key.accelerator) == (variant, accelerator)
            and calls >= _LEAST_CALLS_TO_FIT
            and calls_of(call_of(key)[0]) == 1
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
