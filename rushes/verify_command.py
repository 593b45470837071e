"""`rushes verify`: what a file, or every clip of a run, says of where it comes from, and whether that holds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table

from rushes import console
from rushes.exits import Exit, fail
from schemas.errors import ConfigError, RushesError

if TYPE_CHECKING:
    from trust.verification import FileReport

_WIDTH = 80
_SHOWN = 20


def verify(
    target: Annotated[
        str,
        typer.Argument(
            help="A file, whoever made it; or the folder or s3://bucket/prefix of a run or an endpoint.",
            show_default=False,
        ),
    ],
    trust_anchors: Annotated[
        Path | None,
        typer.Option("--trust-anchors", help="Authorities in PEM: what they vouch for is trusted, not only valid."),
    ] = None,
    watermark: Annotated[
        bool | None,
        typer.Option(
            "--watermark/--no-watermark", help="Look for the watermark; without it, in a file but not in a run's clips."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
) -> None:
    """Check the content credentials (C2PA) of TARGET, and look for its watermark.

    `valid` says that nothing was changed since it was signed, not who signed: for that, give `--trust-anchors`. The
    clips of a run are held against its ledger too.

    Exit codes: 0 all are valid or trusted, 1 some are changed or missing, 3 some are unsigned or expired, 2 usage.
    """
    from pipelines.verification import verify as verified
    from trust.verification import Verdict, worst

    reports: list[FileReport] = []

    def look(report: "FileReport") -> None:
        # Of a large run only what is wrong with it is kept.
        if len(reports) < _SHOWN or report.verdict in (Verdict.MISSING, Verdict.CHANGED):
            reports.append(report)

    try:
        counts = verified(target, _anchors(trust_anchors), look, watermark)
    except RushesError as error:
        fail(error)
    result = worst(list(counts))
    if as_json:
        told = {"verdict": result.value, "counts": {v.value: counts[v] for v in Verdict if counts[v]}}
        print(json.dumps({**told, "files": [report.as_json() for report in reports]}, indent=1))
    else:
        out = console.out()
        shown = Console(width=min(_WIDTH, out.width), highlight=False)
        if sum(counts.values()) == 1:
            shown.print(_one(reports[0]))
        else:
            shown.print(_many(reports))
            shown.print(", ".join(f"{counts[v]} {v.value}" for v in Verdict if counts[v]), markup=False)
    broke, in_part = result in (Verdict.MISSING, Verdict.CHANGED), result in (Verdict.UNSIGNED, Verdict.EXPIRED)
    raise typer.Exit(Exit.BROKE if broke else Exit.INCOMPLETE if in_part else Exit.OK)


def _anchors(path: Path | None) -> str | None:
    try:
        return path.read_text() if path is not None else None
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--trust-anchors: {error}") from error


def _one(report: "FileReport") -> RenderableType:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(report):
        table.add_row(name, value)
    return table


def _facts(report: "FileReport") -> list[tuple[str, str]]:
    facts = [("file", report.where), ("verdict", report.verdict.value), *(("because", why) for why in report.reasons)]
    found, mark = report.credentials, report.watermark
    if mark is not None:
        fits = {True: ", as its fingerprint", False: ", which is another clip's", None: ""}[mark.expected]
        facts.append(("watermark", f"{mark.payload or 'there, but it cannot be read'}{fits}"))
    if found is None or found.state == "unread":
        return [*facts, ("credentials", "none" if found is None else "none that can be read")]
    development = ": a certificate for development, of nobody in particular" if found.is_development else ""
    facts += [
        ("signed by", f"{found.signed_by}{development}"),
        ("made by", found.generator),
        ("made by a model", "yes" if found.is_ai_generated else "it does not say so"),
        ("actions", ", ".join(found.actions)),
    ]
    for one in found.ingredients:
        by = f"signed by {one.signed_by} ({one.state})" if one.state else "without credentials"
        facts.append(("made from", f"{one.title} ({one.format}), {by}"))
    render = found.render or {}
    facts += [(name, str(render[name])) for name in ("variant", "revision", "fingerprint") if name in render]
    return [(name, value) for name, value in facts if value]


def _many(reports: list["FileReport"]) -> RenderableType:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("clip", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("signed by, or why not", overflow="fold")
    for report in sorted(reports, key=lambda r: (r.verdict.rank, r.where)):
        by = (report.credentials.signed_by if report.credentials is not None else "") or "no credentials"
        name = report.where.rpartition("/")[2]
        table.add_row(name, report.verdict.value, "; ".join(report.reasons) or by)
    return table
