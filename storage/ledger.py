"""The ledger: which tasks are complete. It is what makes a run resumable.

One small object per record, written by the actor the moment a clip is stored, so that a killed run forgets nothing.
Since a million small objects are slow to read, `compact` folds them into Parquet.

Nothing here locks, and any process may die anywhere. That is safe because no object ever changes its meaning:

* a success is stored under the task's own key, once; the key alone says that the task is done;
* any other outcome is stored under a key that contains a digest of it, beside a success and never over it;
* a compacted file has a random name, is written before what it folds in is deleted, and exactly that is deleted.

What is in two places after a crash, or after two compactions at once, is merged on reading: a success beats any other
outcome, then the later `finished_at` wins. A task once quarantined stays so until it succeeds.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from schemas.clip import Record, Status
from schemas.errors import ObjectMissingError, StorageUnavailableError
from storage import keys
from storage.store import ObjectStore
from storage.tables import RECORD_SCHEMA, read_table, records_to_table, table_to_records, write_table

_log = logging.getLogger(__name__)
_READERS = 32  # A GET is all waiting; more than this and a small S3 server answers 'slow down'.
_READ_TRIES = 20


@dataclass(frozen=True)
class Compaction:
    """What one `compact` did. `key` is None when there was nothing worth folding."""

    key: str | None
    folded_records: int = 0
    merged_files: int = 0


class Ledger:
    """The records below one store's `ledger/`. Cheap to make; safe to use from many threads and processes."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write(self, record: Record) -> bool:
        """Keep a record. True when it was new, False when the task had succeeded before (the first success stays).

        Idempotent; durable when it returns. Raises what the store raises.
        """
        body = record.model_dump_json().encode()
        if record.status is Status.SUCCEEDED:
            key = keys.succeeded_record(record.fingerprint)
            return self._store.put(key, body, "application/json", if_absent=True)
        digest = hashlib.sha256(body).hexdigest()[:16]
        self._store.put(keys.tried_record(record.fingerprint, digest, record.quarantined), body, "application/json")
        return True

    def get(self, fingerprint: str) -> Record | None:
        """The task's record, or None."""
        try:
            return Record.model_validate_json(self._store.get(keys.succeeded_record(fingerprint)))
        except (ObjectMissingError, ValidationError):
            pass
        found = self._merged(keys.record_prefix(fingerprint), lambda _: True, [("fingerprint", "==", fingerprint)])
        records = table_to_records(found)
        return records[0] if records else None

    def load(self, least: str = "", below: str = "") -> pa.Table:
        """One row per task with `least <= fingerprint < below` ('' is no bound), in RECORD_SCHEMA, by fingerprint."""

        def wanted(key: str) -> bool:
            fingerprint = keys.fingerprint_of_record(key)
            return fingerprint is not None and least <= fingerprint and (not below or fingerprint < below)

        filters = [("fingerprint", ">=", least)] if least else []
        if below:
            filters.append(("fingerprint", "<", below))
        digits = least[:2] if least[:2] == below[:2] and len(least) > 1 else ""
        return self._merged(keys.records_prefix(digits), wanted, filters)

    def done_fingerprints(self, with_quarantined: bool = False) -> pa.Array:
        """The tasks that need no rendering, as a sorted string array; with those given up for good, if asked.

        Reads keys and two columns but no record, so a million loose records cost a thousand listings.
        """

        def read() -> pa.Array:
            # Keys before files: what is folded in between is then seen in the file.
            loose = []
            for info in self._store.list(keys.RECORDS):
                fingerprint = keys.fingerprint_of_record(info.key)
                done = keys.is_succeeded_record(info.key)
                if fingerprint and (done or (with_quarantined and keys.is_quarantined_record(info.key))):
                    loose.append(fingerprint)
            found = [pa.array(loose, pa.string())]
            for key in self._compacted_keys():
                table = read_table(self._store, key, columns=["fingerprint", "status", "quarantined"])
                done = pc.equal(table.column("status"), Status.SUCCEEDED.value)
                if with_quarantined:
                    done = pc.or_(done, table.column("quarantined"))
                found += table.filter(done).column("fingerprint").chunks
            unique = pc.unique(pa.chunked_array(found, pa.string()))
            return unique.take(pc.sort_indices(unique))

        return _until_nothing_vanishes(read)

    def compact(self, min_loose: int = 1000, max_files: int = 8) -> Compaction:
        """Fold loose records into one Parquet file, when there are `min_loose` of them.

        Also merges the compacted files when there are more than `max_files`. May be killed anywhere, and may run beside
        writers, readers and other compactions.
        """
        loose = self._loose_keys(keys.RECORDS, lambda key: keys.fingerprint_of_record(key) is not None)
        files = self._compacted_keys()
        files = files if len(files) > max_files else []
        if not files and len(loose) < max(1, min_loose):
            return Compaction(None)
        # What another compaction deleted meanwhile is in its file: nothing to fold, nothing to delete.
        records = [(key, record) for key, record in self._read_loose(loose) if record is not None]
        tables: dict[str, pa.Table] = {}
        for key in files:
            try:
                tables[key] = read_table(self._store, key)
            except ObjectMissingError:
                continue
        folded = _latest([records_to_table(record for _, record in records), *tables.values()])
        if not folded.num_rows:
            return Compaction(None)
        # A random name, never one of the content: a file re-created under the old name could be deleted by a
        # slower compaction that had read the first one.
        name = keys.compacted(secrets.token_hex(16))
        write_table(self._store, name, folded)
        self._store.delete([*(key for key, _ in records), *tables])
        return Compaction(name, len(records), len(tables))

    def _merged(self, prefix: str, wanted: Callable[[str], bool], filters: list[tuple[str, str, str]]) -> pa.Table:
        def read() -> pa.Table:
            # Keys before files, as in `done_fingerprints`; a key that is gone by the time it is read was folded into
            # a file that may be missing from our list of files, so everything is read again.
            found = self._read_loose(self._loose_keys(prefix, wanted))
            gone = [key for key, record in found if record is None]
            files = self._compacted_keys()
            tables = [read_table(self._store, key, filters=filters or None) for key in files]
            if gone:
                raise ObjectMissingError(f"{gone[0]}: compacted while it was read")
            return _latest([records_to_table(record for _, record in found if record), *tables])

        return _until_nothing_vanishes(read)

    def _loose_keys(self, prefix: str, wanted: Callable[[str], bool]) -> list[str]:
        return [info.key for info in self._store.list(prefix) if wanted(info.key)]

    def _compacted_keys(self) -> list[str]:
        return [info.key for info in self._store.list(keys.COMPACTED) if info.key.endswith(".parquet")]

    def _read_loose(self, loose: Iterable[str]) -> list[tuple[str, Record | None]]:
        """Each key with its record, None where it is gone. Unreadable records are left out, and left where they are."""
        loose = list(loose)
        if not loose:
            return []
        with ThreadPoolExecutor(min(_READERS, len(loose)), thread_name_prefix="ledger") as threads:
            bodies = threads.map(self._get_or_none, loose)
            out: list[tuple[str, Record | None]] = []
            for key, body in zip(loose, bodies, strict=True):
                try:
                    out.append((key, Record.model_validate_json(body) if body is not None else None))
                except ValidationError as error:
                    _log.warning("%s is not a record, its task counts as not done: %s", self._store.uri(key), error)
        return out

    def _get_or_none(self, key: str) -> bytes | None:
        try:
            return self._store.get(key)
        except ObjectMissingError:
            return None


