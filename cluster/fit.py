"""A cost profile from measured model calls: the inverse of `cluster.cost.predict`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

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

    `fixed + passes·(b·n + c·n²) + decode·megapixels` is fitted to the single-clip calls by least squares of the
    *relative* error, no coefficient below zero (scipy's nnls): short clips count as much as long ones. The curve is
    what remains of the larger batches. Raises ValueError with fewer than two single-clip calls.
    """
    single = [call for call in calls if call.batch == 1]
    if len(single) < 2:
        raise ValueError(f"{len(single)} single-clip call(s): at least two are needed to fit")
    rows = np.array([_terms(variant, call) for call in single])
    seconds = np.array([call.seconds for call in single])
    scale = rows.max(axis=0)
    scale[scale == 0] = 1.0
    found, _ = nnls(rows / scale / seconds[:, None], np.ones(len(single)))
    fixed_s, linear, square, decode = (float(value) for value in found / scale)
    profile = CostProfile(
        accelerator=accelerator,
        measured=True,
        parameters_b=variant.cost.parameters_b,
        hidden=variant.cost.hidden,
        layers=variant.cost.layers,
        fixed_s=fixed_s,
        step_s_per_token=linear,
        step_s_per_token_squared=square,
        decode_s_per_megapixel=decode,
        encode_s_per_megapixel=encode_s_per_megapixel,
        load_cold_s=load_s,
        load_warm_s=load_s,
    )
    gains: dict[tuple[int, int], list[float]] = {}
    for call in calls:
        if call.batch > 1:
            key = variant.latent.tokens(call.shape), call.batch
            gains.setdefault(key, []).append(_gain(variant, profile, call))
    points = (BatchPoint(tokens=n, batch=b, speedup=float(np.median(found))) for (n, b), found in sorted(gains.items()))
    return profile, tuple(points)


def _terms(variant: Variant, call: Measured) -> tuple[float, float, float, float]:
    tokens = variant.latent.tokens(call.shape)
    passes = call.steps * (2 if variant.runs_guided(call.guidance) else 1)
    return 1.0, passes * tokens, passes * float(tokens) ** 2, call.shape.pixels * call.shape.frames / 1e6


def _gain(variant: Variant, profile: CostProfile, call: Measured) -> float:
    """What the steps of a batch gained over its clips one by one; decoding and the fixed part are taken off first."""
    _, linear, square, megapixels = _terms(variant, call)
    one_s = profile.step_s_per_token * linear + profile.step_s_per_token_squared * square
    steps_s = call.seconds - profile.fixed_s - profile.decode_s_per_megapixel * megapixels * call.batch
    # Noise can leave the steps of a small model nearly nothing, or too much: no batch gains more than its size, and
    # none is believed to cost more than twice its clips one by one.
    gain = one_s * call.batch / steps_s if steps_s > 0 else float(call.batch)
    return min(float(call.batch), max(gain, 0.5))
