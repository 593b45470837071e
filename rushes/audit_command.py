"""`rushes audit`: who asked for what, what was decided, which clip came of it; and whether the log of it is whole."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rushes import console
from rushes.exits import Exit, fail
from schemas.errors import ConfigError, RushesError

if TYPE_CHECKING:
    from schemas.audit import AuditFilter, Head
    from storage.audit_segments import Line
    from trust.audit_chain import AuditReport
    from trust.audit_source import AuditSource

audit = typer.Typer(
    name="audit",
    help="The audit log of an endpoint or a run: who asked for what, what was decided, which clip came of it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
_out = console.out()
_err = console.err()

Target = Annotated[
    str | None,
    typer.Argument(
        help="A run's folder or s3://bucket/prefix; an endpoint's folder, or its database's URL. Without it, the "
        "endpoint that the options name.",
        show_default=False,
    ),
]
TaskId = Annotated[
    str, typer.Argument(help="A task's id; of a run, its fingerprint; or key:ID, batch:ID …", show_default=False)
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="The endpoint's TOML file.")]
Out = Annotated[str | None, typer.Option("--out", help="As given to `rushes serve`: the anchors are there.")]
Database = Annotated[str | None, typer.Option("--database", help="As given to `rushes serve`: a SQLAlchemy URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


@audit.command()
def verify(
    target: Target = None,
    head: Annotated[
        list[str] | None,
        typer.Option("--head", help="LOG:POSITION:HASH, as `rushes audit head` printed it once; may be repeated."),
    ] = None,
    trust_anchors: Annotated[
        Path | None,
        typer.Option("--trust-anchors", help="Authorities in PEM: one of them must vouch for whoever signed anchors."),
    ] = None,
    config: ConfigFile = None,
    out: Out = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Read all of a log, or a file that `rushes audit export` wrote, and say whether it is as it was written.

    Found and named by their place: records that were changed, removed, inserted or moved; an end that was cut off, or
    a log that was made anew, as far as an **anchor** tells of it: signed heads in the folder of the endpoint or run,
    and what you noted yourself (`--head`). Whoever can write to the log *and* to all of its anchors is found by
    `--head` alone. The clips of a run are held against its ledger too.

    Exit codes: 0 it is whole, 1 it is not, 2 usage.
    """
    from schemas.audit import Head
    from trust.audit_anchor import check_authorities

    try:
        heads = [Head.read(text) for text in head or ()]
    except ValueError as error:
        fail(ConfigError(f"--head: {error}"))
    try:
        authorities = check_authorities(trust_anchors.read_text() if trust_anchors is not None else None)
    except (OSError, UnicodeError) as error:
        fail(ConfigError(f"--trust-anchors: {error}"))
    except RushesError as error:
        fail(error)
    with _source(target, config, out, database) as source:
        report = source.verify(heads, authorities)
    if as_json:
        print(json.dumps(_as_json(report), indent=1))
    else:
        _say(report)
    raise typer.Exit(Exit.OK if report.is_whole else Exit.BROKE)


