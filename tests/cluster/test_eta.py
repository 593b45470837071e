"""Promises: an estimate, a bound, and what they learn from."""

import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.eta import COVERAGE, Eta, EtaBook, Outlook, regime_of


def served(book: EtaBook, tasks: int, sigma: float, bias: float = 1.0, seed: int = 0, depth: float = 4.0) -> list[bool]:
    """Tasks one after the other, whose seconds scatter around `bias` times the forecast; whether each bound held."""
    random = np.random.default_rng(seed)
    held = []
    for _ in range(tasks):
        own_s = float(random.lognormal(1, 0.5))
        raw_s = own_s * (1 + depth * float(random.random()))
        eta = book.admit(raw_s, own_s, sigma)
        actual_s = raw_s * bias * math.exp(sigma * math.sqrt(own_s / raw_s) * float(random.normal()))
        held.append(actual_s <= eta.p90_s)
        book.complete(eta, actual_s)
    return held


@given(st.floats(1e-3, 1e6), st.floats(1e-6, 1e6), st.floats(0, 3))
def test_a_bound_is_never_below_its_estimate_and_both_are_positive(raw_s: float, own_s: float, sigma: float) -> None:
    eta = EtaBook().admit(raw_s, own_s, sigma)
    assert 0 < eta.estimate_s <= eta.p90_s < math.inf


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 100), st.lists(st.floats(0, 1000), min_size=2, max_size=10))
def test_whoever_waits_for_longer_is_promised_no_sooner(own_s: float, waits_s: list[float]) -> None:
    book = EtaBook()
    served(book, 200, 0.3)
    estimates = [book.admit(own_s + wait_s, own_s, 0.0).estimate_s for wait_s in sorted(waits_s)]
    assert all(a <= b * (1 + 1e-6) for a, b in itertools.pairwise(estimates))


@pytest.mark.parametrize("sigma", [0.05, 0.35])
@pytest.mark.parametrize("depth", [0.0, 4.0, 30.0])
def test_nine_of_ten_bounds_hold_at_every_depth(sigma: float, depth: float) -> None:
    held = served(EtaBook(), 5000, sigma, depth=depth)
    assert np.mean(held) == pytest.approx(COVERAGE, abs=0.02)
    assert min(np.mean(held[at : at + 1000]) for at in range(0, 5000, 1000)) >= 0.87


def test_a_forecast_that_is_always_wrong_by_half_is_put_right() -> None:
    book = EtaBook()
    served(book, 2000, 0.05, bias=1.5)
    assert book.admit(10.0, 5.0, 0.05).estimate_s == pytest.approx(15, rel=0.03)
    assert np.mean(served(book, 1000, 0.05, bias=1.5, seed=1)) == pytest.approx(COVERAGE, abs=0.04)


def test_completions_of_predictions_that_have_changed_since_teach_nothing() -> None:
    book = EtaBook()
    untaught = book.admit(100.0, 10.0, 0.1)
    for _ in range(500):
        eta = book.admit(100.0, 10.0, 0.1)
        book.complete(eta, 20.0, own_now_s=2.0)  # ten seconds were said, now two would be
    again = book.admit(100.0, 10.0, 0.1)
    assert again.estimate_s == pytest.approx(untaught.estimate_s)
    assert book.table() == ((0.0, 0.0),) * len(book.table())


def test_a_young_book_promises_less() -> None:
    young = EtaBook().admit(10.0, 10.0, 0.1)
    book = EtaBook()
    served(book, 3000, 0.1)
    assert book.admit(10.0, 10.0, 0.1).p90_s < young.p90_s


def test_a_surge_of_tasks_does_not_make_a_taught_book_young_again() -> None:
    book = EtaBook()
    served(book, 3000, 0.1)
    before = book.admit(10.0, 10.0, 0.1).p90_s
    for _ in range(2000):
        book.admit(100.0, 10.0, 0.1)
    assert book.admit(10.0, 10.0, 0.1).p90_s == before


def test_what_scattered_while_the_book_was_young_widens_no_later_bound() -> None:
    random = np.random.default_rng(5)
    wild, calm = EtaBook(), EtaBook()
    for book, sigma in ((wild, 1.0), (calm, 0.05)):
        while (eta := book.admit(10.0, 10.0, 0.05)).young:
            book.complete(eta, 10.0 * math.exp(sigma * float(random.normal())))
    assert wild._scores.ordered == calm._scores.ordered == []


def test_an_eta_that_was_stored_without_its_scale_can_still_be_completed() -> None:
    book = EtaBook()
    for _ in range(100):
        eta = book.admit(10.0, 5.0, 0.2)
        book.complete(Eta(eta.estimate_s, eta.p90_s, eta.regime, eta.raw_s), 12.0)
    assert book.admit(10.0, 5.0, 0.2).estimate_s > 10.0
    EtaBook().complete(Eta(1.0, 1.0, 0, 1.0), 5.0)


@settings(deadline=None)
@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1e4))
def test_a_regime_is_a_depth(raw_s: float, own_s: float) -> None:
    regime = regime_of(raw_s, own_s)
    assert 0 <= regime < len(EtaBook().table())
    assert regime_of(raw_s * 2, own_s) >= regime


def test_a_user_is_told_who_is_ahead_and_what_is_loaded() -> None:
    waiting = Outlook("ltx/L40S", ahead=3, wait_s=60.0, load_s=35.0, work_s=20.0, p90_s=140.0)
    assert str(waiting) == (
        "3 ahead of you on ltx/L40S; model loads first: +35 s; done in 115 s, nine of ten times within 140 s"
    )
    assert str(Outlook("ltx/L40S", 0, 5.0, 0.0, 20.0, 30.0)).startswith("you are next on ltx/L40S; done in 25 s")


def test_where_an_estimate_stood_at_admission_does_not_matter_to_later_bounds() -> None:
    book = EtaBook()
    served(book, 2000, 0.1)
    eta = book.admit(100.0, 10.0, 0.1)
    bounds = []
    for estimate_s in (eta.estimate_s, 0.7 * eta.estimate_s):
        taught = copy.deepcopy(book)
        taught.complete(eta._replace(estimate_s=estimate_s), 101.0)
        bounds.append(taught.admit(100.0, 10.0, 0.1).p90_s)
    assert bounds[0] == bounds[1]
