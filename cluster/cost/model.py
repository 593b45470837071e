"""The cost model: how many seconds a model call takes, before it is made.

    load + fixed + steps · g · (a + (b·n + c·n²) · batch / speedup(n, batch))
         + (clip + decode · megapixels + encode · megapixels) · batch

n is latent tokens of one clip, g is 2 with classifier-free guidance (the model runs twice a step), a, b and c come from
the variant's `CostProfile`. A profile that was never measured has zeros: each zero is replaced by a prior from the
architecture and the accelerator's sustained FLOP/s. A profile measured on one accelerator predicts the others by
the ratio of sustained FLOP/s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from cluster.cost.accelerator import CPU, Accelerator, accelerator_named
from schemas.catalog import BatchPoint, CostProfile, Variant
from schemas.conditions import added_frames
from schemas.shape import Shape
from schemas.sliding import slide_of
from schemas.steering import views_added
from schemas.task import Group

# A batch is as good as the best one when it gives this share of its throughput: the smaller one waits less.
ENOUGH_OF_BEST = 0.97

# Convolutional VAE decoders: about 1.2 TMAC for 512×512 (AutoencoderKL), i.e. 10 MFLOP a pixel.
_DECODE_TFLOP_PER_MEGAPIXEL = 10.0
# x264 at its default preset on a few cores, about 60 megapixels a second.
_ENCODE_S_PER_MEGAPIXEL = 1 / 60
# Text encoders, scheduler set-up, the first kernel launches.
_FIXED_S = 0.3
# An architecture that the catalog does not describe.
_PARAMETERS_B = 0.05
# Weights: from a remote store, and from host memory or the local disk's cache.
_COLD_GIB_PER_S = 0.5
_WARM_GIB_PER_S = 4.0
_COLD_START_S = 8.0
_WARM_START_S = 1.0
# Text encoder and VAE beside the denoiser, as a share of it.
_COMPANIONS = 0.5
# Efficiency of splitting one model over several accelerators (9.4 against 6.0 videos/h/GPU in a published test).
_SPLIT_EFFICIENCY = 0.64
# Tokens that fill the reference H200; 3 072 gives 2.8× at batch 4 for 1 024 tokens and 1.07× for 4 096.
_SATURATING_TOKENS_H200 = 3072.0


class Load(StrEnum):
    """Where a model is when a task needs it."""

    NONE = "none"  # resident: nothing to load
    WARM = "warm"  # in host memory or on the local disk
    COLD = "cold"  # in the remote store


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one model call that renders `batch` clips."""

    load_s: float
    fixed_s: float
    steps_s: float
    decode_s: float
    encode_s: float
    batch: int = 1

    @property
    def execution_s(self) -> float:
        """While the call holds its accelerators, a load not included."""
        return self.fixed_s + self.steps_s + self.decode_s

    @property
    def total_s(self) -> float:
        """From an actor that starts on it to stored clips."""
        return self.load_s + self.execution_s + self.encode_s

    @property
    def per_clip_s(self) -> float:
        """Accelerator seconds a clip: what throughput and price go by."""
        return self.execution_s / self.batch


