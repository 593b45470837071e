"""A compacted file of the ledger: Parquet sorted by fingerprint, read and written without ever holding all of it."""

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import StorageError
from storage.latest import split
from storage.store import ObjectStore
from storage.tables import PARQUET_TYPE, RECORD_SCHEMA, completed

# Small enough that a merge of many files holds little of each, large enough to compress.
_ROWS_A_GROUP = 8192


class SortedFile:
    """A `Cursor` over one compacted file. Raises StorageError naming it when it is damaged."""

    def __init__(self, store: ObjectStore, key: str, columns: Sequence[str] = RECORD_SCHEMA.names) -> None:
        self._where = store.uri(key)
        self._columns = list(columns)
        self._source = store.open(key)
        with self._damage_named():
            self._file = pq.ParquetFile(self._source, page_checksum_verification=True)
        self.rows: int = self._file.metadata.num_rows
        self._next_group = 0
        self._left = pa.schema([RECORD_SCHEMA.field(name) for name in columns]).empty_table()

    def take(self, below: str) -> pa.Table:
        """The records that are left whose fingerprint is less than `below`."""
        taken = []
        while True:
            found, self._left = split(self._left, below)
            taken.append(found)
            if self._left.num_rows or self._next_group == self._file.metadata.num_row_groups:
                return pa.concat_tables(taken)
            with self._damage_named():
                known = [name for name in self._columns if name in self._file.schema_arrow.names]
                self._left = completed(self._file.read_row_group(self._next_group, columns=known), self._columns)
            self._next_group += 1

    def close(self) -> None:
        self._source.close()

    @contextmanager
    def _damage_named(self):  # type: ignore[no-untyped-def]
        try:
            yield
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StorageError(
                f"{self._where}: damaged ({str(error).splitlines()[0][:120]}); "
                "delete it, and the tasks that it tells of are rendered again"
            ) from error


def write_sorted(store: ObjectStore, key: str, tables: Iterable[pa.Table]) -> int:
    """Store tables that follow one another as one file; returns its rows. Nothing is stored when there are none."""
    rows = 0
    with tempfile.TemporaryDirectory(prefix="rushes-ledger-") as folder:
        path = Path(folder, "compacted.parquet")
        writer = pq.ParquetWriter(path, RECORD_SCHEMA, compression="zstd", write_page_checksum=True)
        with writer:
            for table in tables:
                writer.write_table(table.cast(RECORD_SCHEMA), row_group_size=_ROWS_A_GROUP)
                rows += table.num_rows
        if rows:
            store.put(key, path, PARQUET_TYPE)
    return rows
