"""Groups of clips beside each other: values with intervals, differences, and which of them stand out.

Each group is compared with all others together, so that a difference has a group's name. With pairs, values are first
compared within each pair (a prompt that is the same but for the attribute): the prompts' own differences drop out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evaluation.metrics import Kind, Metric
from evaluation.pairs import Pairs
from evaluation.statistics import (
    Difference,
    Interval,
    Moments,
    Share,
    holm,
    mean_interval,
    means_apart,
    paired_means,
    paired_shares,
    shares_apart,
    wilson,
)

FEWEST = 10
"""Clips (or pairs) on either side of a difference, below which it is shown and not judged."""
ALPHA = 0.05
_NOTHING = 1e-12


@dataclass(frozen=True)
class GroupFigure:
    """One group under one metric. `difference` is from all others together; None where there is nothing to compare.

    `corrected_p` is None where the difference is not judged: too few clips, or a value that is the same everywhere.
    """

    group: str
    count: int
    value: float
    interval: Interval | None
    others: int = 0
    difference: float | None = None
    difference_interval: Interval | None = None
    p_value: float | None = None
    corrected_p: float | None = None
    few: bool = False
    same: bool = False  # all of its clips have the one value

    @property
    def differs(self) -> bool:
        """Whether the difference is significant, all that were judged considered."""
        return self.corrected_p is not None and self.corrected_p < ALPHA


@dataclass(frozen=True)
class Comparison:
    """One metric under one column. Groups are in order, the worst first; where neither way is better, that which is
    furthest from the others."""

    column: str
    metric: Metric
    groups: tuple[GroupFigure, ...]
    paired: bool

    @property
    def is_alike(self) -> bool:
        """Whether every clip of every group has the same value: there is nothing to compare."""
        return len({one.value for one in self.groups}) == 1 and all(one.same for one in self.groups)

    @property
    def standing_out(self) -> tuple[GroupFigure, ...]:
        """The groups to warn of: those that differ, to the worse where there is a worse. Of two, one."""
        found = [one for one in self.groups if one.differs and _badness(self.metric, one) >= 0]
        return tuple(found[:1] if len(self.groups) == 2 else found)


@dataclass
class Tallies:
    """Takes the values of clips and rows as they come, in memory that grows with groups and not with clips.

    With `pairs`, one value of each pair and group is kept on disk besides.
    """

    columns: Sequence[str]
    pairs: Pairs | None = None
    _cells: defaultdict[tuple[str, str], defaultdict[str, Moments]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Moments))
    )

    def add(self, groups: Mapping[str, str], pair: str | None, values: Mapping[str, float]) -> None:
        """The values of one clip, by metric; `groups` has its value in each column."""
        for column in self.columns:
            for metric, value in values.items():
                cell = self._cells[column, metric]
                cell[groups[column]] = cell[groups[column]].plus(Moments(1, float(value)))
            if self.pairs is not None and pair is not None:
                self.pairs.add(column, pair, groups[column], values)

    def of(self, column: str, metric: str) -> Mapping[str, Moments]:
        """By group."""
        return self._cells.get((column, metric), {})


def compare(tallies: Tallies, metrics: Iterable[Metric]) -> tuple[Comparison, ...]:
    """Column by column and metric by metric; metrics without a value are left out. P-values are corrected over all of
    them together (Holm)."""
    found = [
        comparison
        for column in tallies.columns
        for metric in metrics
        if (comparison := _compared(tallies, column, metric)) is not None
    ]
    return tuple(_corrected(found))


def _compared(tallies: Tallies, column: str, metric: Metric) -> Comparison | None:
    cells = tallies.of(column, metric.name)
    if not cells:
        return None
    paired = tallies.pairs is not None
    if tallies.pairs is not None:
        apart = _within_pairs(metric, tallies.pairs.cells(column, metric.name), cells)
    else:
        apart = {name: found for name in cells if (found := _from_others(metric, name, cells)) is not None}
    figures = [_figure(metric, name, cells[name], apart.get(name)) for name in cells]
    figures.sort(key=lambda one: (-_badness(metric, one), one.group))
    return Comparison(column, metric, tuple(figures), paired)


def _figure(metric: Metric, name: str, cell: Moments, apart: tuple[Difference, int, int] | None) -> GroupFigure:
    if metric.kind is Kind.SHARE:
        share = _share(cell)
        figure = GroupFigure(name, cell.count, share.share, (share.low, share.high), same=cell.squares == 0)
    else:
        figure = GroupFigure(name, cell.count, cell.mean, mean_interval(cell), same=cell.squares == 0)
    if apart is None:
        return figure
    difference, fewest, others = apart
    return replace(
        figure,
        others=others,
        difference=difference.difference,
        difference_interval=difference.interval,
        p_value=difference.p_value,
        few=fewest < FEWEST,
    )


def _from_others(metric: Metric, name: str, cells: Mapping[str, Moments]) -> tuple[Difference, int, int] | None:
    others = Moments()
    for other, cell in cells.items():
        if other != name:
            others = others.plus(cell)
    if not others.count:
        return None
    mine = cells[name]
    apart = means_apart(mine, others) if metric.kind is Kind.MEAN else shares_apart(_share(mine), _share(others))
    if _is_constant(mine, others):
        apart = replace(apart, p_value=None)  # the same everywhere: there is nothing to be right or wrong about
    return apart, min(mine.count, others.count), others.count


def _within_pairs(
    metric: Metric, rows: Iterator[Mapping[str, float]], cells: Mapping[str, Moments]
) -> dict[str, tuple[Difference, int, int]]:
    """Each group's value less the mean of the other groups' values, in the pairs that have both."""
    differences: defaultdict[str, Moments] = defaultdict(Moments)
    above: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for row in rows:
        if len(row) < 2:
            continue
        total = sum(row.values())
        for name, value in row.items():
            difference = value - (total - value) / (len(row) - 1)
            differences[name] = differences[name].plus(Moments(1, difference))
            above[name] += difference > _NOTHING
            below[name] += difference < -_NOTHING
    found = {}
    for name in cells:
        moments = differences[name]
        if not moments.count:
            continue
        is_share = metric.kind is Kind.SHARE
        apart = paired_shares(moments, above[name], below[name]) if is_share else paired_means(moments)
        if not above[name] and not below[name]:
            apart = replace(apart, p_value=None)
        found[name] = apart, moments.count, moments.count
    return found


def _corrected(comparisons: Sequence[Comparison]) -> Iterator[Comparison]:
    """With Holm's correction. The two sides of one difference are one test."""
    tests: list[tuple[int, int]] = []
    for index, comparison in enumerate(comparisons):
        judged = [at for at, one in enumerate(comparison.groups) if one.p_value is not None and not one.few]
        tests += [(index, at) for at in (judged[:1] if len(comparison.groups) == 2 else judged)]
    p_values = [comparisons[index].groups[at].p_value or 0.0 for index, at in tests]
    corrected = dict(zip(tests, holm(p_values), strict=True))
    for index, comparison in enumerate(comparisons):
        two = len(comparison.groups) == 2
        groups = []
        for at, one in enumerate(comparison.groups):
            p_value = corrected.get((index, at))
            if two and p_value is None and one.p_value is not None and not one.few:
                p_value = corrected.get((index, 0))
            groups.append(replace(one, corrected_p=p_value))
        yield replace(comparison, groups=tuple(groups))


def _badness(metric: Metric, one: GroupFigure) -> float:
    """Higher is worse; where neither way is better, further from the others."""
    if one.difference is None:
        return -metric.better * one.value
    return abs(one.difference) if metric.better == 0 else -metric.better * one.difference


def _share(cell: Moments) -> Share:
    return wilson(round(cell.count * cell.mean), cell.count)


def _is_constant(a: Moments, b: Moments) -> bool:
    both = a.plus(b)
    return both.squares == 0
