"""A cost profile from measured model calls: the inverse of `cluster.cost.model.predict`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.catalog import BatchPoint, CostProfile, Variant
from schemas.shape import Shape


@dataclass(frozen=True)
class Measured:
    """One model call, timed warm: `batch` clips of `shape` in `steps` steps took `seconds`."""

    shape: Shape
    steps: int
    guidance: float
    batch: int
    seconds: float


def fit_profile(
    variant: Variant, calls: Sequence[Measured], accelerator: str, load_s: float, encode_s_per_megapixel: float
) -> tuple[CostProfile, tuple[BatchPoint, ...]]:
    """The profile and the batch curve that explain the calls.

    `fixed + passes·(a + b·n + c·n²) + decode·megapixels` is fitted to the single-clip calls by least squares of the
    *relative* error, no coefficient below zero (scipy's nnls): short clips count as much as long ones. Larger batches
    say how much of the fixed part each clip has for itself, and what remains of them is the curve. Raises ValueError
    with fewer than two single-clip calls.
    """
    single = [call for call in calls if call.batch == 1]
    if len(single) < 2:
        raise ValueError(f"single-clip calls: {len(single)}; at least two are needed to fit")
    rows = np.array([_terms(variant, call) for call in single])
    seconds = np.array([call.seconds for call in single])
    scale = rows.max(axis=0)
    scale[scale == 0] = 1.0
    from scipy.optimize import nnls  # half a second, and only fits need it

    found, _ = nnls(rows / scale / seconds[:, None], np.ones(len(single)))
    fixed_s, step_s, linear, square, decode = (float(value) for value in found / scale)
    profile = CostProfile(
        accelerator=accelerator,
        measured=True,
        parameters_b=variant.cost.parameters_b,
        hidden=variant.cost.hidden,
        layers=variant.cost.layers,
        fixed_s=fixed_s,
        step_s=step_s,
        step_s_per_token=linear,
        step_s_per_token_squared=square,
        decode_s_per_megapixel=decode,
        encode_s_per_megapixel=encode_s_per_megapixel,
        load_cold_s=load_s,
        load_warm_s=load_s,
    )
    clip_s = _clip_s(variant, profile, [call for call in calls if call.batch > 1])
    profile = profile.model_copy(update={"fixed_s": fixed_s - clip_s, "clip_s": clip_s})
    gains: dict[tuple[int, int], list[float]] = {}
    for call in calls:
        if call.batch > 1:
            key = variant.latent.tokens(call.shape), call.batch
            gains.setdefault(key, []).append(_gain(variant, profile, call))
    points = (BatchPoint(tokens=n, batch=b, speedup=float(np.median(found))) for (n, b), found in sorted(gains.items()))
    return profile, tuple(points)


def _clip_s(variant: Variant, profile: CostProfile, calls: Sequence[Measured]) -> float:
    """What each clip of a batch adds to the fixed part, were the steps of a batch to take as long as its clips one by
    one; none where batches gain. The relative error counts, as above."""
    more = np.array([(call.batch - 1) / call.seconds for call in calls])
    rest = np.array([(call.seconds - _linear_s(variant, profile, call)) / call.seconds for call in calls])
    if not len(calls):
        return 0.0
    return float(np.clip((more @ rest) / (more @ more), 0.0, profile.fixed_s))


def _linear_s(variant: Variant, profile: CostProfile, call: Measured) -> float:
    _, passes, linear, square, megapixels = _terms(variant, call)
    steps_s = profile.step_s_per_token * linear + profile.step_s_per_token_squared * square
    each_s = steps_s + profile.decode_s_per_megapixel * megapixels + profile.clip_s
    return profile.fixed_s + profile.step_s * passes + each_s * call.batch


def _terms(variant: Variant, call: Measured) -> tuple[float, float, float, float, float]:
    tokens = variant.latent.tokens(call.shape)
    passes = float(call.steps * variant.passes(call.guidance))
    return 1.0, passes, passes * tokens, passes * float(tokens) ** 2, call.shape.pixels * call.shape.frames / 1e6


def _gain(variant: Variant, profile: CostProfile, call: Measured) -> float:
    """What the steps of a batch gained over its clips one by one; everything else is taken off first."""
    _, _, linear, square, _ = _terms(variant, call)
    one_s = profile.step_s_per_token * linear + profile.step_s_per_token_squared * square
    steps_s = call.seconds - (_linear_s(variant, profile, call) - one_s * call.batch)
    # Noise can leave the steps of a small model nearly nothing, or too much: no batch gains more than its size, and
    # none is believed to cost more than twice its clips one by one.
    gain = one_s * call.batch / steps_s if steps_s > 0 else float(call.batch)
    return min(float(call.batch), max(gain, 0.5))
