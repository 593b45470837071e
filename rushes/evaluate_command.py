"""`rushes evaluate`: how the clips of a run compare by an attribute."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rushes import console
from rushes.exits import Exit, fail
from rushes.run_options import AsJson
from schemas.config import read_config
from schemas.errors import ConfigError, RushesError

if TYPE_CHECKING:
    from evaluation.scorers import Scorer

_SAID_EVERY = 500


def evaluate(
    target: Annotated[
        str, typer.Argument(help="Where a run wrote to: a folder or s3://bucket/prefix.", show_default=False)
    ],
    by: Annotated[
        list[str],
        typer.Option("--by", help="A column of the manifest: its values are the groups. Or variant, mode, seed …"),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="Only these: a name, or rows, pixels, steadiness, obedience; without it, all that are quick.",
        ),
    ] = None,
    paired_by: Annotated[
        str | None,
        typer.Option("--paired-by", help="A column that names what is the same but for the attribute, as a template."),
    ] = None,
    clip_model: Annotated[
        str | None,
        typer.Option(
            "--clip-model",
            help="CLIP or SigLIP, safetensors: a folder, owner/name or s3://: does a clip fit its prompt?",
        ),
    ] = None,
    scorer: Annotated[
        list[str] | None, typer.Option("--scorer", help="A scorer of yours: an entry point of `rushes.scorers`.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="Of several runs there; without it, the last.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Write the report and each clip's figures there: a folder or s3://.")
    ] = None,
    sheets: Annotated[bool, typer.Option("--sheets", help="With --out: a contact sheet for each group, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the clips of a run, and report them by an attribute side by side.

    Shares and means with 95 % intervals, differences, the worst group first; a group that differs significantly is
    named. What was measured before is not measured again: **the same command goes on where it stopped**.

    Exit codes: 0 every clip was read, 3 some clips could not be, 2 usage, 1 it broke.
    """
    from pipelines.evaluation import EvaluationOptions
    from pipelines.evaluation import evaluate as run_evaluation
    from pipelines.evaluation_table import WIDTH, evaluation_table

    err = console.err()

    def said(clips: int) -> None:
        if clips % _SAID_EVERY == 0:
            err.print(f"{clips} clips", markup=False)

    options = EvaluationOptions(target, tuple(by), tuple(metric or ()), paired_by, run, out, sheets)
    try:
        if sheets and out is None:
            raise ConfigError("--sheets: where to? Say --out")
        found = run_evaluation(options, _scorers(scorer or [], clip_model), on_clips=said)
    except KeyboardInterrupt:
        err.print("Stopped. What was measured is kept: the same command goes on.", markup=False)
        raise typer.Exit(Exit.INTERRUPTED) from None
    except RushesError as error:
        fail(error)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        screen = console.out()
        Console(width=min(WIDTH, screen.width), highlight=False, file=sys.stdout).print(evaluation_table(found))
    raise typer.Exit(Exit.INCOMPLETE if found.unreadable else Exit.OK)


def _scorers(names: list[str], clip_model: str | None) -> "list[Scorer]":
    from evaluation.scorers import find_scorer

    made = [find_scorer(name) for name in names]
    if clip_model is not None:
        from actors.weights import StoredWeights
        from models.agreement import load_agreement

        made.append(load_agreement(clip_model, cache=read_config().cache_dir, store=StoredWeights()))
    return made
