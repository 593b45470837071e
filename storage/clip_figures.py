"""What was measured of clips, by the SHA-256 of their bytes: measured once on a machine, whichever run they are of."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_WAIT_S = 10.0  # another evaluation writes to the same file
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS figures (sha256 TEXT, kind TEXT, said TEXT, PRIMARY KEY (sha256, kind)) WITHOUT ROWID"
)
Figures = Mapping[str, float | str]


class ClipFigures:
    """Figures in `cache`, a folder, under names of kinds. What cannot be kept is measured again. For one thread."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._database: sqlite3.Connection | None = None

    def get(self, sha256: str, kind: str) -> Figures | None:
        """What was kept of these bytes, or None."""
        with suppress(sqlite3.Error, OSError, ValueError):
            found = (
                self._open()
                .execute("SELECT said FROM figures WHERE sha256 = ? AND kind = ?", (sha256, kind))
                .fetchone()
            )
            if found is not None and isinstance(said := json.loads(found[0]), dict):
                return said
        return None

    def put(self, sha256: str, kind: str, figures: Figures) -> None:
        """Keep them."""
        with suppress(sqlite3.Error, OSError), self._open() as database:
            said = json.dumps(dict(figures), sort_keys=True)
            database.execute("INSERT OR REPLACE INTO figures VALUES (?, ?, ?)", (sha256, kind, said))

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._cache.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._cache / "clip-figures.sqlite", timeout=_WAIT_S)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = OFF")  # a cache
            self._database.execute(_SCHEMA)
        return self._database
