"""`rushes estimate`: what a manifest would take."""

from typing import Annotated

import typer

from rushes import console
from rushes.exits import Exit, fail
from rushes.run_options import (
    Address,
    AsJson,
    CatalogFile,
    Device,
    Encoding,
    Fit,
    Format,
    Limit,
    Manifest,
    ModerationFile,
    Snap,
    Strict,
    TemplatesFile,
    Variant,
    moderation_option,
    run_options,
)
from schemas.clip import ClipFormat
from schemas.errors import RushesError


def estimate(
    manifest: Manifest,
    out: Annotated[str, typer.Option("--out", help="Leave out what is done there already.")] = "",
    catalog: CatalogFile = None,
    variant: Variant = None,
    limit: Limit = None,
    snap: Snap = False,
    fit: Fit = None,
    encoding: Encoding = None,
    strict: Strict = False,
    templates: TemplatesFile = None,
    clip_format: Format = ClipFormat.MP4,
    address: Address = None,
    device: Device = "auto",
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, help="Quote for so many GPUs instead of the cluster there is.")
    ] = None,
    accelerator: Annotated[
        str, typer.Option("--accelerator", help="With --gpus: their type, as Ray names it (H200, L40S …).")
    ] = "H100",
    moderation: ModerationFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what MANIFEST would take: tasks by group, GPU-seconds, price, finish time. Renders and writes nothing."""
    options = run_options(
        manifest=manifest,
        out=out,
        catalog=catalog,
        variant=variant,
        limit=limit,
        snap=snap,
        fit=fit,
        encoding=encoding,
        strict=strict,
        templates=templates,
        clip_format=clip_format,
        address=address,
        device=device,
        moderation=moderation_option(moderation),
    )
    from cluster.topology import imagined_topology
    from pipelines.estimate import estimate as run
    from pipelines.quote_table import quote_table
    from pipelines.watcher import Watcher

    err = console.err()
    try:
        plan = run(
            options,
            Watcher(said=lambda text: err.print(text, markup=False)),
            topology=imagined_topology(accelerator, gpus) if gpus else None,
        )
    except RushesError as error:
        fail(error)
    if as_json:
        print(plan.quote.model_dump_json(indent=1))
    else:
        console.out().print(quote_table(plan.quote, plan.rejected_sample, plan.notes))
    raise typer.Exit(Exit.INCOMPLETE if plan.quote.rejected else Exit.OK)
