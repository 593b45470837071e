"""The ledger: which tasks are complete. It is what makes a run resumable.

A record is durable before its task counts: written by the actor the moment a clip is stored, so that a killed run
forgets nothing. Records that are written together share one object, a segment; a record that comes alone is an object
of its own. Since a million small objects are slow to read, `compact` folds them into sorted Parquet.

Nothing here locks, and any process may die anywhere. That is safe because no object ever changes its meaning:

* a success is stored under the task's own key, once; the key alone says that the task is done;
* anything else is stored under a key that contains a digest of it, beside that success and never over it;
* segments and compacted files have random names, are written before what they fold in is deleted, and exactly that is
  deleted.

What is in two places after a crash, or after two compactions at once, is merged on reading (`storage.latest`).
"""

import hashlib
import logging
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from schemas.clip import Record, Status
from schemas.errors import ObjectMissingError, StorageUnavailableError
from storage import keys
from storage.latest import latest
from storage.store import ObjectStore
from storage.tables import RECORD_SCHEMA, read_table, records_to_table, table_to_records

T = TypeVar("T")
_log = logging.getLogger(__name__)
_READERS = 32  # A GET is all waiting; more than this and a small S3 server answers 'slow down'.
_READ_TRIES = 20
_AT_ONCE = 5000  # records that are read together
_OUTCOMES = {Status.PENDING: "revoked", Status.SUCCEEDED: "succeeded"}


@dataclass(frozen=True)
class LooseRecords:
    """Records that are not compacted: the objects that hold them and nothing unreadable, the records as RECORD_SCHEMA,
    and how many of the objects had vanished."""

    keys: tuple[str, ...]
    table: pa.Table
    vanished: int = 0


