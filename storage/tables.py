"""The tables a run leaves behind: one row per manifest row (results), one per task (records).

Both are Parquet with plain columns (strings, numbers, UTC text), so that pandas, DuckDB and Ray Data read them alike.
"""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from schemas.clip import Clip, Record, Status, Timings
from schemas.moderation import Finding, Moderation
from storage.store import ObjectStore

_FINDINGS = TypeAdapter(tuple[Finding, ...])
PARQUET_TYPE = "application/vnd.apache.parquet"
# Small enough that finding one fingerprint in a million reads little, large enough to compress.
_ROWS_A_GROUP = 16_384

_CLIP_FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("uri", pa.string()),
    ("poster_uri", pa.string()),
    ("sha256", pa.string()),
    ("clip_bytes", pa.int64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("frames", pa.int32()),
    ("fps", pa.float64()),
    ("audio", pa.bool_()),
    ("unsigned_sha256", pa.string()),
    ("signed_by", pa.string()),
)
_TIMING_FIELDS = tuple(
    (name, pa.float64()) for name in ("queue_s", "load_s", "render_s", "finish_s", "encode_s", "store_s")
)

RESULT_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("row", pa.int64()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("id", pa.string()),
        ("status", pa.string()),
        *_CLIP_FIELDS,
        ("variant", pa.string()),
        ("mode", pa.string()),
        ("revision", pa.string()),
        ("seed", pa.int64()),
        ("sample", pa.int32()),
        ("prompt", pa.string()),
        ("prompts", pa.string()),  # JSON: several, each with its instant
        ("inputs", pa.string()),
        ("motion", pa.string()),  # JSON: camera, paths and edit
        ("loras", pa.string()),  # JSON: the row's own
        ("finish", pa.string()),  # JSON: what was done to the clip
        ("attempts", pa.int32()),
        *_TIMING_FIELDS,
        ("quoted_gpu_s", pa.float64()),
        ("quoted_usd", pa.float64()),
        ("quoted_finish_usd", pa.float64()),
        ("billed_gpu_s", pa.float64()),
        ("billed_usd", pa.float64()),
        ("billed_finish_usd", pa.float64()),
        ("error_class", pa.string()),
        ("error", pa.string()),
        ("failure_code", pa.string()),
        ("moderation", pa.string()),  # JSON: what was found
        ("fingerprint", pa.string()),
        ("metadata", pa.string()),  # JSON: what the manifest had beside the known columns
    ]
)

RECORD_SCHEMA = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("status", pa.string()),
        ("variant", pa.string()),
        ("revision", pa.string()),
        ("seed", pa.int64()),
        ("attempts", pa.int32()),
        *_CLIP_FIELDS,  # all null when there is no clip
        *_TIMING_FIELDS,
        ("billed_gpu_s", pa.float64()),
        ("billed_usd", pa.float64()),
        ("billed_finish_usd", pa.float64()),
        ("error_class", pa.string()),
        ("error", pa.string()),
        ("failure_code", pa.string()),
        ("moderation", pa.string()),
        ("refused_by", pa.string()),
        ("quarantined", pa.bool_()),
        ("finished_at", pa.string()),
    ]
)

_CLIP_NAMES = tuple(name for name, _ in _CLIP_FIELDS)
_TIMING_NAMES = tuple(name for name, _ in _TIMING_FIELDS)
_OWN_NAMES = tuple(name for name in RECORD_SCHEMA.names if name not in (*_CLIP_NAMES, *_TIMING_NAMES))


def records_to_table(records: Iterable[Record]) -> pa.Table:
    """Records as columns, in order."""
    listed = list(records)
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in listed] for name in _OWN_NAMES}
    columns["status"] = [record.status.value for record in listed]
    columns["moderation"] = [findings_json(record.moderation) for record in listed]
    for name in _CLIP_NAMES:
        columns[name] = [getattr(record.clip, name) if record.clip else None for record in listed]
    for name in _TIMING_NAMES:
        columns[name] = [getattr(record.timings, name) for record in listed]
    return pa.table({name: columns[name] for name in RECORD_SCHEMA.names}, schema=RECORD_SCHEMA)


def table_to_records(table: pa.Table) -> list[Record]:
    """The inverse of `records_to_table`. The table's columns are RECORD_SCHEMA's."""
    columns = {name: table.column(name).to_pylist() for name in RECORD_SCHEMA.names}
    records = []
    for i in range(table.num_rows):
        own = {name: columns[name][i] for name in _OWN_NAMES}
        own["status"] = Status(own["status"])
        own["moderation"] = findings_of(own["moderation"])
        clip = None
        if columns["uri"][i] is not None:
            clip = Clip(**{name: columns[name][i] for name in _CLIP_NAMES})
        # Of what an earlier Rushes wrote, later columns are null.
        own["billed_finish_usd"] = own["billed_finish_usd"] or 0.0
        timings = Timings(**{name: columns[name][i] or 0.0 for name in _TIMING_NAMES})
        records.append(Record(**own, clip=clip, timings=timings))
    return records


def findings_json(moderation: Moderation) -> str | None:
    """What was found as it stands in a column: a JSON list; None where there is nothing."""
    return _FINDINGS.dump_json(moderation.findings).decode() if moderation.findings else None


def findings_of(text: str | None) -> Moderation:
    """The inverse of `findings_json`."""
    return Moderation(findings=_FINDINGS.validate_json(text)) if text else Moderation()


def completed(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The columns of RECORD_SCHEMA; those that the writer of an earlier Rushes did not know are null."""
    known = set(table.column_names)
    arrays = [
        table.column(name) if name in known else pa.nulls(table.num_rows, RECORD_SCHEMA.field(name).type)
        for name in columns
    ]
    return pa.table(arrays, schema=pa.schema([RECORD_SCHEMA.field(name) for name in columns]))


def write_table(store: ObjectStore, key: str, table: pa.Table) -> None:
    """Store the table as Parquet (zstd), whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=_ROWS_A_GROUP)
    store.put(key, buffer.getvalue(), PARQUET_TYPE)


def read_table(store: ObjectStore, key: str, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """The Parquet table at the key; ObjectMissingError when there is none.

    With `columns` or `filters` (as pyarrow takes them) only the parts that are needed are fetched.
    """
    if columns is None and filters is None:
        return pq.read_table(io.BytesIO(store.get(key)))
    with store.open(key) as file:
        return pq.read_table(file, columns=columns, filters=filters)