def predict(
    variant: Variant,
    accelerator: str,
    shape: Shape,
    steps: int,
    guidance: float,
    batch: int = 1,
    *,
    load: Load = Load.COLD,
) -> Cost:
    """What one call costs on one actor of `variant` on `accelerator`: of a CallShape, all of its calls. Never raises,
    never negative.

    `load` says which load `load_s` is; an accelerator that is not known counts as the one that was measured.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    profile = seconds_on(variant, accelerator)
    tokens = variant.latent.tokens(shape)
    calls = calls_of(shape)
    passes = calls * steps * variant.passes(guidance)
    step_s = profile.step_s_per_token * tokens + profile.step_s_per_token_squared * tokens * tokens
    megapixels = calls * shape.pixels * shape.frames / 1e6
    loads = {Load.NONE: 0.0, Load.WARM: profile.load_warm_s, Load.COLD: profile.load_cold_s}
    return Cost(
        load_s=loads[load],
        fixed_s=calls * (profile.fixed_s + profile.clip_s * batch),
        steps_s=passes * (profile.step_s + step_s * batch / batch_speedup(variant, tokens, batch, accelerator)),
        decode_s=profile.decode_s_per_megapixel * megapixels * batch,
        encode_s=profile.encode_s_per_megapixel * megapixels * batch,
        batch=batch,
    )


class CallShape(Shape):
    """Of a clip that takes several calls, or windows of one call: `frames` are of each."""

    calls: int


def call_shape(variant: Variant, group: Group) -> Shape:
    """The shape that a group's calls take as long as: of an input that makes the model see another latent frame, the
    clip is so many frames longer. (Encoding the input then stands in for decoding them.) A CallShape where a clip
    takes several."""
    pipeline = variant.pipeline_for(group.mode)
    frames = group.frames if group.chunks is None else group.chunks.frames
    latent_frames = (frames - 1) // variant.latent.temporal + 1
    added = added_frames(pipeline, group.mode, group.conditions, latent_frames, variant.call_options)
    added += views_added(pipeline, group.camera)
    more = added * variant.latent.temporal
    slide = slide_of(pipeline, variant.call_options, group.frames, variant.latent.temporal)
    if group.chunks is not None:
        frames, calls = group.chunks.frames + more, len(group.cuts)
    elif slide is not None:
        frames, calls = slide.frames + more, len(slide.begins_at)
    elif not added:
        return group.shape
    else:
        return Shape(width=group.width, height=group.height, frames=group.frames + more)
    return CallShape(width=group.width, height=group.height, frames=frames, calls=calls)


def calls_of(shape: Shape) -> int:
    """How many calls of this shape a clip takes."""
    return shape.calls if isinstance(shape, CallShape) else 1


def batch_speedup(variant: Variant, tokens: int, batch: int, accelerator: str | None = None) -> float:
    """Throughput of `batch` clips in one call against one by one, ≥ a measured point's own value at that point.

    Between measured points: linear in log batch and in log tokens; beyond them: the nearest. Without any: a prior
    in which `tokens · batch` must fill the accelerator (a roofline with a round corner).
    """
    if batch == 1:
        return 1.0
    if not variant.batch_curve:
        chip = accelerator_named(accelerator) or accelerator_named(variant.cost.accelerator) or CPU
        full = _SATURATING_TOKENS_H200 * chip.sustained_tflops / 420.0
        # Time ∝ (tokens⁴ + full⁴)^¼: flat until the accelerator is full, linear from there.
        busy_one, busy_all = math.hypot(tokens**2, full**2), math.hypot((tokens * batch) ** 2, full**2)
        return batch * math.sqrt(busy_one / busy_all)
    return _curve_speedup(variant.batch_curve, tokens, batch)


def best_batch(
    variant: Variant,
    shape: Shape,
    *,
    accelerator: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
) -> int:
    """The smallest batch, up to the variant's `max_batch`, whose throughput is within 3 % of the best."""
    where = accelerator or variant.needs.accelerator_type or variant.cost.accelerator
    steps = variant.steps if steps is None else steps
    guidance = variant.guidance if guidance is None else guidance
    per_clip = [
        predict(variant, where, shape, steps, guidance, batch).per_clip_s for batch in range(1, variant.max_batch + 1)
    ]
    enough_s = min(per_clip) / ENOUGH_OF_BEST
    return next(index for index, clip_s in enumerate(per_clip, start=1) if clip_s <= enough_s)


