"""Which tasks need no rendering, as arrays of 16-byte fingerprints: ten million tasks are a few hundred megabytes."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.clip import Status
from storage import keys
from storage.latest import DECIDING, Cursor, TableCursor, merged
from storage.ledger import Ledger, until_nothing_vanishes
from storage.sorted_file import SortedFile
from storage.store import ObjectStore
from storage.tables import RECORD_SCHEMA

_COLUMNS = (*DECIDING, "clip_bytes", "sha256", "refused_by")
_LISTERS = 16
_GIVEN_UP = -1
_UNKNOWN = -2
# Later than every instant that a record may tell.
_NEVER = "9999-12-31T00:00:00+00:00"

Packed = npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class DoneTasks:
    """Sorted fingerprints, and of each the bytes its clip has: -1 for a task that was given up, -2 where unknown.

    `sha256` holds 32 bytes a task when it was asked for.
    """

    fingerprints: Packed
    clip_bytes: npt.NDArray[np.int64]
    sha256: Packed | None = None

    def __len__(self) -> int:
        return len(self.fingerprints)


@dataclass(frozen=True)
class StoredClips:
    """Sorted fingerprints of the clips that are there, and their bytes."""

    fingerprints: Packed
    clip_bytes: npt.NDArray[np.int64]


def pack(fingerprints: Iterable[str]) -> Packed:
    """Hexadecimal fingerprints as an array of 16-byte values that sorts."""
    return np.frombuffer(bytes.fromhex("".join(fingerprints)), dtype="S16")


def done_tasks(
    ledger: Ledger,
    *,
    with_quarantined: bool = False,
    with_sha256: bool = False,
    refused_by: str = "",
    by_keys: bool = False,
) -> DoneTasks:
    """What the ledger says is done; with those given up for good, if asked, and those that the moderation of this
    digest has refused.

    Of loose records, `by_keys` takes the word of their names: a million cost a thousand listings, and no clip's size is
    known. Otherwise each is read, and one that cannot be read is not done.
    """

    def read() -> DoneTasks:
        # Loose ones before files: what is folded in between is then seen in the file.
        loose = _by_keys(ledger.store) if by_keys else _read(ledger)
        with ExitStack() as opened:
            cursors: list[Cursor] = [TableCursor(loose)]
            for key in ledger.compacted_keys():
                cursors.append(opened.enter_context(closing(SortedFile(ledger.store, key, _COLUMNS))))
            found = [_done(table, with_quarantined, with_sha256, refused_by) for table in merged(cursors, _COLUMNS)]
        if not found:
            return DoneTasks(pack(()), np.empty(0, np.int64), np.empty(0, "S32") if with_sha256 else None)
        return DoneTasks(
            np.concatenate([f.fingerprints for f in found]),
            np.concatenate([f.clip_bytes for f in found]),
            np.concatenate([f.sha256 for f in found if f.sha256 is not None]) if with_sha256 else None,
        )

    return until_nothing_vanishes(read)


def stored_clips(store: ObjectStore, variants: Iterable[str]) -> StoredClips:
    """The clips of these variants that are in the store, by listing alone."""
    prefixes = [keys.clips_prefix(variant, digit) for variant in variants for digit in "0123456789abcdef"]
    with ThreadPoolExecutor(_LISTERS, thread_name_prefix="clips") as threads:
        found = list(threads.map(lambda prefix: _listed(store, prefix), prefixes))
    fingerprints = np.concatenate([pack(()), *(f.fingerprints for f in found)])
    sizes = np.concatenate([np.empty(0, np.int64), *(f.clip_bytes for f in found)])
    order = np.argsort(fingerprints, kind="stable")
    return StoredClips(fingerprints[order], sizes[order])


def _listed(store: ObjectStore, prefix: str) -> StoredClips:
    names: list[str] = []
    sizes: list[int] = []
    for info in store.list(prefix):
        fingerprint = keys.fingerprint_of_clip(info.key)
        if fingerprint is not None:
            names.append(fingerprint)
            sizes.append(info.size_bytes)
    return StoredClips(pack(names), np.array(sizes, np.int64))


def _read(ledger: Ledger) -> pa.Table:
    return pa.concat_tables([_schema().empty_table(), *(portion.table.select(_COLUMNS) for portion in ledger.loose())])


def _by_keys(store: ObjectStore) -> pa.Table:
    fingerprints: list[str] = []
    given_up: list[bool] = []
    for info in store.list(keys.RECORDS):
        fingerprint = keys.fingerprint_of_record(info.key)
        quarantined = keys.is_quarantined_record(info.key)
        if fingerprint is not None and info.size_bytes and (quarantined or keys.is_succeeded_record(info.key)):
            fingerprints.append(fingerprint)
            given_up.append(quarantined)
    count = len(fingerprints)
    quarantine = pa.array(given_up, pa.bool_())
    statuses = pc.if_else(quarantine, Status.FAILED.value, Status.SUCCEEDED.value)
    columns = {
        "fingerprint": pa.array(fingerprints, pa.string()),
        "status": statuses,
        "quarantined": quarantine,
        "finished_at": pa.repeat(_NEVER, count),
        "clip_bytes": pa.nulls(count, pa.int64()),
        "sha256": pa.nulls(count, pa.string()),
        "refused_by": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=_schema())


def _done(table: pa.Table, with_quarantined: bool, with_sha256: bool, refused_by: str) -> DoneTasks:
    succeeded = pc.equal(table.column("status"), Status.SUCCEEDED.value)
    wanted = pc.or_(succeeded, table.column("quarantined")) if with_quarantined else succeeded
    if refused_by:
        wanted = pc.or_(wanted, pc.fill_null(pc.equal(table.column("refused_by"), refused_by), False))
    table = table.filter(wanted)
    sizes = pc.fill_null(table.column("clip_bytes"), _UNKNOWN)
    sizes = pc.if_else(pc.equal(table.column("status"), Status.SUCCEEDED.value), sizes, _GIVEN_UP)
    sha256 = None
    if with_sha256:
        digests = [digest or "" for digest in table.column("sha256").to_pylist()]
        sha256 = np.array([bytes.fromhex(digest) if len(digest) == 64 else b"" for digest in digests], "S32")
    return DoneTasks(pack(table.column("fingerprint").to_pylist()), sizes.to_numpy().astype(np.int64), sha256)


def _schema() -> pa.Schema:
    return pa.schema([RECORD_SCHEMA.field(name) for name in _COLUMNS])
