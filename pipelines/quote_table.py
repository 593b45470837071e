"""What a person sees of a plan: the quote, what there is to tell of the manifest, the first rejected rows."""

import os
from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from schemas.run import RunQuote


def quote_table(quote: RunQuote, rejected: Iterable[str] = (), notes: Iterable[str] = ()) -> RenderableType:
    """The quote, group by group, with the first rejected rows and what there is to tell of the manifest."""
    table = Table(
        title="Quote", title_justify="left", show_footer=True, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("variant", "all", no_wrap=True)
    table.add_column("from")
    table.add_column("shape", no_wrap=True)
    table.add_column("fps", justify="right")
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("tasks", str(quote.to_render), justify="right", no_wrap=True)
    table.add_column("calls", str(sum(g.batches for g in quote.groups)), justify="right", no_wrap=True)
    table.add_column("GPU-s", f"{sum(g.gpu_s for g in quote.groups):.1f}", justify="right")
    table.add_column("USD", f"{sum(g.usd for g in quote.groups):.4f}", justify="right")
    for q in quote.groups:
        table.add_row(
            q.group.variant,
            q.group.mode.value.removesuffix("_to_video"),
            str(q.group.shape),
            f"{q.group.fps:g}",
            str(q.group.steps),
            str(q.tasks),
            str(q.batches),
            f"{q.gpu_s:.1f}",
            f"{q.usd:.4f}",
        )
    pools = ", ".join(f"{n} × {name}" for name, n in quote.actors.items()) or "none"
    lines = [
        f"{quote.rows} rows: {quote.to_render} to render, {quote.already_done} done already, "
        f"{quote.duplicates} the same as another row, {quote.rejected} rejected",
        f"actors: {pools}",
        f"with loading: {quote.gpu_s:.1f} GPU-seconds, {quote.usd:.4f} USD, done in about {duration(quote.wall_s)} "
        f"(no schedule here ends before {duration(quote.bound_s)})",
    ]
    if not quote.measured and quote.groups:
        lines.append("(from the architecture, not from measurements: `rushes calibrate` makes this exact)")
    told = [Text(f"note: {note.removeprefix(_here())}", style="yellow") for note in notes]
    return Stack(table, Text("\n".join(lines)), *told, *rejected_lines(quote.rejected, rejected))


def rejected_lines(count: int, sample: Iterable[str]) -> list[Text]:
    """The first rejected rows, in the style of a compiler."""
    shown = list(sample)
    if not shown:
        return []
    more = [f"… and {count - len(shown)} more"] if count > len(shown) else []
    lines = ["", "rejected:", *(line.removeprefix(_here()) for line in shown), *more]
    return [Text("\n".join(lines), style="yellow")]


def _here() -> str:
    return f"{os.getcwd()}/"


def duration(seconds: float) -> str:
    """'42 s', '3 min 10 s', '2 h 05 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
