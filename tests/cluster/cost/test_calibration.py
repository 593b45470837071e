"""Predictions that learn from finished calls."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cost.calibration import Calibrator
from cluster.cost.fit import Measured
from cluster.cost.model import Load, predict
from cluster.cost.service_times_state import ServiceTimesState
from schemas.catalog import CostProfile, Variant
from schemas.shape import Shape
from tests.pipelines.catalogs import two_variants

SMALL = two_variants()["small"]
PRIOR = SMALL.model_copy(update={"cost": CostProfile(parameters_b=1.3, hidden=1536, layers=30), "batch_curve": ()})
SHAPES = [Shape(width=w, height=h, frames=f) for w, h, f in [(64, 64, 5), (64, 64, 17), (96, 64, 17), (128, 128, 33)]]


def call(shape: Shape, seconds: float, steps: int = 4, batch: int = 1) -> Measured:
    return Measured(shape, steps, 3.0, batch, seconds)


def raw(variant: Variant, shape: Shape, accelerator: str = "H100", steps: int = 4, batch: int = 1) -> float:
    return predict(variant, accelerator, shape, steps, 3.0, batch, load=Load.NONE).execution_s


def said(known: Calibrator, shape: Shape, accelerator: str = "H100", steps: int = 4, batch: int = 1) -> float:
    return known.predict("small", accelerator, shape, steps, 3.0, batch).execution_s


def taught(variant: Variant, factor: float, calls: int, shapes: list[Shape] = SHAPES) -> Calibrator:
    known = Calibrator([variant])
    for number in range(calls):
        shape = shapes[number % len(shapes)]
        known.observe("small", "H100", call(shape, factor * raw(variant, shape)))
    return known


def test_without_calls_it_is_the_cost_model() -> None:
    assert said(Calibrator([SMALL]), SHAPES[0]) == pytest.approx(raw(SMALL, SHAPES[0]))


@given(st.floats(0.02, 50), st.sampled_from(SHAPES))
def test_a_call_or_two_do_not_swing_it(factor: float, shape: Shape) -> None:
    for variant, most in ((SMALL, 0.5), (PRIOR, 0.8)):
        moved = math.log(said(taught(variant, factor, 1, [shape]), shape) / raw(variant, shape))
        assert 0 <= moved * math.copysign(1, math.log(factor)) <= most * abs(math.log(factor)) + 1e-9
        assert abs(moved) < 1.5, "however long a first call took"


@given(st.floats(0.05, 20), st.sampled_from(SHAPES))
def test_a_dozen_calls_settle_it(factor: float, shape: Shape) -> None:
    assert said(taught(PRIOR, factor, 12, [shape]), shape) == pytest.approx(factor * raw(PRIOR, shape), rel=0.05)


def test_an_unseen_shape_and_an_unseen_accelerator_get_what_their_relatives_got() -> None:
    known = taught(PRIOR, 3.0, 24, SHAPES[:3])
    assert said(known, SHAPES[3]) == pytest.approx(3 * raw(PRIOR, SHAPES[3]), rel=0.1)
    assert said(known, SHAPES[3], "L4") == pytest.approx(3 * raw(PRIOR, SHAPES[3], "L4"), rel=0.25)
    untaught = Calibrator([PRIOR]).predict("small", "L4", SHAPES[3], 4, 3.0).execution_s
    assert untaught == pytest.approx(raw(PRIOR, SHAPES[3], "L4"))


def test_one_shape_that_is_slow_for_itself_hardly_moves_the_others() -> None:
    known = taught(SMALL, 1.0, 40, SHAPES[:3])
    for number in range(60):
        slow = SHAPES[3] if number % 3 == 0 else SHAPES[number % 3]
        known.observe("small", "H100", call(slow, (5 if slow is SHAPES[3] else 1) * raw(SMALL, slow)))
    assert said(known, SHAPES[3]) == pytest.approx(5 * raw(SMALL, SHAPES[3]), rel=0.1)
    assert said(known, SHAPES[0]) == pytest.approx(raw(SMALL, SHAPES[0]), rel=0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 3))
def test_outliers_such_as_cold_starts_do_not_poison_it(seed: int, factor: float) -> None:
    random = np.random.default_rng(seed)
    known = Calibrator([SMALL])
    for number in range(60):
        cold = 30.0 if number % 6 == 0 else 1.0
        seconds = factor * raw(SMALL, SHAPES[1]) * math.exp(random.normal(0, 0.03)) * cold
        known.observe("small", "H100", call(SHAPES[1], seconds))
    assert said(known, SHAPES[1]) == pytest.approx(factor * raw(SMALL, SHAPES[1]), rel=0.1)
    assert known.sigma("small", "H100", SHAPES[1], 4, 3.0) < 0.35


def test_it_forgets_what_no_longer_holds() -> None:
    known = taught(SMALL, 1.0, 200, SHAPES[:1])
    for _ in range(16):
        known.observe("small", "H100", call(SHAPES[0], 2 * raw(SMALL, SHAPES[0])))
    assert said(known, SHAPES[0]) == pytest.approx(2 * raw(SMALL, SHAPES[0]), rel=0.02)


def test_impossible_seconds_and_unknown_variants_are_passed_over() -> None:
    known = Calibrator([SMALL])
    for seconds in (0.0, -1.0, math.nan, math.inf):
        known.observe("small", "H100", call(SHAPES[0], seconds))
    known.observe("unheard-of", "H100", call(SHAPES[0], 1.0))
    assert known.state == Calibrator([SMALL]).state


def test_loads_are_learnt_by_where_the_weights_were() -> None:
    known = Calibrator([SMALL])
    for _ in range(5):
        known.observe_load("small", "H100", Load.COLD, 80.0)
    assert known.load_s("small", "H100", Load.COLD) == pytest.approx(80.0)
    assert known.load_s("small", "H100", Load.WARM) < 80.0
    assert known.predict("small", "H100", SHAPES[0], 4, 3.0, load=Load.COLD).load_s == pytest.approx(80.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["H100", "L4"]), st.sampled_from(SHAPES), st.floats(0.01, 100)), max_size=80))
def test_what_is_stored_and_reloaded_predicts_the_same(calls: list[tuple[str, Shape, float]]) -> None:
    known = Calibrator([SMALL])
    for where, shape, seconds in calls:
        known.observe("small", where, call(shape, seconds))
        known.observe_load("small", where, Load.WARM, seconds)
    text = known.state.model_dump_json()
    again = Calibrator([SMALL], ServiceTimesState.model_validate_json(text))
    assert again.state == known.state
    for where in ("H100", "L4", "A100"):
        for shape in SHAPES:
            assert said(again, shape, where) == pytest.approx(said(known, shape, where))


def test_the_history_of_other_weights_is_left_behind() -> None:
    state = taught(SMALL, 3.0, 30).state
    other = SMALL.model_copy(update={"weights": "owner/other"})
    assert said(Calibrator([other], state), SHAPES[0]) < 1.5 * raw(other, SHAPES[0])


def test_a_profile_is_fitted_anew_where_enough_kinds_of_calls_were_seen() -> None:
    truth = SMALL.model_copy(
        update={
            "cost": CostProfile(
                accelerator="H100",
                measured=True,
                fixed_s=0.2,
                step_s_per_token=4e-4,
                step_s_per_token_squared=3e-7,
                decode_s_per_megapixel=0.5,
            )
        }
    )
    known = Calibrator([SMALL])
    for _ in range(4):
        for shape in SHAPES[:3]:
            for steps in (2, 8):
                known.observe("small", "H100", call(shape, raw(truth, shape, steps=steps), steps))
    cost, curve = known.profile("small", "H100")
    assert cost.measured
    entry = SMALL.model_copy(update={"cost": cost, "batch_curve": curve})
    assert raw(entry, SHAPES[3], steps=6) == pytest.approx(raw(truth, SHAPES[3], steps=6), rel=0.02)


def test_a_profile_is_scaled_where_few_kinds_were_seen_and_unchanged_where_none_was() -> None:
    known = taught(PRIOR, 2.0, 20, SHAPES[:1])
    entry = PRIOR.model_copy(update={"cost": known.profile("small", "H100")[0]})
    assert raw(entry, SHAPES[3]) == pytest.approx(2 * raw(PRIOR, SHAPES[3]), rel=0.15)
    untouched = PRIOR.model_copy(update={"cost": Calibrator([PRIOR]).profile("small", "H100")[0]})
    assert raw(untouched, SHAPES[3]) == pytest.approx(raw(PRIOR, SHAPES[3]))


def test_state_of_another_format_is_passed_over() -> None:
    assert ServiceTimesState.read({"version": 1, "calls": []}) is None
    assert ServiceTimesState.read(None) is None


def test_a_new_profile_in_the_catalog_does_not_make_the_history_wrong() -> None:
    known = taught(SMALL, 2.0, 40)
    again = SMALL.model_copy(update={"cost": SMALL.cost.model_copy(update={"step_s_per_token": 0.1, "fixed_s": 2.0})})
    assert again.digest == SMALL.digest
    for shape in SHAPES:
        assert said(Calibrator([again], known.state), shape) == pytest.approx(2 * raw(SMALL, shape), rel=0.1)
