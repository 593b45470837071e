"""The values of pairs, on disk: there may be more pairs than memory holds."""

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from types import TracebackType

_SCHEMA = (
    "CREATE TABLE cells (field TEXT, metric TEXT, pair TEXT, part TEXT, count INTEGER, total REAL, "
    "PRIMARY KEY (field, metric, pair, part)) WITHOUT ROWID"
)
_ADD = (
    "INSERT INTO cells VALUES (?, ?, ?, ?, 1, ?) "
    "ON CONFLICT DO UPDATE SET count = count + 1, total = total + excluded.total"
)


class Pairs:
    """By column, metric, pair and group: the mean of the values that were added. `path` is a file of its own."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode = OFF")  # thrown away with its folder
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(_SCHEMA)

    def __enter__(self) -> "Pairs":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def add(self, column: str, pair: str, group: str, values: Mapping[str, float]) -> None:
        """One clip's values."""
        self._database.executemany(_ADD, [(column, name, pair, group, float(v)) for name, v in values.items()])

    def cells(self, column: str, metric: str) -> Iterator[dict[str, float]]:
        """Pair by pair: the mean of each group in it."""
        rows = self._database.execute(
            "SELECT pair, part, total / count FROM cells WHERE field = ? AND metric = ? ORDER BY pair, part",
            (column, metric),
        )
        for _, together in groupby(rows, key=lambda row: row[0]):
            yield {str(group): float(mean) for _, group, mean in together}
