"""Records of the audit log as files: JSON lines, which can be verified again, CSV and Parquet for tables."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.audit import Prompt
from storage.audit_segments import Line, line_of

AUDIT_SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("ms", "UTC")),
        ("actor", pa.string()),
        ("action", pa.string()),
        ("subject", pa.string()),
        ("key_id", pa.string()),
        ("decision", pa.string()),
        ("reason", pa.string()),
        ("clip_sha256", pa.string()),
        ("clip_uri", pa.string()),
        ("moderation", pa.string()),
        ("prompt_sha256", pa.string()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("details", pa.string()),
        ("log", pa.string()),
        ("position", pa.int64()),
        ("previous", pa.string()),
        ("hash", pa.string()),
    ]
)
_ROWS_AT_ONCE = 10_000


def write_jsonl(lines: Iterable[Line], file: BinaryIO) -> int:
    """As segments have them; how many."""
    count = 0
    for line in lines:
        file.write(f"{line_of(line)}\n".encode())
        count += 1
    return count


def write_csv(lines: Iterable[Line], file: BinaryIO) -> int:
    """With a header. Cells that a spreadsheet would take for a formula begin with an apostrophe."""
    count = 0
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, AUDIT_SCHEMA.names, extrasaction="ignore")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _cell(value) for name, value in row_of(line).items()})
        count += 1
    text.detach()
    return count


def write_parquet(lines: Iterable[Line], file: BinaryIO) -> int:
    """In bounded memory, whatever their number."""
    count = 0
    left: Iterator[Line] = iter(lines)
    with pq.ParquetWriter(file, AUDIT_SCHEMA, compression="zstd") as writer:
        while some := [row_of(line) for line in islice(left, _ROWS_AT_ONCE)]:
            texts = pa.schema([field if field.name != "at" else field.with_type(pa.string()) for field in AUDIT_SCHEMA])
            table = pa.Table.from_pylist(some, schema=texts)
            at = table.column("at").cast(AUDIT_SCHEMA.field("at").type)
            writer.write_table(table.set_column(0, AUDIT_SCHEMA.field("at"), at))
            count += len(some)
    return count


WRITERS: Mapping[str, Callable[[Iterable[Line], BinaryIO], int]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}


def row_of(line: Line) -> dict[str, Any]:
    """A record as the columns of AUDIT_SCHEMA; of an entry that this version does not know, what it does know."""
    entry: dict[str, Any] = json.loads(line.record.text)
    clip: dict[str, Any] = entry.get("clip") or {}
    known = {name: entry.get(name, "") for name in ("at", "actor", "action", "subject", "key_id", "decision", "reason")}
    return {
        **known,
        "clip_sha256": clip.get("sha256"),
        "clip_uri": clip.get("uri"),
        "moderation": _json(entry.get("moderation")),
        "prompt_sha256": entry.get("prompt_sha256"),
        **words_in(line.prompt),
        "details": _json(entry.get("details")),
        "log": line.log,
        "position": line.record.position,
        "previous": line.record.previous,
        "hash": line.record.hash,
    }


def words_in(prompt: Prompt | None) -> dict[str, str | None]:
    """What lies beside a record as two texts; None where nothing is kept."""
    nothing: dict[str, str | None] = {"prompt": None, "negative_prompt": None}
    if prompt is None or prompt.words is None:
        return nothing
    try:
        told: Any = json.loads(prompt.words)
        return {name: told.get(name) for name in nothing}
    except (ValueError, AttributeError):  # not as it was written: `verify` says so
        return {**nothing, "prompt": prompt.words}


def _json(value: object) -> str | None:
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else None


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