@audit.command()
def show(
    task_id: TaskId,
    target: Target = None,
    config: ConfigFile = None,
    out: Out = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """All that the log says of one task, from its acceptance to its clip."""
    from schemas.audit import AuditFilter
    from storage.audit_segments import line_of

    with _source(target, config, out, database) as source:
        lines = sorted(_lines(source, AuditFilter(subject=_subject(task_id))), key=lambda line: line.record.entry.at)
    if not lines:
        fail(ConfigError(f"{task_id}: no record tells of such a task"))
    if as_json:
        print(json.dumps([json.loads(line_of(line)) for line in lines], indent=1, ensure_ascii=False))
        return
    for line in lines:
        _out.print(_one(line))


@audit.command()
def export(
    target: Target = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="A file: .jsonl, .csv or .parquet. Without it, JSON lines on stdout.", dir_okay=False
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="From this instant on: 2026-11-26, or with a time.")
    ] = None,
    before: Annotated[str | None, typer.Option("--before", help="Before this instant.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Of this API key alone: its id.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Of this task alone.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Of this kind alone, such as task.refused.")] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="Whose prompt is this very text, also where only its hash is kept."),
    ] = None,
    negative_prompt: Annotated[
        str, typer.Option("--negative-prompt", help="With --prompt: the negative prompt that stood beside it.")
    ] = "",
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave out the words of prompts and the salts of their hashes.")
    ] = False,
    config: ConfigFile = None,
    out: Out = None,
    database: Database = None,
) -> None:
    """Write records to a file, or as JSON lines to stdout.

    JSON lines hold what was hashed: `rushes audit verify FILE` checks them again, of a part of the log as far as its
    records follow each other. CSV and Parquet are tables with one row a record.
    """
    from dataclasses import replace

    from schemas.audit import Action, AuditFilter
    from storage.audit_export import WRITERS
    from trust.redaction import matches, words_of

    kind = "jsonl" if to is None else to.suffix.removeprefix(".").lower()
    if kind not in WRITERS:
        fail(ConfigError(f"--to: {to}: unknown format; available: {', '.join(f'.{name}' for name in WRITERS)}"))
    if action is not None and action not in set(Action):
        fail(ConfigError(f"--action: unknown {action!r}; available: {', '.join(Action)}"))
    of = AuditFilter(
        key_id=key,
        subject=None if task is None else _subject(task),
        action=action,
        since=_instant("--since", since),
        before=_instant("--before", before),
    )
    words = None if prompt is None else words_of(prompt, negative_prompt)

    def wanted(source: "AuditSource") -> "Iterator[Line]":
        for line in _lines(source, of):
            if words is None or matches(line.record.entry.prompt_sha256, line.prompt, words):
                yield replace(line, prompt=None) if redact else line

    with _source(target, config, out, database) as source, _file(to) as file:
        count = WRITERS[kind](wanted(source), file)
    _err.print(f"{count} records{f' in {to}' if to is not None else ''}", markup=False)


