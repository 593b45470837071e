"""Find a manifest's files, cut them into chunks, and read a chunk as columns.

A chunk is what one planner task reads: a byte range of a JSONL file that starts and ends at line ends, a row group
of a Parquet file, or a whole CSV file (a quoted field may span lines, so it cannot be cut without reading it).
Every row keeps its file and its line, so that whatever is wrong with it can be pointed at.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq
from pydantic_core import from_json

from schemas.errors import ConfigError, ObjectMissingError
from schemas.request import Request
from storage.uris import FoundFile, list_uris, open_object

CHUNK_BYTES = 8 * 1024 * 1024
_FIELDS = frozenset(Request.model_fields)
_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Chunk:
    """A part of one manifest file. `start`/`stop` are bytes (JSONL), a row group and the one after it (Parquet)."""

    index: int
    uri: str
    format: str
    start: int
    stop: int
    first_line: int


@dataclass
class Rows:
    """Rows as columns: `columns[name][i]` is row i's value, None where the row does not give it.

    `broken` holds the rows that could not be read at all, by position: (position, field, reason).
    """

    uri: str
    lines: list[int] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    broken: list[tuple[int, str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)

    def cut(self, most: int) -> None:
        """Keep the first `most` rows."""
        self.lines = self.lines[:most]
        self.columns = {name: values[:most] for name, values in self.columns.items()}
        self.broken = [b for b in self.broken if b[0] < most]


def find_chunks(manifest: str, limit: int | None = None, chunk_bytes: int = CHUNK_BYTES) -> list[Chunk]:
    """The chunks of a file, a folder or a glob (local or s3://), in file order.

    Raises ConfigError when nothing is there or a file's format is unknown. With `limit`, stops at the chunk that
    holds the last wanted row where that is known without reading (JSONL and Parquet).
    """
    chunks: list[Chunk] = []
    rows_seen = 0
    try:
        files = list_uris(manifest, tuple(_FORMATS))
    except ObjectMissingError as error:
        raise ConfigError(str(error)) from error
    for file in files:
        kind = _FORMATS.get(file.suffix)
        if kind is None:
            raise ConfigError(f"{file.uri}: unknown manifest format {file.suffix!r}; available: {', '.join(_FORMATS)}")
        for start, stop, first_line, rows in _cuts(file, kind, chunk_bytes):
            chunks.append(Chunk(len(chunks), file.uri, kind, start, stop, first_line))
            rows_seen += rows
            if limit is not None and rows_seen >= limit and kind != "csv":
                return chunks
    if not chunks:
        raise ConfigError(f"{manifest}: the manifest is empty")
    return chunks


def _cuts(file: FoundFile, kind: str, chunk_bytes: int) -> Iterator[tuple[int, int, int, int]]:
    """(start, stop, first line, rows) of each chunk of one file."""
    if kind == "csv":
        yield 0, file.size_bytes, 2, 0
        return
    with open_object(file.uri) as source:
        if kind == "parquet":
            metadata = pq.ParquetFile(source).metadata
            line = 1
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                yield group, group + 1, line, rows
                line += rows
            return
        start = stop = 0
        first_line = line = 1
        while block := source.read(chunk_bytes):
            # Cut behind the last line end of the block; without one, the line is longer than a chunk: read on.
            end = block.rfind(b"\n")
            if end < 0:
                stop += len(block)
                continue
            lines = block.count(b"\n")
            cut = stop + end + 1
            yield start, cut, first_line, line + lines - first_line
            stop += len(block)
            line += lines
            first_line, start = line, cut
        if start < stop:
            yield start, stop, first_line, 1


def read_chunk(chunk: Chunk) -> Rows:
    """Read one chunk. Unknown columns go to `metadata`; a line that cannot be read becomes a `broken` row."""
    if chunk.format == "jsonl":
        return _read_jsonl(chunk)
    if chunk.format == "csv":
        return _read_csv(chunk)
    return _read_parquet(chunk)


def _read_jsonl(chunk: Chunk) -> Rows:
    with open_object(chunk.uri) as source:
        source.seek(chunk.start)
        data = source.read(chunk.stop - chunk.start)
    rows = Rows(chunk.uri)
    parsed: list[dict[str, Any]] = []
    for offset, raw in enumerate(data.split(b"\n")):
        if not raw.strip():
            continue
        line = chunk.first_line + offset
        try:
            value = from_json(raw)
            if not isinstance(value, dict):
                raise ValueError(f"not a row: a line must be a JSON object, not {type(value).__name__}")
        except ValueError as error:
            rows.broken.append((len(parsed), "", str(error).replace(" at line 1 column ", " at column ")))
            value = {}
        parsed.append(value)
        rows.lines.append(line)
    _to_columns(rows, parsed)
    return rows


def _read_csv(chunk: Chunk) -> Rows:
    rows = Rows(chunk.uri)
    parsed: list[dict[str, Any]] = []
    with open_object(chunk.uri) as source:
        # utf-8-sig: spreadsheets write a byte order mark, which would become part of the first column's name.
        reader = csv.DictReader(io.TextIOWrapper(source, "utf-8-sig", errors="replace", newline=""), restval=None)
        line = 2
        try:
            for record in reader:
                extra = record.pop(None, None)
                if extra:
                    rows.broken.append((len(parsed), "", f"{len(extra)} more fields than the header has"))
                # In CSV an empty cell is a missing value, and a metadata cell may hold JSON.
                parsed.append({k: v for k, v in record.items() if v is not None and v != ""})
                rows.lines.append(line)
                line = reader.line_num + 1
        except csv.Error as error:
            rows.broken.append((len(parsed), "", f"not CSV: {error}"))
            parsed.append({})
            rows.lines.append(line)
    for record in parsed:
        if isinstance(text := record.get("metadata"), str):
            record["metadata"] = _json_or_text(text)
    _to_columns(rows, parsed)
    return rows


def _read_parquet(chunk: Chunk) -> Rows:
    with open_object(chunk.uri) as source:
        table = pq.ParquetFile(source).read_row_group(chunk.start)
    rows = Rows(chunk.uri, lines=list(range(chunk.first_line, chunk.first_line + table.num_rows)))
    extra: dict[str, list[Any]] = {}
    for name in table.column_names:
        (rows.columns if name in _FIELDS else extra)[name] = table.column(name).to_pylist()
    if "metadata" in rows.columns:
        rows.columns["metadata"] = [_json_or_text(v) if isinstance(v, str) else v for v in rows.columns["metadata"]]
    if extra:
        own = rows.columns.get("metadata", [None] * table.num_rows)
        names = tuple(extra)
        rows.columns["metadata"] = [
            {**dict(zip(names, values, strict=True)), **(mine if isinstance(mine, dict) else {})}
            for mine, *values in zip(own, *extra.values(), strict=True)
        ]
    return rows


def _to_columns(rows: Rows, parsed: list[dict[str, Any]]) -> None:
    names = set().union(*parsed) if parsed else set()
    for name in names & _FIELDS:
        rows.columns[name] = [row.get(name) for row in parsed]
    extra = names - _FIELDS
    if not extra:
        return
    metadata = rows.columns.setdefault("metadata", [None] * len(parsed))
    for i, row in enumerate(parsed):
        more = {name: row[name] for name in extra & row.keys()}
        if more:
            own = metadata[i]
            metadata[i] = {**more, **own} if isinstance(own, dict) else more if own is None else own


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"text": text}
