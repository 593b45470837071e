"""Fitting is the inverse of predicting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cost.fit import Measured, fit_profile
from cluster.cost.model import Load, predict
from schemas.catalog import BatchPoint, CostProfile, Variant
from schemas.shape import Shape
from tests.pipelines.catalogs import two_variants

SHAPES = [Shape(width=w, height=h, frames=f) for w, h, f in [(64, 64, 5), (64, 64, 17), (96, 64, 17), (128, 128, 33)]]


def variant_with(profile: CostProfile) -> Variant:
    return two_variants()["small"].model_copy(update={"cost": profile})


def calls_of(variant: Variant, noise: np.random.Generator | None = None) -> list[Measured]:
    calls = []
    for shape in SHAPES:
        for steps, batch in ((2, 1), (4, 1), (8, 1), (8, 4)):
            cost = predict(variant, "cpu", shape, steps, 3.0, batch, load=Load.NONE)
            factor = float(np.exp(noise.normal(0, 0.01))) if noise else 1.0
            calls.append(Measured(shape, steps, 3.0, batch, cost.execution_s * factor))
    return calls


def profile(fixed_s: float, linear: float, square: float, decode: float) -> CostProfile:
    return CostProfile(
        accelerator="cpu",
        measured=True,
        fixed_s=fixed_s,
        step_s_per_token=linear,
        step_s_per_token_squared=square,
        decode_s_per_megapixel=decode,
        load_cold_s=1.0,
        load_warm_s=1.0,
        encode_s_per_megapixel=0.1,
    )


@settings(deadline=None)
@given(st.floats(0.01, 1.0), st.floats(1e-5, 1e-3), st.floats(1e-8, 1e-6), st.floats(0.05, 2.0))
def test_a_fit_of_exact_calls_predicts_every_call(fixed_s: float, linear: float, square: float, decode: float) -> None:
    variant = variant_with(profile(fixed_s, linear, square, decode))
    calls = calls_of(variant)
    found, curve = fit_profile(variant, calls, "cpu", 1.0, 0.1)
    refitted = variant.model_copy(update={"cost": found, "batch_curve": curve})
    for call in calls:
        again = predict(refitted, "cpu", call.shape, call.steps, 3.0, call.batch, load=Load.NONE).execution_s
        assert again == pytest.approx(call.seconds, rel=1e-3)


def test_a_fit_of_noisy_calls_predicts_a_shape_it_has_not_seen() -> None:
    variant = variant_with(profile(0.05, 4e-4, 2e-7, 0.3))
    found, _ = fit_profile(variant, calls_of(variant, np.random.default_rng(1)), "cpu", 1.0, 0.1)
    unseen = Shape(width=96, height=96, frames=33)
    truth = predict(variant, "cpu", unseen, 6, 3.0, load=Load.NONE).execution_s
    told = predict(variant.model_copy(update={"cost": found}), "cpu", unseen, 6, 3.0, load=Load.NONE).execution_s
    assert told == pytest.approx(truth, rel=0.05)


def test_too_few_calls_are_refused() -> None:
    variant = two_variants()["small"]
    with pytest.raises(ValueError, match="at least two"):
        fit_profile(variant, [Measured(SHAPES[0], 2, 3.0, 1, 0.1)], "cpu", 1.0, 0.1)


def test_what_a_batch_shares_and_what_each_clip_has_for_itself_are_told_apart() -> None:
    truth = profile(0.5, 1e-4, 0.0, 0.1).model_copy(update={"step_s": 0.02, "clip_s": 0.2})
    plain = variant_with(truth).model_copy(update={"batch_curve": (BatchPoint(tokens=1, batch=4, speedup=1.0),)})
    found, curve = fit_profile(plain, calls_of(plain), "cpu", 1.0, 0.1)
    assert (found.fixed_s, found.clip_s) == pytest.approx((0.5, 0.2), rel=0.02)
    assert found.step_s == pytest.approx(0.02, rel=0.05)
    assert all(point.speedup == pytest.approx(1.0, abs=0.02) for point in curve)
