"""The `rushes` command: parses, calls, prints."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.prompt import Confirm
from rich.text import Text

from cluster.topology import imagined_topology
from rushes.exits import Exit, fail
from rushes.finetune_command import finetune
from rushes.fleet_commands import calibrate, simulate
from rushes.keys_command import keys
from rushes.serve_command import serve
from schemas.clip import ClipFormat
from schemas.errors import RushesError
from schemas.run import RunOptions

app = typer.Typer(
    name="rushes",
    help="Render video in bulk on a Ray cluster.\n\nA manifest of prompts goes in; clips and a results table come out.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_err = Console(stderr=True)
_out = Console()


Manifest = Annotated[
    str, typer.Argument(help="JSONL, CSV or Parquet: a file, a folder or a glob; local or s3://.", show_default=False)
]
CatalogFile = Annotated[
    str | None, typer.Option("--catalog", help="A catalog file (TOML); without it, the one that ships.")
]
Variant = Annotated[str | None, typer.Option("--variant", help="For rows that name none: a catalog name, or 'auto'.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N rows.")]
Snap = Annotated[bool, typer.Option("--snap", help="Change a shape that breaks a rule to the nearest valid one.")]
Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RUSHES_ADDRESS", help="A Ray cluster, e.g. 'auto'; without it, one starts here."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Format = Annotated[ClipFormat, typer.Option("--format", help="mp4 (H.264), webm (VP9), gif, or png (frames in a zip).")]


@app.command()
def render(
    manifest: Manifest,
    out: Annotated[str, typer.Option("--out", help="Where clips and results go: a folder or s3://bucket/prefix.")],
    catalog: CatalogFile = None,
    variant: Variant = None,
    limit: Limit = None,
    snap: Snap = False,
    clip_format: Format = ClipFormat.MP4,
    address: Address = None,
    device: Device = "auto",
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try tasks again that killed their process twice.")
    ] = False,
    stall_timeout_s: Annotated[
        float, typer.Option("--stall-timeout", help="Seconds without a denoising step after which a batch is killed.")
    ] = 1800.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask after the quote.")] = False,
    as_json: AsJson = False,
) -> None:
    """Render every row of MANIFEST.

    Prints the quote first, then renders. Killed or interrupted, **the same command goes on where it stopped**: a clip
    that is stored is never rendered again.

    Exit codes: 0 every row has its clip, 3 some rows failed or were rejected, 2 usage, 1 the run broke.
    """
    from pipelines import run as bulk
    from pipelines.report import progress_view, quote_table, summary_table
    from pipelines.run_plan import RunPlan
    from schemas.run import RunQuote

    options = _options(
        manifest=manifest,
        out=out,
        catalog=catalog,
        variant=variant,
        limit=limit,
        snap=snap,
        clip_format=clip_format,
        address=address,
        device=device,
        retry_quarantined=retry_quarantined,
        stall_timeout_s=stall_timeout_s,
    )
    again = "rushes " + shlex.join(sys.argv[1:])

    def quoted(plan: RunPlan) -> None:
        _err.print(quote_table(plan.quote, plan.rejected_sample))

    def confirm(quote: RunQuote) -> bool:
        # Only a person can be asked; a free run needs no consent.
        if yes or as_json or quote.usd == 0 or not sys.stdin.isatty():
            return True
        return Confirm.ask(f"Render {quote.to_render} clips for about {quote.usd:.2f} USD?", console=_err)

    with Live(Text("reading the manifest …"), console=_err, refresh_per_second=4, transient=True) as live:

        def planning(chunks: int, of: int, rows: int) -> None:
            live.update(Text(f"planning: {rows} rows, chunk {chunks} of {of}"))

        def shown(plan: RunPlan) -> None:
            live.stop()
            quoted(plan)

        def agreed(quote: RunQuote) -> bool:
            answer = confirm(quote)
            if answer and quote.to_render:
                live.update(Text("loading models …"))
                live.start()
            return answer

        watcher = bulk.Watcher(
            planning=planning,
            quoted=shown,
            confirm=agreed,
            rendering=lambda snapshot, progress, quote: live.update(
                progress_view(
                    snapshot, quote.to_render, progress.clips, progress.failed, progress.elapsed_s, quote.wall_s
                )
            ),
        )
        try:
            summary = bulk.render(options, watcher)
        except KeyboardInterrupt:
            live.stop()
            _err.print(
                f"\nStopped. What is stored is kept; to go on:\n  {again}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            raise typer.Exit(Exit.INTERRUPTED) from None
        except bulk.DeclinedError as error:
            live.stop()
            _err.print(str(error), markup=False)
            raise typer.Exit(Exit.OK) from None
        except RushesError as error:
            live.stop()
            fail(error)
    if as_json:
        print(summary.model_dump_json(indent=1))
    else:
        _err.print(summary_table(summary))
    raise typer.Exit(summary.exit_code)


@app.command()
def estimate(
    manifest: Manifest,
    out: Annotated[str, typer.Option("--out", help="Leave out what is done there already.")] = "",
    catalog: CatalogFile = None,
    variant: Variant = None,
    limit: Limit = None,
    snap: Snap = False,
    clip_format: Format = ClipFormat.MP4,
    address: Address = None,
    device: Device = "auto",
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, help="Quote for so many GPUs instead of the cluster there is.")
    ] = None,
    accelerator: Annotated[
        str, typer.Option("--accelerator", help="With --gpus: their type, as Ray names it (H200, L40S …).")
    ] = "H100",
    as_json: AsJson = False,
) -> None:
    """Say what MANIFEST would take: tasks by group, GPU-seconds, price, finish time. Renders and writes nothing."""
    from pipelines import run as bulk
    from pipelines.report import quote_table

    options = _options(
        manifest=manifest,
        out=out,
        catalog=catalog,
        variant=variant,
        limit=limit,
        snap=snap,
        clip_format=clip_format,
        address=address,
        device=device,
    )
    try:
        imagined = imagined_topology(accelerator, gpus) if gpus else None
        plan = bulk.estimate(options, topology=imagined)
    except RushesError as error:
        fail(error)
    if as_json:
        print(plan.quote.model_dump_json(indent=1))
    else:
        _out.print(quote_table(plan.quote, plan.rejected_sample))
    raise typer.Exit(Exit.INCOMPLETE if plan.quote.rejected else Exit.OK)


@app.command()
def catalog(
    path: Annotated[Path | None, typer.Argument(help="A catalog file; without it, the one that ships.")] = None,
) -> None:
    """List the variants: what each can render, what it needs and costs. Checks a catalog file on the way."""
    from rich.table import Table

    from pipelines.run import open_catalog
    from schemas.config import read_config

    try:
        found = open_catalog(str(path) if path else None, read_config())
    except RushesError as error:
        fail(error)
    table = Table("variant", "modes", "native shape", "fps", "steps", "GPUs", "GiB", "USD/h", "aliases")
    for v in found.variants.values():
        modes = ", ".join(mode.value.removesuffix("_to_video") for mode in v.modes)
        usd = f"{v.price_usd_per_gpu_hour:g}"
        row = (str(v.shape.default()), f"{v.fps:g}", str(v.steps), f"{v.needs.gpus:g}", f"{v.needs.vram_gib:g}", usd)
        table.add_row(v.name, modes, *row, ", ".join(v.aliases))
    _out.print(table)


app.command()(simulate)
app.command()(calibrate)
app.command()(finetune)
app.add_typer(serve)
app.add_typer(keys)


def _options(**given: object) -> RunOptions:
    try:
        return RunOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        _err.print(f"--{'-'.join(map(str, first['loc'])).replace('_', '-')}: {first['msg']} (got {first['input']!r})")
        raise typer.Exit(Exit.USAGE) from None


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
