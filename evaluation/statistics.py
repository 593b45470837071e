"""Shares, means and their differences, with intervals and p-values. Pure; each formula names its source.

- interval of a share: Wilson, "Probable inference", 1927
- difference of two independent shares: Newcombe, "Interval estimation for the difference between independent
  proportions", 1998, method 10 (from Wilson's limits); p by Fisher's exact test
- difference of two independent means: Welch, "The generalization of Student's problem", 1947
- difference of paired means: Student's t over the pairs' differences
- difference of paired shares: Agresti and Min, "Simple improved confidence intervals for comparing matched
  proportions", 2005; p by the exact sign test, which is McNemar's exact test where a pair has one clip on each side
- many comparisons at once: Holm, "A simple sequentially rejective multiple test procedure", 1979

Intervals are of 95 %. Where too little is known for one, it is None rather than wide.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
Z95 = 1.96
Interval = tuple[float, float]


@dataclass(frozen=True)
class Share:
    """A proportion with its Wilson 95 % interval (Wilson, 1927)."""

    obeyed: int
    asked: int
    share: float
    low: float
    high: float


def wilson(obeyed: int, asked: int, z: float = Z95) -> Share:
    """The share and its interval; an empty count is a share of zero with the whole interval."""
    if asked == 0:
        return Share(0, 0, 0.0, 0.0, 1.0)
    p = obeyed / asked
    middle = (p + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z * math.sqrt(p * (1 - p) / asked + z * z / (4 * asked * asked)) / (1 + z * z / asked)
    return Share(obeyed, asked, p, max(0.0, middle - half), min(1.0, middle + half))


def share_of(flags: Sequence[bool]) -> Share:
    """Count and interval of a list of yes and no."""
    return wilson(sum(flags), len(flags))


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of some numbers: what a mean's statistics need, in constant memory."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> "Moments":
        total = cls()
        for value in values:
            total = total.plus(cls(1, value))
        return total

    def plus(self, other: "Moments") -> "Moments":
        """Of both together (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        if count == 0:
            return self
        gap = other.mean - self.mean
        mean = self.mean + gap * other.count / count
        squares = self.squares + other.squares + gap * gap * self.count * other.count / count
        return Moments(count, mean, squares)

    @property
    def variance(self) -> float:
        """Of the population that these are a sample of; zero below two."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0

    @property
    def sum_of_squares(self) -> float:
        """Not of deviations, of the numbers themselves."""
        return self.squares + self.count * self.mean * self.mean


@dataclass(frozen=True)
class Difference:
    """One group minus what it is compared with. `p_value` is two-sided and not corrected for other comparisons."""

    difference: float
    interval: Interval | None
    p_value: float | None


def mean_interval(sample: Moments) -> Interval | None:
    """Of a mean, by Student's t. None below two values."""
    if sample.count < 2:
        return None
    half = _t(sample.count - 1) * math.sqrt(sample.variance / sample.count)
    return sample.mean - half, sample.mean + half


def means_apart(a: Moments, b: Moments) -> Difference:
    """Mean of `a` minus that of `b`, of independent clips whose variances need not be equal (Welch)."""
    difference = a.mean - b.mean
    if a.count < 2 or b.count < 2:
        return Difference(difference, None, None)
    of_a, of_b = a.variance / a.count, b.variance / b.count
    if of_a + of_b == 0:
        return Difference(difference, (difference, difference), 1.0 if difference == 0 else 0.0)
    freedom = (of_a + of_b) ** 2 / (of_a**2 / (a.count - 1) + of_b**2 / (b.count - 1))
    error = math.sqrt(of_a + of_b)
    half = _t(freedom) * error
    p_value = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return Difference(difference, (difference - half, difference + half), p_value)


def shares_apart(a: Share, b: Share) -> Difference:
    """Share `a` minus share `b`, of independent clips (Newcombe; Fisher)."""
    difference = a.share - b.share
    if not a.asked or not b.asked:
        return Difference(difference, None, None)
    low = difference - math.hypot(a.share - a.low, b.high - b.share)
    high = difference + math.hypot(a.high - a.share, b.share - b.low)
    table = np.array([[a.obeyed, a.asked - a.obeyed], [b.obeyed, b.asked - b.obeyed]])
    return Difference(difference, (max(-1.0, low), min(1.0, high)), float(stats.fisher_exact(table).pvalue))


def paired_means(differences: Moments) -> Difference:
    """Over the pairs' differences (Student)."""
    interval = mean_interval(differences)
    if interval is None:
        return Difference(differences.mean, None, None)
    error = math.sqrt(differences.variance / differences.count)
    if error == 0:
        p_value = 1.0 if differences.mean == 0 else 0.0
    else:
        p_value = float(2 * stats.t.sf(abs(differences.mean) / error, differences.count - 1))
    return Difference(differences.mean, interval, p_value)


def paired_shares(differences: Moments, above: int, below: int) -> Difference:
    """Over the pairs' differences, each in [-1, 1], of which so many are above and below zero (Agresti and Min)."""
    if differences.count < 2:
        return Difference(differences.mean, None, None)
    # Half a pair more in each cell of the table: one more above, one more below, counted half each, and one of none.
    count = differences.count + 2
    total = differences.count * differences.mean
    middle = total / count
    spread = max(0.0, differences.sum_of_squares + 1 - total * total / count)
    half = Z95 * math.sqrt(spread) / count
    p_value = float(stats.binomtest(above, above + below).pvalue) if above + below else 1.0
    return Difference(differences.mean, (max(-1.0, middle - half), min(1.0, middle + half)), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected, in order: below 0.05 each, all of them together are wrong once in twenty at most."""
    corrected = [1.0] * len(p_values)
    so_far = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = so_far
    return corrected


def _t(freedom: float) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))
