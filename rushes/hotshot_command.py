"""`rushes import-hotshot`: from Hotshot-XL's own layout to a folder that a catalog's weights may name."""

from pathlib import Path
from typing import Annotated

import typer

from rushes import console
from rushes.exits import fail
from schemas.errors import RushesError


def import_hotshot(
    folder: Annotated[Path, typer.Argument(help="A checkpoint in the hub's layout of Hotshot-XL.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; whole or not at all.")],
    base: Annotated[
        Path | None,
        typer.Option(
            "--base", help="A personalised SDXL model to put the temporal layers on: its folder, or its unet/."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an --out that holds something.")] = False,
) -> None:
    """Convert a checkpoint of Hotshot-XL into weights for the catalog.

    The result loads as a variant whose `pipeline` is AnimateDiffSDXLPipeline (`docs/hotshot-xl.md`). Only safetensors
    are read, and FOLDER stays as it is.
    """
    from models.hotshot.conversion import convert

    try:
        made = convert(folder, out, base=base, overwrite=overwrite)
    except RushesError as error:
        fail(error)
    console.err().print(
        f"{made.temporal_layers} temporal layers, clips of up to {made.max_frames} frames", markup=False, soft_wrap=True
    )
    print(made.folder)