@lru_cache(maxsize=4096)
def _seconds_on(profile: CostProfile, gpus: float, dtype_bytes: int, accelerator: str) -> CostProfile:
    reference = accelerator_named(profile.accelerator) or CPU
    target = accelerator_named(accelerator) or reference
    prior = _prior(profile, gpus, dtype_bytes, target)
    if not profile.measured and not profile.step_s_per_token:
        # Whatever single numbers the catalog states stand; the rest is the prior.
        stated = {
            name: getattr(profile, name) for name in CostProfile.model_fields if name.endswith(("_s", "_megapixel"))
        }
        return prior.model_copy(update={name: value for name, value in stated.items() if value > 0})
    slower = 1.0 / target.speed_against(reference)
    return profile.model_copy(
        update={
            "accelerator": target.name,
            "fixed_s": profile.fixed_s * slower,
            "clip_s": profile.clip_s * slower,
            "step_s": profile.step_s * slower,
            "step_s_per_token": profile.step_s_per_token * slower,
            "step_s_per_token_squared": profile.step_s_per_token_squared * slower,
            # A measured zero is a zero: the fit gives decoding what the steps do not explain.
            "decode_s_per_megapixel": profile.decode_s_per_megapixel * slower
            if profile.measured
            else prior.decode_s_per_megapixel,
            # Encoding runs on CPU and loading is the storage's pace: neither depends on the accelerator.
            "encode_s_per_megapixel": profile.encode_s_per_megapixel or prior.encode_s_per_megapixel,
            "load_cold_s": profile.load_cold_s or prior.load_cold_s,
            "load_warm_s": profile.load_warm_s or min(prior.load_warm_s, profile.load_cold_s or prior.load_warm_s),
        }
    )


def seconds_on(variant: Variant, accelerator: str) -> CostProfile:
    """The variant's profile in seconds on `accelerator`, every gap filled from the prior."""
    dtype_bytes = 4 if variant.dtype == "float32" else 2
    return _seconds_on(variant.cost, variant.needs.gpus, dtype_bytes, accelerator)


def _prior(profile: CostProfile, gpus: float, dtype_bytes: int, target: Accelerator) -> CostProfile:
    """From the architecture: 2·P FLOP a token for the matrices, 4·layers·hidden a token pair for attention."""
    chips = 1.0 if gpus <= 1 else 1 + (gpus - 1) * _SPLIT_EFFICIENCY
    tflops = target.sustained_tflops * chips * (0.5 if dtype_bytes == 4 and target is not CPU else 1.0)
    parameters_b = profile.parameters_b or _PARAMETERS_B
    weights_gib = parameters_b * (1 + _COMPANIONS) * dtype_bytes / 1.074
    return CostProfile(
        accelerator=target.name,
        parameters_b=parameters_b,
        hidden=profile.hidden,
        layers=profile.layers,
        fixed_s=_FIXED_S,
        step_s_per_token=2 * parameters_b * 1e9 / (tflops * 1e12),
        step_s_per_token_squared=4 * profile.layers * profile.hidden / (tflops * 1e12),
        decode_s_per_megapixel=_DECODE_TFLOP_PER_MEGAPIXEL / tflops,
        encode_s_per_megapixel=_ENCODE_S_PER_MEGAPIXEL,
        load_cold_s=_COLD_START_S + weights_gib / _COLD_GIB_PER_S,
        load_warm_s=_WARM_START_S + weights_gib / _WARM_GIB_PER_S,
    )


def _curve_speedup(points: Sequence[BatchPoint], tokens: int, batch: int) -> float:
    sizes = sorted({point.tokens for point in points})
    above = next((size for size in sizes if size >= tokens), sizes[-1])
    below = next((size for size in reversed(sizes) if size <= tokens), sizes[0])
    low, high = _speedup_at(points, below, batch), _speedup_at(points, above, batch)
    if above == below:
        return low
    share = math.log(tokens / below) / math.log(above / below)
    return low + share * (high - low)


def _speedup_at(points: Sequence[BatchPoint], tokens: int, batch: int) -> float:
    curve = {1: 1.0} | {point.batch: point.speedup for point in points if point.tokens == tokens}
    batches = sorted(curve)
    above = next((size for size in batches if size >= batch), batches[-1])
    below = next(size for size in reversed(batches) if size <= batch)
    if above == below:
        return curve[below]
    share = math.log(batch / below) / math.log(above / below)
    return curve[below] + share * (curve[above] - curve[below])
