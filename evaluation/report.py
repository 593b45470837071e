"""What an evaluation found, as a value: for the table, for JSON, for programs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evaluation.comparison import ALPHA, FEWEST, Comparison, GroupFigure
from evaluation.metrics import Kind


@dataclass(frozen=True)
class Unread:
    """A clip that could not be looked at, and why."""

    clip: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """`rows` are those of the manifest, `unfinished` those of them that the run did not come to; `clips` are distinct
    ones, `kept` those of them whose figures were there from before. `unread` is a sample of `unreadable` clips."""

    run_id: str
    rows: int
    unfinished: int
    clips: int
    kept: int
    unreadable: int
    unread: tuple[Unread, ...]
    pairs_by: str | None
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    sheets: tuple[str, ...] = ()

    @property
    def tests(self) -> int:
        """Over how many differences p-values are corrected."""
        return sum(
            1 if len(c.groups) == 2 else len(judged)
            for c in self.comparisons
            if (judged := [one for one in c.groups if one.corrected_p is not None])
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence a group that stands out."""
        return tuple(_warned(c, one, self.tests) for c in self.comparisons for one in c.standing_out)

    @property
    def methods(self) -> tuple[str, ...]:
        """How the figures came about."""
        against = (
            f"differences are within pairs of equal {self.pairs_by}: a group less the mean of the pair's other groups"
            if self.pairs_by
            else "differences are from all other groups together"
        )
        of_shares, of_means = (
            ("Agresti and Min, exact sign test", "Student's t over pairs")
            if self.pairs_by
            else ("Newcombe, Fisher's exact test", "Welch's t")
        )
        return (
            "intervals are of 95 %, each for itself: Wilson for shares, Student's t for means",
            f"{against}; shares: {of_shares}; means: {of_means}",
            f"p is corrected by Holm over {self.tests} differences; below {ALPHA} a group stands out (!)",
            f"below {FEWEST} {'pairs' if self.pairs_by else 'clips'} on a side a difference is shown, not judged (few)",
            "that nothing stands out does not show that groups are equal: see how wide the intervals are",
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values. Shares are in [0, 1]."""
        return {
            "run_id": self.run_id,
            "rows": self.rows,
            "unfinished": self.unfinished,
            "clips": self.clips,
            "clips_kept": self.kept,
            "unreadable": self.unreadable,
            "unread": [{"clip": one.clip, "reason": one.reason} for one in self.unread],
            "paired_by": self.pairs_by,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "methods": list(self.methods),
            "comparisons": [_comparison(one) for one in self.comparisons],
            "sheets": list(self.sheets),
        }


def lines(comparison: Comparison) -> Iterator[tuple[str, str, str, str, str, str]]:
    """(group, clips, value with interval, difference with interval, p, mark) as text; shares are percentages."""
    numbers = _Numbers(comparison)
    for one in comparison.groups:
        mark = "!" if one in comparison.standing_out else "few" if one.few else ""
        p = "" if one.corrected_p is None else f"{one.corrected_p:.3f}" if one.corrected_p >= 0.001 else "<.001"
        value = numbers.shown(one.value) + numbers.between(one.interval, "–")
        apart = ""
        if one.difference is not None:
            apart = numbers.signed(one.difference) + numbers.between(one.difference_interval, " to ")
        yield one.group, str(one.count), value, apart, p, mark


def _warned(comparison: Comparison, one: GroupFigure, tests: int) -> str:
    metric = comparison.metric
    numbers = _Numbers(comparison)
    is_share = metric.kind is Kind.SHARE
    against = "within its pairs" if comparison.paired else "from the others"
    bound = numbers.between(one.difference_interval, " to ").replace("(", "(95 %: ")
    p = "p < 0.0001" if one.corrected_p is None or one.corrected_p < 1e-4 else f"p = {one.corrected_p:.2g}"
    return (
        f"{comparison.column} = {one.group}: {metric.name} is {numbers.shown(one.value)}{' %' if is_share else ''}, "
        f"{numbers.signed(one.difference or 0.0)}{' points' if is_share else ''} {against}{bound}; "
        f"{p} over {tests} differences"
    )


class _Numbers:
    """How a comparison's numbers are written: shares in percent, means with as many places as the largest needs for
    three digits."""

    def __init__(self, comparison: Comparison) -> None:
        self._is_share = comparison.metric.kind is Kind.SHARE
        largest = max(abs(one.value) for one in comparison.groups)
        self._places = 1 if self._is_share else min(6, max(0, 2 - math.floor(math.log10(largest or 1))))

    def shown(self, value: float) -> str:
        scaled = round(100 * value if self._is_share else value, self._places)
        return f"{scaled + 0.0:.{self._places}f}"  # + 0.0: no minus before a zero

    def signed(self, value: float) -> str:
        shown = self.shown(value)
        return shown if shown.startswith("-") or not float(shown) else f"+{shown}"

    def between(self, interval: tuple[float, float] | None, word: str) -> str:
        return "" if interval is None else f" ({self.shown(interval[0])}{word}{self.shown(interval[1])})"


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "column": one.column,
        "metric": one.metric.name,
        "kind": one.metric.kind.value,
        "better": {1: "more", -1: "less", 0: None}[one.metric.better],
        "meaning": one.metric.meaning,
        "groups": [
            {
                "group": figure.group,
                "count": figure.count,
                "value": figure.value,
                "interval": figure.interval,
                "difference": figure.difference,
                "difference_interval": figure.difference_interval,
                "against": figure.others,
                "p": figure.p_value,
                "p_corrected": figure.corrected_p,
                "few": figure.few,
                "differs": figure.differs,
            }
            for figure in one.groups
        ],
    }
