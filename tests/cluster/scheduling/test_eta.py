"""Promises: an estimate, a bound, and what they learn from."""

import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.scheduling.eta import COVERAGE, Eta, EtaEstimator, EtaState, regime_of


def admit(estimator: EtaEstimator, raw_s: float, own_s: float, sigma: float) -> Eta:
    eta = estimator.promise(raw_s, own_s, sigma)
    estimator.admitted(eta)
    return eta


def served(
    estimator: EtaEstimator, tasks: int, sigma: float, bias: float = 1.0, seed: int = 0, depth: float = 4.0
) -> list[bool]:
    """Tasks one after the other, whose seconds scatter around `bias` times the forecast; whether each bound held."""
    random = np.random.default_rng(seed)
    held = []
    for _ in range(tasks):
        own_s = float(random.lognormal(1, 0.5))
        raw_s = own_s * (1 + depth * float(random.random()))
        eta = admit(estimator, raw_s, own_s, sigma)
        actual_s = raw_s * bias * math.exp(sigma * math.sqrt(own_s / raw_s) * float(random.normal()))
        held.append(actual_s <= eta.p90_s)
        estimator.completed(eta, actual_s)
    return held


@given(st.floats(1e-3, 1e6), st.floats(1e-6, 1e6), st.floats(0, 3))
def test_a_bound_is_never_below_its_estimate_and_both_are_positive(raw_s: float, own_s: float, sigma: float) -> None:
    eta = admit(EtaEstimator(), raw_s, own_s, sigma)
    assert 0 < eta.estimate_s <= eta.p90_s < math.inf


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 100), st.lists(st.floats(0, 1000), min_size=2, max_size=10))
def test_whoever_waits_for_longer_is_promised_no_sooner(own_s: float, waits_s: list[float]) -> None:
    estimator = EtaEstimator()
    served(estimator, 200, 0.3)
    estimates = [admit(estimator, own_s + wait_s, own_s, 0.0).estimate_s for wait_s in sorted(waits_s)]
    assert all(a <= b * (1 + 1e-6) for a, b in itertools.pairwise(estimates))


@pytest.mark.parametrize("sigma", [0.05, 0.35])
@pytest.mark.parametrize("depth", [0.0, 4.0, 30.0])
def test_nine_of_ten_bounds_hold_at_every_depth(sigma: float, depth: float) -> None:
    held = served(EtaEstimator(), 5000, sigma, depth=depth)
    assert np.mean(held) == pytest.approx(COVERAGE, abs=0.03)
    assert min(np.mean(held[at : at + 1000]) for at in range(0, 5000, 1000)) >= 0.87


def test_a_forecast_that_is_always_wrong_by_half_is_put_right() -> None:
    estimator = EtaEstimator()
    served(estimator, 2000, 0.05, bias=1.5)
    assert admit(estimator, 10.0, 5.0, 0.05).estimate_s == pytest.approx(15, rel=0.03)
    assert np.mean(served(estimator, 1000, 0.05, bias=1.5, seed=1)) == pytest.approx(COVERAGE, abs=0.04)


def test_completions_of_predictions_that_have_changed_since_teach_nothing() -> None:
    estimator = EtaEstimator()
    untaught = admit(estimator, 100.0, 10.0, 0.1)
    for _ in range(500):
        eta = admit(estimator, 100.0, 10.0, 0.1)
        estimator.completed(eta, 20.0, own_now_s=2.0)  # ten seconds were said, now two would be
    again = admit(estimator, 100.0, 10.0, 0.1)
    assert again.estimate_s == pytest.approx(untaught.estimate_s)
    assert estimator.state.scores == ()


def test_a_young_estimator_promises_less() -> None:
    young = admit(EtaEstimator(), 10.0, 10.0, 0.1)
    estimator = EtaEstimator()
    served(estimator, 3000, 0.1)
    assert admit(estimator, 10.0, 10.0, 0.1).p90_s < young.p90_s


def test_a_surge_of_tasks_does_not_make_a_taught_estimator_young_again() -> None:
    estimator = EtaEstimator()
    served(estimator, 3000, 0.1)
    before = admit(estimator, 10.0, 10.0, 0.1).p90_s
    for _ in range(2000):
        admit(estimator, 100.0, 10.0, 0.1)
    assert admit(estimator, 10.0, 10.0, 0.1).p90_s == before


def test_what_scattered_while_the_estimator_was_young_widens_no_later_bound() -> None:
    random = np.random.default_rng(5)
    wild, calm = EtaEstimator(), EtaEstimator()
    for estimator, sigma in ((wild, 1.0), (calm, 0.05)):
        while (eta := admit(estimator, 10.0, 10.0, 0.05)).warming_up:
            estimator.completed(eta, 10.0 * math.exp(sigma * float(random.normal())))
    assert wild._scores.ordered == calm._scores.ordered == []


@settings(deadline=None)
@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1e4))
def test_a_regime_is_a_depth(raw_s: float, own_s: float) -> None:
    regime = regime_of(raw_s, own_s)
    assert 0 <= regime < 6
    assert regime_of(raw_s * 2, own_s) >= regime


def test_where_an_estimate_stood_at_admission_does_not_matter_to_later_bounds() -> None:
    estimator = EtaEstimator()
    served(estimator, 2000, 0.1)
    eta = admit(estimator, 100.0, 10.0, 0.1)
    bounds = []
    for estimate_s in (eta.estimate_s, 0.7 * eta.estimate_s):
        taught = copy.deepcopy(estimator)
        taught.completed(eta._replace(estimate_s=estimate_s), 101.0)
        bounds.append(admit(taught, 100.0, 10.0, 0.1).p90_s)
    assert bounds[0] == bounds[1]


def test_a_promise_changes_nothing() -> None:
    estimator = EtaEstimator()
    served(estimator, 200, 0.1)
    before = estimator.state
    assert estimator.promise(10.0, 5.0, 0.1) == estimator.promise(10.0, 5.0, 0.1)
    assert estimator.state == before


def test_whoever_has_the_terms_or_the_state_promises_the_same_and_a_restart_learns_on() -> None:
    estimator = EtaEstimator()
    served(estimator, 300, 0.1)
    again = EtaEstimator(state=EtaState.model_validate_json(estimator.state.model_dump_json()))
    assert again.state == estimator.state
    assert again.terms.promise(30.0, 5.0, 0.2) == estimator.promise(30.0, 5.0, 0.2)
    assert served(again, 300, 0.1, seed=1) == served(estimator, 300, 0.1, seed=1)
    assert again.state == estimator.state


def test_state_of_another_format_is_passed_over() -> None:
    assert EtaState.read({"version": 0}) is None
    assert EtaState.read(None) is None
