"""Intervals and p-values are those of the literature, or of scipy where it has them."""

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics import (
    Moments,
    Share,
    holm,
    mean_interval,
    means_apart,
    paired_means,
    paired_shares,
    share_of,
    shares_apart,
    wilson,
)

RNG = np.random.default_rng(5)


def test_the_interval_is_wilsons() -> None:
    share = wilson(45, 50)
    assert share.share == pytest.approx(0.9)
    assert (share.low, share.high) == (pytest.approx(0.786, abs=1e-3), pytest.approx(0.957, abs=1e-3))


def test_no_cases_are_no_certainty() -> None:
    empty = wilson(0, 0)
    assert (empty.low, empty.high) == (0.0, 1.0)


def test_all_obeyed_is_not_certainty_either() -> None:
    assert wilson(20, 20).low < 0.9
    assert share_of([True] * 3 + [False]) == wilson(3, 4)


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = RNG.normal(1e6, 1, 1000)  # far from zero: where a sum of squares would lose all digits
    whole = Moments.of(values)
    halves = Moments.of(values[:300]).plus(Moments.of(values[300:]))
    for found in (whole, halves):
        assert found.count == 1000
        assert found.mean == pytest.approx(values.mean())
        assert found.variance == pytest.approx(values.var(ddof=1))
    assert Moments().plus(Moments()) == Moments()


def test_a_means_interval_is_students() -> None:
    values = RNG.normal(3, 2, 12)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(Moments.of(values)) == pytest.approx((expected.low, expected.high))
    assert mean_interval(Moments.of([1.0])) is None


def test_independent_means_are_compared_as_by_welch() -> None:
    a, b = RNG.normal(0, 1, 15), RNG.normal(1, 3, 40)
    expected = stats.ttest_ind(a, b, equal_var=False)
    found = means_apart(Moments.of(a), Moments.of(b))
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert found.interval == pytest.approx((interval.low, interval.high))


def test_means_that_never_vary_differ_or_do_not() -> None:
    ones, twos = Moments.of([1.0] * 5), Moments.of([2.0] * 5)
    assert means_apart(ones, ones).p_value == 1.0
    assert means_apart(ones, twos).p_value == 0.0
    assert means_apart(ones, Moments.of([1.0])).p_value is None


def test_the_difference_of_shares_is_newcombes_example() -> None:
    """Newcombe, 1998, table II, method 10: 56 of 70 and 48 of 80; none of 10 and none of 20; 9 of 10 and 3 of 10."""
    for counts, interval in {
        (56, 70, 48, 80): (0.0524, 0.3339),
        (9, 10, 3, 10): (0.1705, 0.8090),
        (10, 10, 0, 20): (0.6791, 1.0),
    }.items():
        found = shares_apart(wilson(*counts[:2]), wilson(*counts[2:]))
        assert found.interval == pytest.approx(interval, abs=5e-4)
    assert shares_apart(wilson(0, 0), wilson(1, 2)).interval is None


def test_the_p_value_of_shares_is_fishers_tea_taster() -> None:
    assert shares_apart(wilson(3, 4), wilson(1, 4)).p_value == pytest.approx(0.4857, abs=1e-4)


def test_pairs_of_means_are_compared_as_by_student() -> None:
    a = RNG.normal(0, 5, 14)
    b = a + RNG.normal(0.5, 0.2, 14)
    expected = stats.ttest_rel(b, a)
    found = paired_means(Moments.of(b - a))
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert paired_means(Moments.of([2.0, 2.0])).p_value == 0.0
    assert paired_means(Moments.of([0.0, 0.0])).p_value == 1.0
    assert paired_means(Moments.of([1.0])).interval is None


def test_pairs_of_shares_are_compared_as_by_agresti_and_min() -> None:
    """1600 ratings of a prime minister, before and after (Agresti, Categorical Data Analysis, table 11.1): 794 and 570
    alike, 150 fell, 86 rose. The interval of the sample is (-0.059, -0.021); the adjusted one, computed by hand, is of
    (86.5 - 150.5) / 1602."""
    changes = Moments.of([-1.0] * 150 + [1.0] * 86 + [0.0] * (794 + 570))
    found = paired_shares(changes, 86, 150)
    middle, count = (86.5 - 150.5) / 1602, 1602
    half = 1.96 * ((86.5 + 150.5) / count - middle**2) ** 0.5 / count**0.5
    assert found.difference == pytest.approx(-0.04)
    assert found.interval == pytest.approx((middle - half, middle + half))
    assert found.interval == pytest.approx((-0.059, -0.021), abs=5e-4)
    assert found.p_value == pytest.approx(stats.binomtest(86, 236).pvalue)


def test_pairs_that_are_all_alike_are_no_certainty() -> None:
    found = paired_shares(Moments.of([0.0] * 10), 0, 0)
    assert found.p_value == 1.0
    assert found.interval is not None
    assert found.interval[0] < -0.05 < 0.05 < found.interval[1]


def test_holms_correction_is_that_of_rs_p_adjust() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_intervals_hold_as_often_as_they_say() -> None:
    """Of both differences of shares, over what may be drawn."""
    rng = np.random.default_rng(11)
    independent = paired = 0
    for _ in range(400):
        a, b = rng.binomial(30, 0.8), rng.binomial(40, 0.6)
        low, high = shares_apart(wilson(int(a), 30), wilson(int(b), 40)).interval or (0, 0)
        independent += low <= 0.2 <= high
        changes = rng.choice([-1.0, 0.0, 1.0], 30, p=[0.05, 0.7, 0.25])
        bounds = paired_shares(Moments.of(changes), int((changes > 0).sum()), int((changes < 0).sum())).interval
        paired += bounds is not None and bounds[0] <= 0.2 <= bounds[1]
    assert 0.92 <= independent / 400 <= 0.99
    assert 0.92 <= paired / 400 <= 0.99


def test_a_share_says_what_it_is_of() -> None:
    assert wilson(1, 2) == Share(1, 2, 0.5, pytest.approx(0.0945, abs=1e-3), pytest.approx(0.9055, abs=1e-3))