def _until_nothing_vanishes(read: Callable[[], pa.Table]) -> pa.Table:
    """Read again while a compaction deletes under our hands. Each time one has finished, so this ends soon."""
    for _ in range(_READ_TRIES):
        try:
            return read()
        except ObjectMissingError as error:
            last = error
    raise StorageUnavailableError(f"the ledger was compacted {_READ_TRIES} times while it was read: {last}")


def _latest(tables: Iterable[pa.Table]) -> pa.Table:
    """One row per fingerprint, sorted: a success before anything else, then the latest."""
    table = pa.concat_tables([RECORD_SCHEMA.empty_table(), *(t.select(RECORD_SCHEMA.names) for t in tables)])
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
    latest = table.take(indices.filter(first)).combine_chunks()
    # Given up stays given up until it succeeds, so that keys alone can tell (see `done_fingerprints`).
    given_up = pc.is_in(latest.column("fingerprint"), table.filter(table.column("quarantined")).column("fingerprint"))
    given_up = pc.and_(given_up, pc.not_equal(latest.column("status"), Status.SUCCEEDED.value))
    return latest.set_column(RECORD_SCHEMA.get_field_index("quarantined"), RECORD_SCHEMA.field("quarantined"), given_up)


def _instants(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """ISO 8601 texts as instants: '…00Z' and '…00.5+00:00' do not compare as text. As they are if one is no instant."""
    try:
        known = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
        return known.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        return texts
