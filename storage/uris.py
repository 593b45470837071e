"""Single objects by URI, wherever they are: a manifest, a folder of them, an image to animate.

A URI is what `storage.address.parse_address` takes: `s3://bucket/key`, `file:///path` or a path.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from schemas.errors import ObjectMissingError
from storage.address import FolderAddress, StoreAddress, parse_address, split_object_uri
from storage.store import ObjectInfo, ObjectStore, store_at

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class FoundFile:
    """One file that a URI, a folder or a glob leads to. `etag` changes when the content does."""

    uri: str
    size_bytes: int
    etag: str

    @property
    def suffix(self) -> str:
        """With its dot, in small letters; '' when the name has none."""
        return PurePosixPath(self.uri).suffix.lower()


def locate(uri: str) -> tuple[ObjectStore, str]:
    """The store and the key of one object; for keys of a store already open use the store itself."""
    address, key = split_object_uri(uri)
    return store_at(address), key


def read_uri(uri: str) -> bytes:
    """The whole object. ObjectMissingError when there is none."""
    store, key = locate(uri)
    return store.get(key)


def read_range(uri: str, start: int, end: int) -> bytes:
    """Bytes `start` to `end` (exclusive), fewer where the object ends."""
    store, key = locate(uri)
    return store.get_range(key, start, end)


def open_object(uri: str) -> BinaryIO:
    """A seekable reader that fetches only what is read: pyarrow reads a Parquet footer without the rest."""
    store, key = locate(uri)
    return store.open(key)


def head_uri(uri: str) -> FoundFile | None:
    """What is known of the object, or None."""
    store, key = locate(uri)
    info = store.head(key) if key else None
    return _found(store, info) if info else None


def list_uris(uri: str, suffixes: tuple[str, ...] = ()) -> list[FoundFile]:
    """The files that a URI names, sorted by URI: an object itself, a folder's files at any depth, or a glob's matches.

    In a glob `*` and `?` stay inside a folder and `**` crosses them; as in a shell, a name that starts with `.` must be
    asked for by its dot. Below a folder, names starting with `.` or `_` are skipped, as data tools do. `suffixes` (with
    or without a dot, any case) narrows folders and globs, not a file named outright. ObjectMissingError when nothing is
    found.
    """
    exact = None if uri.endswith("/") else head_uri(uri)
    if exact is not None:  # First, since a file may well be called "take[1].jsonl".
        return [exact]
    address, pattern = _split_glob(uri)
    store = store_at(address)
    wanted = tuple(f".{suffix.lstrip('.').lower()}" for suffix in suffixes)
    found = sorted(
        (_found(store, info) for info in _candidates(store, pattern) if info.key.lower().endswith(wanted or "")),
        key=lambda file: file.uri,
    )
    if not found:
        kinds = f" with {', '.join(wanted)}" if wanted else ""
        raise ObjectMissingError(f"{uri}: no such file, and no folder or glob that leads to files{kinds}")
    return found


def _candidates(store: ObjectStore, pattern: str) -> Iterator[ObjectInfo]:
    if not pattern:
        yield from (info for info in store.list() if not _is_hidden(info.key))
        return
    matches = re.compile(_glob_to_regex(pattern)).fullmatch
    fixed = pattern[: next(_GLOB.finditer(pattern)).start()]
    dots_wanted = any(part.startswith(".") for part in pattern.split("/"))
    for info in store.list(fixed):
        if matches(info.key) and (dots_wanted or not any(part.startswith(".") for part in info.key.split("/"))):
            yield info


def _is_hidden(key: str) -> bool:
    # "folder/" is how S3 consoles mark an empty folder.
    return key.endswith("/") or any(part.startswith((".", "_")) for part in key.split("/"))


def _split_glob(uri: str) -> tuple[StoreAddress, str]:
    """The deepest folder without a wildcard, and the pattern below it ('' when there is no wildcard)."""
    found = _GLOB.search(uri)
    if found is None:
        return parse_address(uri), ""
    folder, slash, pattern = uri[: found.start()].rpartition("/")
    address = parse_address(folder + slash) if slash else parse_address(".")
    return address, pattern + uri[found.start() :]


def _glob_to_regex(pattern: str) -> str:
    out, i = [], 0
    while i < len(pattern):
        if pattern.startswith("**/", i):
            out.append("(?:.*/)?")
            i += 3
        elif pattern.startswith("**", i):
            out.append(".*")
            i += 2
        elif pattern[i] == "*":
            out.append("[^/]*")
            i += 1
        elif pattern[i] == "?":
            out.append("[^/]")
            i += 1
        elif pattern[i] == "[" and (end := pattern.find("]", i + 2)) > 0:
            inside = pattern[i + 1 : end].replace("\\", "\\\\")
            out.append(f"[^{inside[1:]}]" if inside[0] == "!" else f"[{inside}]")
            i = end + 1
        else:
            out.append(re.escape(pattern[i]))
            i += 1
    return "".join(out)


def _found(store: ObjectStore, info: ObjectInfo) -> FoundFile:
    return FoundFile(_shown_uri(store, info.key), info.size_bytes, info.etag)


def _shown_uri(store: ObjectStore, key: str) -> str:
    """A plain path for files: error messages name the file as people know it."""
    address = store.address
    return str(address.folder / key) if isinstance(address, FolderAddress) else store.uri(key)
