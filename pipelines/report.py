"""What a person sees of a run: the quote before, the progress meanwhile, the account after."""

import os
from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from actors.monitor import Snapshot
from schemas.run import RunQuote, RunSummary


def quote_table(quote: RunQuote, rejected: Iterable[str] = ()) -> RenderableType:
    """The quote, group by group."""
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
    return Stack(table, Text("\n".join(lines)), *rejected_lines(quote.rejected, rejected))


def rejected_lines(count: int, sample: Iterable[str]) -> list[Text]:
    """The first rejected rows, in the style of a compiler."""
    shown = list(sample)
    if not shown:
        return []
    here = f"{os.getcwd()}/"
    more = [f"… and {count - len(shown)} more"] if count > len(shown) else []
    lines = ["", "rejected:", *(line.removeprefix(here) for line in shown), *more]
    return [Text("\n".join(lines), style="yellow")]


def progress_view(
    snapshot: Snapshot, to_render: int, clips: int, failed: int, elapsed_s: float, quoted_s: float
) -> RenderableType:
    """The live view: pool by pool, then all."""
    table = Table(box=None, pad_edge=False)
    for name in ("variant", "actors", "clips", "failed", "busy"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for pool in snapshot.pools:
        busy = 100 * pool.busy_s / (elapsed_s * pool.ready) if pool.ready and elapsed_s else 0.0
        state = f"{pool.ready}/{pool.actors}" if pool.ready < pool.actors else str(pool.ready)
        table.add_row(pool.variant, state, str(pool.clips), str(pool.failed), f"{min(busy, 100.0):.0f} %")
    done = clips + failed
    rate = done / elapsed_s if elapsed_s else 0.0
    left_s = (to_render - done) / rate if rate else quoted_s
    lost = f"  {snapshot.actors_lost} process(es) died and were restarted" if snapshot.actors_lost else ""
    line = f"{done}/{to_render} clips  {rate:.2f} clips/s  {duration(left_s)} left{lost}"
    return Stack(table, Text(line, style="bold"))


def summary_table(summary: RunSummary) -> RenderableType:
    """The account of a finished run."""
    table = Table(title="Run " + summary.run_id, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, value in (
        ("rows", str(summary.rows)),
        ("succeeded", str(summary.succeeded)),
        ("failed", str(summary.failed)),
        ("rejected", str(summary.rejected)),
        ("clips rendered now", str(summary.rendered)),
        ("clips that were there", str(summary.reused)),
        ("time", duration(summary.wall_s)),
        ("GPU-seconds billed (quoted, models loaded)", f"{summary.billed_gpu_s:.1f} ({summary.quoted_gpu_s:.1f})"),
        ("USD billed (quoted, models loaded)", f"{summary.billed_usd:.4f} ({summary.quoted_usd:.4f})"),
    ):
        table.add_row(name, value)
    lines = [f"results        {summary.results_uri}"]
    if summary.contact_sheet_uri:
        lines.append(f"contact sheet  {summary.contact_sheet_uri}")
    return Stack(table, Text("\n".join(lines)))


def duration(seconds: float) -> str:
    """'42 s', '3 min 10 s', '2 h 05 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
