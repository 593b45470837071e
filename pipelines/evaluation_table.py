"""What a person sees of an evaluation: what stands out, then group beside group, metric by metric."""

import io
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console, RenderableType
from rich.console import Group as Stack
from rich.text import Text

from evaluation.comparison import Comparison
from evaluation.metrics import Kind
from evaluation.report import Evaluation, lines

WIDTH = 80
_GROUP_WIDTH = 20
_WAYS = {1: "more is better", -1: "less is better", 0: "neither way is better"}
_Cells = tuple[str, str, str, str, str, str]


def evaluation_table(found: Evaluation) -> RenderableType:
    """All of it, for a terminal of 80 columns."""
    parts = [_head(found)]
    if found.warnings:
        parts.append(Text("\n".join(("", *(f"! {warning}" for warning in found.warnings))), style="bold yellow"))
    else:
        parts.append(Text("\nno group stands out"))
    for column, comparisons in groupby(found.comparisons, key=lambda one: one.column):
        parts += _table(column, list(comparisons), found.pairs_by)
    parts.append(Text("\n".join(("", *_foot(found)))))
    return Stack(*parts)


def as_text(found: Evaluation) -> str:
    """The same without colours."""
    out = io.StringIO()
    Console(file=out, width=WIDTH, highlight=False, color_system=None).print(evaluation_table(found))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _head(found: Evaluation) -> Text:
    kept = f" ({found.kept} measured before)" if found.kept else ""
    return Text(f"run {found.run_id}: {found.rows} rows, {found.clips} clips{kept}, {found.unreadable} unreadable")


def _table(column: str, comparisons: Sequence[Comparison], pairs_by: str | None) -> Iterator[Text]:
    """Lines of one layout, however much room each metric's numbers would want for themselves."""
    apart = f"within {pairs_by}" if pairs_by else "from the others"
    head: _Cells = (column, "n", "value (95 %)", f"{apart[:21]} (95 %)", "p", "")
    rows = [(one, list(lines(one))) for one in comparisons]
    widths = [max(len(cells[at]) for cells in (head, *(c for _, some in rows for c in some))) for at in range(6)]
    widths[0] = min(widths[0], _GROUP_WIDTH)
    yield Text("\n" + _line(head, widths), style="bold underline")
    for comparison, some in rows:
        metric = comparison.metric
        unit = ", %" if metric.kind is Kind.SHARE else ""
        if comparison.is_alike:
            value = some[0][2].partition(" ")[0]
            yield Text(f"{metric.name}{unit}: {value} in every group", style="dim")
        else:
            yield Text(f"{metric.name}{unit}: {metric.meaning}; {_WAYS[metric.better]}", style="bold")
            for cells in some:
                yield Text(_line(cells, widths, "  "), style="bold yellow" if cells[-1] == "!" else "")


def _line(cells: _Cells, widths: Sequence[int], before: str = "  ") -> str:
    group, count, value, apart, p, mark = cells
    name = group if len(group) <= widths[0] else f"{group[: widths[0] - 1]}…"
    left, right = f"{before}{name:{widths[0]}}  {count:>{widths[1]}}", f"{p:>{widths[4]}} {mark}"
    return f"{left}  {value:{widths[2]}}  {apart:{widths[3]}}  {right}".rstrip()


def _foot(found: Evaluation) -> Iterator[str]:
    yield from found.methods
    if found.unread:
        yield ""
        yield "not read:"
        yield from (f"  {one.clip}: {one.reason}" for one in found.unread)
        if found.unreadable > len(found.unread):
            yield f"  … and {found.unreadable - len(found.unread)} more"
    yield from (f"note: {note}" for note in found.notes)
    yield from (f"sheet  {sheet}" for sheet in found.sheets)