@audit.command("head")
def show_head(
    target: Target = None,
    config: ConfigFile = None,
    out: Out = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Print how far the log goes, as LOG:POSITION:HASH.

    Note it where nobody who can change the log can change it: `rushes audit verify --head` finds then whatever is done
    to what was written until now.
    """
    with _source(target, config, out, database) as source:
        heads = source.heads()
    if as_json:
        print(json.dumps([str(one) for one in heads]))
    else:
        print("\n".join(map(str, heads)))


@audit.command()
def erase(
    task_id: TaskId,
    target: Target = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigFile = None,
    out: Out = None,
    database: Database = None,
) -> None:
    """Erase the prompt of one task from the log, for good.

    Its words go, and the salt of its hash, without which the hash says nothing. The chain stays whole, and tells who
    erased it and when.

    Only the log's copy: delete the task, or the run's clips and tables, for the others.
    """
    from trust.actor import os_user

    if not yes and not typer.confirm(f"Erase the prompt of {task_id} from the audit log?", err=True):
        raise typer.Exit(Exit.OK)
    with _source(target, config, out, database) as source:
        count = source.erase(_subject(task_id), time(), os_user())
    if not count:
        fail(ConfigError(f"{task_id}: there is no prompt of such a task in the log"))
    _err.print(f"erased from {count} records", markup=False)


# -- where it is -------------------------------------------------------------------------------------------------------


@contextmanager
def _source(target: str | None, config: Path | None, out: str | None, database: str | None) -> Iterator["AuditSource"]:
    """The log that was meant; errors end the command."""
    try:
        if target is not None and target.endswith(".jsonl") and Path(target).is_file():
            from pipelines.audit import ExportedLog

            yield ExportedLog(Path(target))
            return
        if target is not None and not _is_database(target):
            from storage.store import open_store

            if _has_database(target):
                out = target
            else:
                from pipelines.audit import RunAuditLog

                yield RunAuditLog(open_store(target))
                return
        elif target is not None:
            database = target
        yield from _endpoint(config, out, database)
    except RushesError as error:
        fail(error)


def _endpoint(config: Path | None, out: str | None, database: str | None) -> Iterator["AuditSource"]:
    from serve.audit_log import EndpointAuditLog
    from serve.config import read_serve_config
    from serve.store.engine import open_store
    from storage.store import open_store as open_objects

    settings = read_serve_config(config, out=out, database=database)
    # Of a database alone nobody said where its clips go.
    is_told = database is None or config is not None or out is not None
    objects = open_objects(settings.out) if is_told else None
    path = settings.database_url.removeprefix("sqlite:///")
    if path != settings.database_url and not Path(path).is_file():
        raise ConfigError(f"{path}: no such database; give TARGET, --config, --out or --database")
    store = open_store(settings.database_url)
    try:
        yield EndpointAuditLog(store, objects)
    finally:
        store.close()


def _is_database(target: str) -> bool:
    return target.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql", "postgres")


def _has_database(target: str) -> bool:
    return (Path(target.removeprefix("file://")) / "tasks.sqlite").is_file()


@contextmanager
def _file(to: Path | None) -> Iterator[BinaryIO]:
    if to is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    try:
        with to.open("wb") as file:
            yield file
    except OSError as error:
        fail(ConfigError(f"--to: {error}"))


def _lines(source: "AuditSource", of: "AuditFilter") -> "Iterator[Line]":
    from storage.audit_segments import Line

    return (Line(log, record, prompt) for log, record, prompt in source.records(of))


def _subject(said: str) -> str:
    """`task:ID` of a task's id; what has its kind before it, such as `key:ID` or `batch:ID`, as it is."""
    return said if ":" in said else f"task:{said}"


def _instant(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        fail(ConfigError(f"{option}: {text!r} is no instant; such as 2026-11-26 or 2026-11-26T08:30:00+01:00"))
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


# -- showing -----------------------------------------------------------------------------------------------------------


def _say(report: "AuditReport") -> None:
    chains = f" in {len(report.chains)} chains" if len(report.chains) > 1 else ""
    what = "whole" if report.is_whole else "broken"
    _out.print(f"{what}: {report.records} records{chains}", markup=False)
    for fault in report.faults:
        _out.print(f"  {fault}", markup=False, soft_wrap=True)
    if len(report.chains) == 1:
        _out.print(f"head: {report.chains[0].head}", markup=False, soft_wrap=True)
    if report.anchors:
        reach = max((chain.anchored for chain in report.chains), default=0)
        by = ", ".join(report.signers)
        _out.print(f"anchors: {report.anchors}, signed by {by}; up to record {reach}", markup=False, soft_wrap=True)
    else:
        _out.print("anchors: none: that the end was cut off, or all made anew, would not be seen", markup=False)
    if report.waiting:
        _out.print(f"{report.waiting} entries wait to be chained", markup=False)
    for note in report.notes:
        _out.print(note, markup=False, soft_wrap=True)


def _as_json(report: "AuditReport") -> dict[str, object]:
    def told(head: "Head") -> dict[str, object]:
        return {"position": head.position, "hash": head.hash}

    return {
        "whole": report.is_whole,
        "records": report.records,
        "waiting": report.waiting,
        "chains": [
            {
                "log": one.head.log,
                "records": one.records,
                "floor": told(one.floor),
                "head": told(one.head),
                "anchored": one.anchored,
            }
            for one in report.chains
        ],
        "anchors": report.anchors,
        "signers": list(report.signers),
        "faults": [
            {"fault": one.fault.value, "position": one.position, "log": one.log, "said": one.said}
            for one in report.faults
        ],
        "notes": list(report.notes),
    }


def _one(line: "Line") -> Table:
    from storage.audit_export import row_of

    table = Table(show_header=False, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    row = row_of(line)
    table.add_row("record", f"{row['position']} of {line.log[:16]}")
    for name in ("at", "action", "actor", "decision", "reason", "clip_uri", "clip_sha256", "moderation"):
        if row[name]:
            table.add_row(name, str(row[name]))
    for name in ("prompt", "negative_prompt"):
        if row[name]:
            table.add_row(name, str(row[name]))
    if row["prompt"] is None and row["prompt_sha256"]:
        kept = "its words are not kept" if line.prompt is not None else "erased, or left out"
        table.add_row("prompt", f"SHA-256 {row['prompt_sha256'][:16]}…, {kept}")
    for name, value in sorted(line.record.entry.details.items()):
        table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    return table
