import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cost.model import Load, batch_speedup, best_batch, predict
from schemas.catalog import BatchPoint, CostProfile, Latent, Variant
from schemas.request import Mode
from schemas.shape import Shape, ShapeRule

MEASURED = CostProfile(
    accelerator="L40S",
    measured=True,
    fixed_s=0.5,
    step_s_per_token=2e-5,
    step_s_per_token_squared=1e-9,
    decode_s_per_megapixel=0.05,
    encode_s_per_megapixel=0.02,
    load_cold_s=35,
    load_warm_s=3,
)


def variant(cost: CostProfile = MEASURED, curve: tuple[BatchPoint, ...] = (), max_batch: int = 8) -> Variant:
    return Variant(
        name="ltx",
        pipeline="LTXPipeline",
        weights="x/y",
        modes=(Mode.TEXT_TO_VIDEO,),
        steps=30,
        guidance=5.0,
        fps=24,
        shape=ShapeRule(divisor=16, max_frames=257, max_pixels=2**21, native=((512, 512, 17),)),
        latent=Latent(channels=16, spatial=8, temporal=4),
        cost=cost,
        batch_curve=curve,
        max_batch=max_batch,
    )


SHAPE = Shape(width=512, height=512, frames=17)
shapes = st.builds(
    Shape,
    width=st.integers(1, 64).map(lambda k: 16 * k),
    height=st.integers(1, 64).map(lambda k: 16 * k),
    frames=st.integers(1, 129),
)


def test_the_formula_is_the_one_in_the_profile() -> None:
    cost = predict(variant(), "L40S", SHAPE, steps=30, guidance=5.0)
    tokens = 5 * 32 * 32
    assert cost.steps_s == pytest.approx(30 * 2 * (2e-5 * tokens + 1e-9 * tokens**2))
    assert (cost.fixed_s, cost.load_s) == (0.5, 35)
    assert cost.decode_s == pytest.approx(0.05 * 512 * 512 * 17 / 1e6)
    assert predict(variant(), "L40S", SHAPE, 30, 5.0, load=Load.WARM).load_s == 3
    assert predict(variant(), "L40S", SHAPE, 30, 5.0, load=Load.NONE).load_s == 0


def test_a_steps_own_seconds_are_paid_once_a_batch_and_a_clips_own_by_each() -> None:
    own = variant(MEASURED.model_copy(update={"step_s": 0.25, "clip_s": 0.125}))
    for batch in (1, 4):
        with_own, without = (predict(v, "L40S", SHAPE, 30, 5.0, batch) for v in (own, variant()))
        assert with_own.steps_s == pytest.approx(without.steps_s + 30 * 2 * 0.25)
        assert with_own.fixed_s == pytest.approx(without.fixed_s + 0.125 * batch)


def test_without_guidance_a_step_costs_half() -> None:
    guided, plain = (predict(variant(), "L40S", SHAPE, 30, guidance) for guidance in (5.0, 1.0))
    assert guided.steps_s == pytest.approx(2 * plain.steps_s)


def test_an_unseen_accelerator_is_scaled_and_an_unknown_one_counts_as_measured() -> None:
    here, faster, unknown = (predict(variant(), name, SHAPE, 30, 5.0) for name in ("L40S", "H100", "abacus"))
    assert faster.steps_s == pytest.approx(here.steps_s * 130 / 400)
    assert faster.encode_s == here.encode_s
    assert unknown == here


def test_the_prior_knows_that_more_parameters_tokens_and_slower_chips_take_longer() -> None:
    small, large = (CostProfile(parameters_b=b, hidden=2048, layers=28) for b in (2.0, 14.0))
    assert (
        predict(variant(small), "H100", SHAPE, 30, 5).total_s
        < predict(variant(large), "H100", SHAPE, 30, 5).total_s
        < predict(variant(large), "L4", SHAPE, 30, 5).total_s
    )


def test_the_prior_of_a_batch_agrees_with_what_was_published() -> None:
    prior = variant(CostProfile(accelerator="H200"))
    assert batch_speedup(prior, 1024, 4) == pytest.approx(2.8, rel=0.05)
    assert batch_speedup(prior, 4096, 4) == pytest.approx(1.05, abs=0.05)


def test_measured_points_of_the_batch_curve_are_returned_as_they_are() -> None:
    curve = tuple(BatchPoint(tokens=t, batch=b, speedup=s) for t, b, s in ((1000, 4, 2.8), (4000, 4, 1.0)))
    assert batch_speedup(variant(curve=curve), 1000, 4) == 2.8
    assert batch_speedup(variant(curve=curve), 2000, 4) == pytest.approx(1.9)
    assert batch_speedup(variant(curve=curve), 100, 8) == 2.8
    assert batch_speedup(variant(curve=curve), 9000, 2) == 1.0


def test_the_best_batch_is_large_for_small_shapes_and_one_where_batching_gives_nothing() -> None:
    curve = tuple(
        BatchPoint(tokens=t, batch=b, speedup=s) for t, b, s in ((1000, 4, 2.8), (1000, 8, 2.85), (9000, 8, 1.01))
    )
    small, large = Shape(width=256, height=256, frames=13), Shape(width=1024, height=768, frames=33)
    tuned = variant(MEASURED.model_copy(update={"decode_s_per_megapixel": 1e-4, "fixed_s": 1e-3}), curve)
    assert best_batch(tuned, small) == 4
    assert best_batch(tuned, large) == 1
    assert best_batch(variant(curve=curve, max_batch=2), small) == 2


@given(shapes, st.integers(1, 100), st.sampled_from([0.0, 7.5]), st.sampled_from(["cpu", "L4", "H200", "nothing"]))
def test_a_larger_shape_or_more_steps_never_cost_less(shape: Shape, steps: int, guidance: float, where: str) -> None:
    for profile in (MEASURED, CostProfile()):
        base = predict(variant(profile), where, shape, steps, guidance)
        wider = predict(variant(profile), where, shape.model_copy(update={"width": shape.width * 2}), steps, guidance)
        longer = predict(variant(profile), where, shape, steps + 1, guidance)
        assert 0 < base.execution_s <= wider.execution_s
        assert base.execution_s < longer.execution_s


@given(shapes, st.integers(1, 12))
def test_the_best_batch_respects_the_limit_and_is_within_three_percent(shape: Shape, limit: int) -> None:
    for profile in (MEASURED, CostProfile(accelerator="H200", parameters_b=2)):
        tuned = variant(profile, max_batch=limit)
        batch = best_batch(tuned, shape)
        where = profile.accelerator
        clips = [predict(tuned, where, shape, 30, 5.0, b).per_clip_s for b in range(1, limit + 1)]
        assert 1 <= batch <= limit
        assert min(clips) / clips[batch - 1] >= 0.97 - 1e-9
