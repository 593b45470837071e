"""What a person sees of a run: the progress meanwhile, the account after."""

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from actors.monitor import Snapshot
from pipelines.progress import Progress
from pipelines.quote_table import duration
from schemas.run import RunQuote, RunSummary


def progress_view(snapshot: Snapshot, progress: Progress, quote: RunQuote) -> RenderableType:
    """The live view: pool by pool, then all."""
    table = Table(box=None, pad_edge=False)
    for name in ("variant", "actors", "clips", "failed", "busy"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for pool in snapshot.pools:
        elapsed_s = progress.elapsed_s
        busy = 100 * pool.busy_s / (elapsed_s * pool.ready) if pool.ready and elapsed_s else 0.0
        state = f"{pool.ready}/{pool.actors}" if pool.ready < pool.actors else str(pool.ready)
        table.add_row(pool.variant, state, str(pool.clips), str(pool.failed), f"{min(busy, 100.0):.0f} %")
    return Stack(table, Text(progress_line(snapshot, progress, quote), style="bold"))


def progress_line(snapshot: Snapshot, progress: Progress, quote: RunQuote) -> str:
    """How far a run is, in one line."""
    done = progress.clips + progress.failed
    rate = done / progress.elapsed_s if progress.elapsed_s else 0.0
    left_s = (quote.to_render - done) / rate if rate else quote.wall_s
    failed = f", {progress.failed} failed" if progress.failed else ""
    died = snapshot.actors_lost
    lost = f"  {died} {'process' if died == 1 else 'processes'} died and restarted" if died else ""
    return f"{done}/{quote.to_render} clips{failed}  {rate:.2f} clips/s  {duration(left_s)} left{lost}"


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
        ("texts encoded (kept from before)", f"{summary.texts_encoded} ({summary.texts_reused})"),
        ("time", duration(summary.wall_s)),
        ("GPU-seconds billed (quoted, models loaded)", f"{summary.billed_gpu_s:.1f} ({summary.quoted_gpu_s:.1f})"),
        ("USD billed (quoted, models loaded)", f"{summary.billed_usd:.4f} ({summary.quoted_usd:.4f})"),
    ):
        table.add_row(name, value)
    if summary.moderation:
        table.add_row("refused, flagged by moderation", f"{summary.refused}, {summary.flagged}")
    lines = [f"results        {summary.results_uri}"]
    if summary.reasons:
        lines = ["", "why rows have no clip:", *(f"  {count} × {text}" for text, count in summary.reasons), "", *lines]
    if summary.rejects_uri:
        lines.append(f"rejected rows  {summary.rejects_uri}")
    if summary.contact_sheet_uri:
        lines.append(f"contact sheet  {summary.contact_sheet_uri}")
    if summary.credentials and summary.rendered:
        lines.append(f"credentials    {summary.credentials}")
    if summary.moderation:
        lines.append(f"moderation     {summary.moderation.removeprefix('moderation ')}")
    return Stack(table, Text("\n".join(lines)))
