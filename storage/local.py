"""A folder as an object store: a key is a path below it."""

import errno
import mimetypes
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from schemas.errors import ObjectMissingError, StorageError, StorageUnavailableError
from storage.address import FolderAddress, checked_key
from storage.objects import DEFAULT_CONTENT_TYPE, ObjectInfo

_TEMPORARY_PREFIX = ".rushes-tmp-"
# What a network file system reports while its server is away.
_TRANSIENT_ERRNOS = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR, errno.EBUSY}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


class LocalStore:
    """The `ObjectStore` over a folder that every process of the run sees (one machine, or a shared mount).

    An object appears under its name only when it is complete: it is written to a temporary file in the same folder
    and renamed. A killed process leaves at most a temporary file, which no listing shows. With `fsync`, file and
    folders are flushed before `put` returns: after a power cut there is no name without its content.
    """

    def __init__(self, address: FolderAddress, fsync: bool = True) -> None:
        self._address = address
        self._fsync = fsync

    def __reduce__(self) -> tuple[type["LocalStore"], tuple[FolderAddress, bool]]:
        return LocalStore, (self._address, self._fsync)

    def __repr__(self) -> str:
        return f"LocalStore({str(self._address)!r})"

    @property
    def address(self) -> FolderAddress:
        return self._address

    def put(
        self,
        key: str,
        data: bytes | Path,
        content_type: str = DEFAULT_CONTENT_TYPE,  # noqa: ARG002
        if_absent: bool = False,
    ) -> bool:
        """See `ObjectStore.put`. A folder keeps no content type: `head` tells it from the name."""
        path = self._path(key)
        with _errors("write", path):
            if if_absent and path.exists():
                return False  # Saves the write; the link below is what decides.
            self._make_folder(path.parent)
            with self._temporary_beside(path) as temporary:
                self._fill(temporary, data)
                stored = _link(temporary, path) if if_absent else _replace(temporary, path)
            if stored and self._fsync:
                _flush_folder(path.parent)
            return stored

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with _errors("read", path):
            return path.read_bytes()

    def get_range(self, key: str, start: int, end: int) -> bytes:
        with self.open(key) as file, _errors("read", self._path(key)):
            file.seek(start)
            return file.read(max(0, end - start))

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        with _errors("read", path):
            return path.open("rb")

    def download(self, key: str, path: Path) -> None:
        source = self._path(key)
        with _errors("read", source):
            source.stat()
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._temporary_beside(path) as temporary:
                shutil.copyfile(source, temporary)
                _replace(temporary, path)

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        try:
            with _errors("read", path):
                status = path.stat()
        except ObjectMissingError:
            return None
        return None if path.is_dir() else _info(key, status)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder, _, _ = prefix.rpartition("/")
        root = self._address.folder
        with _errors("list", root / folder):
            yield from _walk(root / folder, f"{folder}/" if folder else "", prefix)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            with suppress(ObjectMissingError), _errors("delete", path):
                path.unlink()

    def uri(self, key: str) -> str:
        return self._address.uri(checked_key(key))

    def sign(self, key: str, expires_s: int = 3600) -> str:  # noqa: ARG002  (a file does not expire)
        return self.uri(key)

    def check(self) -> None:
        probe = f"{_TEMPORARY_PREFIX}check-{secrets.token_hex(8)}"
        try:
            self.put(probe, b"rushes")
        except StorageError as error:
            raise StorageError(f"{self._address.folder}: cannot be written: {error}") from error
        try:
            if self.get(probe) != b"rushes":
                raise StorageError(f"{self._address.folder}: what was written does not read back")
        finally:
            self.delete([probe])

    def _path(self, key: str) -> Path:
        return self._address.folder / checked_key(key)

    def _make_folder(self, folder: Path) -> None:
        """The folder, whose own name is as durable as what it will hold."""
        if folder.is_dir():
            return
        missing = [folder, *(above for above in folder.parents if not above.is_dir())]
        folder.mkdir(parents=True, exist_ok=True)
        if self._fsync:
            for new in missing:
                _flush_folder(new.parent)

    @contextmanager
    def _temporary_beside(self, path: Path) -> Iterator[Path]:
        # In the same folder, since a rename is atomic only inside one file system.
        temporary = path.parent / f"{_TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        try:
            yield temporary
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def _fill(self, temporary: Path, data: bytes | Path) -> None:
        if isinstance(data, Path):
            try:
                shutil.copyfile(data, temporary)
            except FileNotFoundError as error:
                # The errors of `path` would call this a missing object.
                raise StorageError(f"{data}: no such file to store") from error
        else:
            temporary.write_bytes(data)
        if self._fsync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())


def _replace(temporary: Path, path: Path) -> bool:
    os.replace(temporary, path)
    return True


def _link(temporary: Path, path: Path) -> bool:
    """Give the file its name unless the name is taken. The link fails for all but one of concurrent callers."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Some mounts have no hard links. The race left open is small, and both contenders write the same task.
        return False if path.exists() else _replace(temporary, path)
    return True


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(folder: Path, key_prefix: str, wanted: str) -> Iterator[ObjectInfo]:
    try:
        with os.scandir(folder) as entries:
            # Folders sort as "name/" does, which makes the walk's order the order of keys.
            named = sorted((f"{e.name}/" if e.is_dir() else e.name, e) for e in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, entry in named:
        key = key_prefix + name
        if name.endswith("/"):
            if key.startswith(wanted) or wanted.startswith(key):
                yield from _walk(folder / entry.name, key, wanted)
        elif key.startswith(wanted) and not name.startswith(_TEMPORARY_PREFIX):
            with suppress(FileNotFoundError):  # Deleted since the folder was read.
                yield _info(key, entry.stat())


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size_bytes=status.st_size,
        etag=f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}",
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
        content_type=mimetypes.guess_type(key)[0] or DEFAULT_CONTENT_TYPE,
    )


@contextmanager
def _errors(what: str, path: Path) -> Iterator[None]:
    """File system errors as ours, with the path in each."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissingError(f"{path}: no such object") from error
    except OSError as error:
        if error.errno in _TRANSIENT_ERRNOS:
            raise StorageUnavailableError(f"cannot {what} {path}: {error.strerror}") from error
        raise StorageError(f"cannot {what} {path}: {error.strerror}") from error
