"""Folding a ledger's loose records into sorted files, and many sorted files into one, in bounded memory.

A merge holds one row group of each of a few files and one range of fingerprints; folding holds `_ROWS_A_FILE` records.
So the peak does not grow with the ledger.
"""

import secrets
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pyarrow as pa

from schemas.errors import ObjectMissingError
from storage import keys
from storage.latest import latest, merged
from storage.ledger import Ledger
from storage.sorted_file import SortedFile, write_sorted

_ROWS_A_FILE = 200_000
_FILES_A_MERGE = 16


@dataclass(frozen=True)
class Compaction:
    """What one `compact` did. `key` is None when there was nothing worth folding."""

    key: str | None
    folded_records: int = 0
    merged_files: int = 0


def compact(ledger: Ledger, min_loose: int = 1000, max_files: int = 8) -> Compaction:
    """Fold loose records into sorted files, when there are `min_loose` of them; merge those into one when there
    are more than `max_files`.

    May be killed anywhere, and may run beside writers, readers and other compactions. `key` is the newest file.
    """
    last: str | None = None
    folded = 0
    if ledger.loose_count(max(1, min_loose)) >= max(1, min_loose):
        last, folded = _fold(ledger)
    files = ledger.compacted_keys()
    if len(files) <= max(1, max_files):
        return Compaction(last, folded)
    count = len(files)
    while len(files) > 1:
        together = files[:_FILES_A_MERGE]
        last, merged_now = _merge(ledger, together)
        if last is None:  # another compaction was first
            break
        count -= len(together) - merged_now
        files = [*files[_FILES_A_MERGE:], last]
    return Compaction(last, folded, count)


def _fold(ledger: Ledger) -> tuple[str | None, int]:
    """Every loose record, in as many files as it takes; the last file, and how many records."""
    tables: list[pa.Table] = []
    objects: list[str] = []
    last: str | None = None
    folded = 0

    def close() -> None:
        nonlocal last, folded
        rows = sum(table.num_rows for table in tables)
        if rows:
            last = keys.compacted(secrets.token_hex(16))
            write_sorted(ledger.store, last, [latest(tables, for_folding=True)])
            # Exactly what was read, and only once it is in the file.
            ledger.store.delete(objects)
            folded += rows
        tables.clear()
        objects.clear()

    for portion in ledger.loose():
        tables.append(portion.table)
        objects.extend(portion.keys)
        if sum(table.num_rows for table in tables) >= _ROWS_A_FILE:
            close()
    close()
    return last, folded


def _merge(ledger: Ledger, files: list[str]) -> tuple[str | None, int]:
    """All files as one. Files that another compaction deleted meanwhile are in its own."""
    with ExitStack() as opened:
        cursors: dict[str, SortedFile] = {}
        for key in files:
            try:
                cursors[key] = opened.enter_context(closing(SortedFile(ledger.store, key)))
            except ObjectMissingError:
                continue
        # A random name, never one of the content: a file re-created under the old name could be deleted by a slower
        # compaction that had read the first one.
        name = keys.compacted(secrets.token_hex(16))
        rows = write_sorted(ledger.store, name, merged(list(cursors.values()), for_folding=True))
    if not rows:
        return None, 0
    ledger.store.delete(list(cursors))
    return name, len(cursors)
