"""Parquet: row groups, in parts that fit memory. A group that cannot be read is rows that cannot be read."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.chunk import Chunk, Cut
from pipelines.manifest_file import ManifestFile
from pipelines.rows import ASKED_BY, FIELDS, Rows, field_of
from schemas.errors import ConfigError, first_line
from storage.uris import open_object

_MOST_ROWS = 100_000
_MOST_BYTES = 64 * 1024 * 1024  # as Arrow has them: rows may hold images
_MEDIA = ("image", "video")
_UNREADABLE = (pa.ArrowException, OSError, ValueError, NotImplementedError)


def parquet_cuts(file: ManifestFile, limit: int | None) -> list[Cut]:
    """The file's row groups, large ones in parts, up to the one that holds row `limit`.

    Raises ConfigError for a file that is no Parquet, one column twice, and columns that are none of ours.
    """
    with open_object(file.uri) as source:
        try:
            found = pq.ParquetFile(source)
            metadata, names = found.metadata, found.schema_arrow.names
        except _UNREADABLE as error:
            raise ConfigError(f"{file.uri}: not a Parquet file that can be read: {first_line(error)}") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{file.uri}: the column {twice[0]!r} is there twice")
    if not {field_of(name) for name in names} & ASKED_BY:
        raise ConfigError(
            f"{file.uri}: no column prompt, template, image or video (got {', '.join(names)[:80]!r}); "
            f"available: {', '.join(sorted(FIELDS))}"
        )
    cuts: list[Cut] = []
    line = 1
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        row_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
        most = max(1, min(_MOST_ROWS, _MOST_BYTES // row_bytes))
        for start in range(0, group.num_rows, most):
            stop = min(start + most, group.num_rows)
            cuts.append(Cut(start, stop, line, stop - start, group=number))
            line += stop - start
            if limit is not None and line > limit:
                return cuts
    return cuts


def read_parquet(chunk: Chunk) -> Rows:
    """The rows of a part. One whose values cannot be read is broken, and so are all when the group cannot be."""
    cut = chunk.cut
    rows = Rows(chunk.file.uri, lines=list(range(cut.first_line, cut.first_line + cut.rows)))
    try:
        table = _part(chunk)
    except _UNREADABLE as error:
        why = f"row group {cut.group} cannot be read: {first_line(error)}"
        rows.broken = [(position, "", why) for position in range(cut.rows)]
        return rows
    known: dict[str, list[Any]] = {}
    unknown: dict[str, list[Any]] = {}
    for name in table.column_names:
        own = field_of(name)
        column = table.column(name)
        if own is None:
            unknown[name] = _values(column, name, rows)
        elif own in _MEDIA:
            known[name] = _values(column, own, rows)
        else:
            known[name] = _plain_values(column, own, rows)
    rows.take(known)
    rows.take_unknown(unknown)
    return rows


def _part(chunk: Chunk) -> pa.Table:
    """Rows `start` to `stop` of a row group, of which only a part is in memory at a time."""
    cut = chunk.cut
    with open_object(chunk.file.uri) as source:
        found = pq.ParquetFile(source)
        if cut.start == 0 and cut.stop == found.metadata.row_group(cut.group).num_rows:
            return found.read_row_group(cut.group)
        taken: list[pa.RecordBatch] = []
        at = 0
        batches: Iterator[pa.RecordBatch] = found.iter_batches(batch_size=cut.rows, row_groups=[cut.group])
        for batch in batches:
            first, last = max(cut.start - at, 0), min(cut.stop - at, batch.num_rows)
            if first < last:
                taken.append(batch.slice(first, last - first))
            at += batch.num_rows
            if at >= cut.stop:
                break
        return pa.Table.from_batches(taken, schema=taken[0].schema if taken else found.schema_arrow)


def _plain_values(column: pa.ChunkedArray, name: str, rows: Rows) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        # Tools that know no logical types write texts so.
        return [_decoded(value, i, name, rows) for i, value in enumerate(column.to_pylist())]
    values = _values(column, name, rows)
    if pa.types.is_floating(kind):
        return [None if value is None or value != value else value for value in values]  # pandas' NaN is a gap
    return values


def _values(column: pa.ChunkedArray, name: str, rows: Rows) -> list[Any]:
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        return list(column.to_pylist())
    except (*_UNREADABLE, KeyError):  # Arrow does not look into texts when it reads them
        values: list[Any] = []
        for position, scalar in enumerate(column):
            try:
                values.append(scalar.as_py())
            except (*_UNREADABLE, KeyError) as error:
                rows.broken.append((position, name, f"cannot be read: {first_line(error)}"))
                values.append(None)
        return values


def _decoded(value: bytes | None, position: int, name: str, rows: Rows) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        rows.broken.append((position, name, f"not UTF-8: {error.reason}"))
        return None