class Ledger:
    """The records below one store's `ledger/`. Cheap to make; safe to use from many threads and processes."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        # Segments never change: one that was read need not be again for tasks that are not in it.
        self._tasks_of: dict[str, frozenset[str]] = {}

    def __reduce__(self) -> tuple[type["Ledger"], tuple[ObjectStore]]:
        return Ledger, (self.store,)

    def write(self, record: Record) -> bool:
        """Keep a record. True when it was new, False when this very success was recorded before.

        Idempotent; durable when it returns. Raises what the store raises.
        """
        body = record.model_dump_json().encode()
        if record.status is Status.SUCCEEDED:
            key = keys.succeeded_record(record.fingerprint)
            if self.store.put(key, body, "application/json", if_absent=True):
                return True
            if self._record_or_none(key) == record:
                return False
        digest = hashlib.sha256(body).hexdigest()[:16]
        outcome = "quarantined" if record.quarantined else _OUTCOMES.get(record.status, "")
        self.store.put(keys.tried_record(record.fingerprint, digest, outcome), body, "application/json")
        return True

    def write_many(self, records: Sequence[Record]) -> None:
        """Keep the records of a batch in one object. Durable when it returns; raises what the store raises."""
        if len(records) == 1:
            self.write(records[0])
        elif records:
            body = "".join(f"{record.model_dump_json()}\n" for record in records).encode()
            self.store.put(keys.segment(secrets.token_hex(16), len(records)), body, "application/x-ndjson")

    def get(self, fingerprint: str) -> Record | None:
        """The task's record, or None."""
        found = self._merged(
            [keys.record_prefix(fingerprint)], lambda f: f == fingerprint, [("fingerprint", "==", fingerprint)]
        )
        records = table_to_records(found)
        return records[0] if records else None

    def load(self, least: str = "", below: str = "") -> pa.Table:
        """One row per task with `least <= fingerprint < below` ('' is no bound), in RECORD_SCHEMA, by fingerprint."""

        def wanted(fingerprint: str) -> bool:
            return least <= fingerprint and (not below or fingerprint < below)

        filters = [("fingerprint", ">=", least)] if least else []
        if below:
            filters.append(("fingerprint", "<", below))
        digits = least[:2] if least[:2] == below[:2] and len(least) > 1 else ""
        return self._merged([keys.records_prefix(digits)], wanted, filters)

    def loose(self) -> Iterator[LooseRecords]:
        """What is not compacted, in portions of a few thousand records. Objects that vanish meanwhile were folded."""
        names = (info.key for prefix in (keys.RECORDS, keys.SEGMENTS) for info in self.store.list(prefix))
        ours = (key for key in names if keys.fingerprint_of_record(key) or keys.records_in_segment(key))
        for portion in _portions(ours):
            yield self._read_loose(portion)

    def loose_count(self, most: int) -> int:
        """How many records are not compacted, counted no further than about `most`."""
        count = 0
        for prefix in (keys.RECORDS, keys.SEGMENTS):
            for info in self.store.list(prefix):
                count += keys.records_in_segment(info.key) or 1
                if count >= most:
                    return count
        return count

    def count(self) -> int:
        """About how many records there are, by names and footers alone: progress, not truth."""
        rows = self.loose_count(sys.maxsize)
        for key in self.compacted_keys():
            with suppress(ObjectMissingError), self.store.open(key) as file:
                rows += pq.read_metadata(file).num_rows
        return rows

    def compacted_keys(self) -> list[str]:
        return [info.key for info in self.store.list(keys.COMPACTED) if info.key.endswith(".parquet")]

    def _record_or_none(self, key: str) -> Record | None:
        try:
            return Record.model_validate_json(self.store.get(key))
        except (ObjectMissingError, ValidationError):
            return None

    def _merged(
        self, prefixes: Sequence[str], wanted: Callable[[str], bool], filters: list[tuple[str, str, str]]
    ) -> pa.Table:
        def read() -> pa.Table:
            # Keys before files: what is folded in between is then seen in the file. A key that is gone by the time it
            # is read was folded into a file that may be missing from our list of files, so everything is read again.
            loose = [
                info.key
                for prefix in prefixes
                for info in self.store.list(prefix)
                if (fingerprint := keys.fingerprint_of_record(info.key)) is not None and wanted(fingerprint)
            ]
            for info in self.store.list(keys.SEGMENTS):
                tasks = self._tasks_of.get(info.key)
                if keys.records_in_segment(info.key) and (tasks is None or any(map(wanted, tasks))):
                    loose.append(info.key)
            tables, gone = [], 0
            for portion in _portions(loose):
                found = self._read_loose(portion, wanted)
                tables.append(found.table)
                gone += found.vanished
            files = self.compacted_keys()
            tables += [read_table(self.store, key, filters=filters or None) for key in files]
            if gone:
                raise ObjectMissingError(f"{gone} records were compacted while they were read")
            return latest(tables)

        return until_nothing_vanishes(read)

    def _read_loose(self, loose: Sequence[str], wanted: Callable[[str], bool] = lambda _: True) -> LooseRecords:
        """The records of some objects. Unreadable ones are left out, and left where they are."""
        with ThreadPoolExecutor(min(_READERS, len(loose)), thread_name_prefix="ledger") as threads:
            bodies = list(threads.map(self._get_or_none, loose))
        records: list[Record] = []
        whole: list[str] = []
        for key, body in zip(loose, bodies, strict=True):
            if body is None:
                continue
            found = self._parsed(key, body)
            if found is not None:
                whole.append(key)
            records += [record for record in found or self._readable(key, body) if wanted(record.fingerprint)]
        table = records_to_table(records) if records else RECORD_SCHEMA.empty_table()
        return LooseRecords(tuple(whole), table, bodies.count(None))

    def _parsed(self, key: str, body: bytes) -> list[Record] | None:
        """An object's records; None when one of them is unreadable."""
        lines = body.splitlines() if keys.records_in_segment(key) else [body]
        try:
            found = [Record.model_validate_json(line) for line in lines]
        except ValidationError as error:
            _log.warning("%s is not a record, its task counts as not done: %s", self.store.uri(key), error)
            return None
        if keys.records_in_segment(key):
            self._tasks_of[key] = frozenset(record.fingerprint for record in found)
        return found

    def _readable(self, key: str, body: bytes) -> Iterator[Record]:
        for line in body.splitlines() if keys.records_in_segment(key) else []:
            with suppress(ValidationError):
                yield Record.model_validate_json(line)

    def _get_or_none(self, key: str) -> bytes | None:
        try:
            return self.store.get(key)
        except ObjectMissingError:
            return None


def _portions(loose: Iterable[str]) -> Iterator[list[str]]:
    """Objects in portions of about as many records as shall be in memory together."""
    portion: list[str] = []
    records = 0
    for key in loose:
        portion.append(key)
        records += keys.records_in_segment(key) or 1
        if records >= _AT_ONCE:
            yield portion
            portion, records = [], 0
    if portion:
        yield portion


def until_nothing_vanishes(read: Callable[[], T]) -> T:
    """Read again while a compaction deletes under our hands. Each time one has finished, so this ends soon."""
    for _ in range(_READ_TRIES):
        try:
            return read()
        except ObjectMissingError as error:
            last = error
    raise StorageUnavailableError(f"the ledger was compacted {_READ_TRIES} times while it was read: {last}")
