"""SHA-256 of files, computed once: kept beside size and time of change, as build tools do."""

import hashlib
import sqlite3
from contextlib import suppress
from pathlib import Path

_WAIT_S = 10.0  # other planners write to the same file
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT) "
    "WITHOUT ROWID"
)


class FileDigests:
    """Digests of files on this machine, kept in `cache` when there is one. What cannot be kept is computed again."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._database: sqlite3.Connection | None = None

    def __reduce__(self) -> tuple[type["FileDigests"], tuple[Path | None]]:
        return FileDigests, (self._cache,)

    def sha256(self, path: Path) -> str:
        """64 hexadecimal digits of the file's content. OSError where it cannot be read."""
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        with suppress(sqlite3.Error, OSError):
            found = (
                self._open()
                .execute("SELECT sha256 FROM digests WHERE path = ? AND size = ? AND mtime_ns = ?", key)
                .fetchone()
            )
            if found is not None:
                return str(found[0])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with suppress(sqlite3.Error, OSError), self._open() as database:
            database.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (*key, digest))
        return digest

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            where = ":memory:"
            if self._cache is not None:
                self._cache.mkdir(parents=True, exist_ok=True)
                where = str(self._cache / "digests.sqlite")
            self._database = sqlite3.connect(where, timeout=_WAIT_S)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = OFF")  # a cache
            self._database.execute(_SCHEMA)
        return self._database
