"""`rushes guide`: what a model would be shown of directed rows, before anything is rendered."""

from pathlib import Path
from typing import Annotated

import typer

from rushes import console
from rushes.exits import Exit, fail
from rushes.run_options import CatalogFile, Encoding, Limit, Manifest, Snap, Variant, run_options
from schemas.errors import RushesError


def guide(
    manifest: Manifest,
    out: Annotated[Path, typer.Option("--out", help="The folder for the videos.")],
    catalog: CatalogFile = None,
    variant: Variant = None,
    limit: Limit = None,
    snap: Snap = False,
    encoding: Encoding = None,
) -> None:
    """Show what a model would be shown of MANIFEST's rows: cameras, paths, edits, frames, structures, masks.

    Writes a video a row: what is shown on the left, on the right in white where it is made anew. Loads no model. Exit
    codes: 0 done, 3 some rows have no guide as something is wrong with them, 2 usage.
    """
    from pipelines.guides import guides

    options = run_options(
        manifest=manifest, out=str(out), catalog=catalog, variant=variant, limit=limit, snap=snap, encoding=encoding
    )
    wrong = False
    try:
        for one in guides(options):
            wrong = wrong or bool(one.error)
            if one.path is not None:
                print(f"{one.id}\t{one.path}")
            else:
                told = one.error or f"{one.id}: nothing is shown to the model but its text"
                console.err().print(told, markup=False, soft_wrap=True)
    except RushesError as error:
        fail(error)
    raise typer.Exit(Exit.INCOMPLETE if wrong else Exit.OK)
