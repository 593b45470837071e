"""Of many records of one task, the one that counts.

A success beats any other outcome, then the later `finished_at` wins. A task once quarantined stays so until it
succeeds. A record that is PENDING revokes what is older than it: the clip was found to be missing or damaged.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from schemas.clip import Status
from storage.tables import RECORD_SCHEMA, completed

# What deciding needs, whichever other columns there are.
DECIDING = ("fingerprint", "status", "quarantined", "finished_at")
_ROWS_AT_ONCE = 50_000


class Cursor(Protocol):
    """Records sorted by fingerprint, taken from the front."""

    @property
    def rows(self) -> int:
        """How many there are in all."""

    def take(self, below: str) -> pa.Table:
        """The records that are left whose fingerprint is less than `below`."""


def latest(
    tables: Iterable[pa.Table], columns: Sequence[str] = RECORD_SCHEMA.names, *, for_folding: bool = False
) -> pa.Table:
    """One row per fingerprint, sorted. `columns` must include DECIDING.

    What is written `for_folding` also keeps the revocations that a later failure hides: elsewhere there may be an older
    success, which they are still needed against.
    """
    empty = pa.schema([RECORD_SCHEMA.field(name) for name in columns]).empty_table()
    table = _without_revoked(pa.concat_tables([empty, *(completed(t, columns) for t in tables)]))
    if table.num_rows == 0:
        return table
    order = pa.table(
        {
            "fingerprint": table.column("fingerprint"),
            "failed": pc.not_equal(table.column("status"), Status.SUCCEEDED.value).cast(pa.int8()),
            "finished_at": _instants(table.column("finished_at")),
        }
    )
    by = [("fingerprint", "ascending"), ("failed", "ascending"), ("finished_at", "descending")]
    indices = pc.sort_indices(order, sort_keys=by)
    fingerprints = table.column("fingerprint").take(indices).combine_chunks()
    if isinstance(fingerprints, pa.ChunkedArray):  # combine_chunks may keep several where one would pass 2 GiB
        fingerprints = pa.concat_arrays(fingerprints.chunks)
    first = pa.concat_arrays([pa.array([True]), pc.not_equal(fingerprints[1:], fingerprints[:-1])])
    found = table.take(indices.filter(first)).combine_chunks()
    # Given up stays given up until it succeeds, so that keys alone can tell (see `Ledger.done`).
    given_up = pc.is_in(found.column("fingerprint"), table.filter(table.column("quarantined")).column("fingerprint"))
    given_up = pc.and_(given_up, pc.not_equal(found.column("status"), Status.SUCCEEDED.value))
    at = found.schema.get_field_index("quarantined")
    found = found.set_column(at, RECORD_SCHEMA.field("quarantined"), given_up)
    return _with_revocations(found, table) if for_folding else found


def merged(
    cursors: Sequence[Cursor], columns: Sequence[str] = RECORD_SCHEMA.names, *, for_folding: bool = False
) -> Iterator[pa.Table]:
    """What counts of all cursors together, range by range: only a range is ever in memory."""
    rows = sum(cursor.rows for cursor in cursors)
    for _, below in fingerprint_ranges(-(-rows // _ROWS_AT_ONCE) if rows else 0):
        table = latest((cursor.take(below) for cursor in cursors), columns, for_folding=for_folding)
        if table.num_rows:
            yield table


def fingerprint_ranges(parts: int) -> list[tuple[str, str]]:
    """`parts` ranges (least, below) that share all fingerprints evenly: they are hashes."""
    edges = ["", *(f"{i * 2**32 // parts:08x}" for i in range(1, parts)), "g"]  # 'g' sorts behind every hex digit
    return [(edges[i], edges[i + 1]) for i in range(parts)]


class TableCursor:
    """Records in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._left = table.sort_by("fingerprint")
        self.rows = table.num_rows

    def take(self, below: str) -> pa.Table:
        taken, self._left = split(self._left, below)
        return taken


def split(table: pa.Table, below: str) -> tuple[pa.Table, pa.Table]:
    """A sorted table's rows before `below`, and the others."""
    column = table.column("fingerprint")
    low, high = 0, table.num_rows
    while low < high:
        middle = (low + high) // 2
        if column[middle].as_py() < below:
            low = middle + 1
        else:
            high = middle
    return table.slice(0, low), table.slice(low)


def _with_revocations(found: pa.Table, table: pa.Table) -> pa.Table:
    revocations = table.filter(pc.equal(table.column("status"), Status.PENDING.value))
    if not revocations.num_rows:
        return found
    hiding = found.filter(pc.is_in(found.column("status"), pa.array([Status.FAILED.value, Status.CANCELLED.value])))
    hidden = revocations.filter(pc.is_in(revocations.column("fingerprint"), hiding.column("fingerprint")))
    return pa.concat_tables([found, hidden]).sort_by("fingerprint")


def _without_revoked(table: pa.Table) -> pa.Table:
    """Drop what a revocation of the same task is later than."""
    revoking = pc.equal(table.column("status"), Status.PENDING.value)
    if not pc.any(revoking).as_py():
        return table
    at = _instants(table.column("finished_at"))
    kept = table.set_column(table.schema.get_field_index("finished_at"), "finished_at", at)
    since = kept.filter(revoking).group_by("fingerprint").aggregate([("finished_at", "max")])
    when = dict(zip(since.column("fingerprint").to_pylist(), since.column("finished_at_max").to_pylist(), strict=True))
    suspects = pc.is_in(table.column("fingerprint"), since.column("fingerprint"))
    keep = [
        not suspect or pending or when[fingerprint] is None or (instant is not None and instant > when[fingerprint])
        for suspect, pending, fingerprint, instant in zip(
            suspects.to_pylist(),
            revoking.to_pylist(),
            table.column("fingerprint").to_pylist(),
            at.to_pylist(),
            strict=True,
        )
    ]
    return table.filter(pa.array(keep))


def _instants(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """ISO 8601 texts as instants: '…00Z' and '…00.5+00:00' do not compare as text. As they are if one is no instant."""
    try:
        known = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
        return known.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        return texts
