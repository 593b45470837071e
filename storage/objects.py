"""What every object store promises: `storage.local` keeps objects as files below a folder, `storage.s3` in a bucket.

One contract test covers both.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from storage.address import StoreAddress

DEFAULT_CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class ObjectInfo:
    """What a store knows of an object without reading it. `etag` changes when the content does."""

    key: str
    size_bytes: int
    etag: str
    modified: datetime
    content_type: str | None = None  # None when the store would have to be asked once more (listings of S3).


class ObjectStore(Protocol):
    """Whole objects by key, atomically: a reader sees the old object, the new one or none, never a part.

    Every method raises StorageError where the store refuses (permanent) and StorageUnavailableError where it does
    not answer after the store's own retries (transient). Stores are safe to share between threads and pickle as
    their address: each process opens its own connections.
    """

    @property
    def address(self) -> StoreAddress:
        """Where the store is; `open_store(str(address))` opens it again."""

    def put(
        self, key: str, data: bytes | Path, content_type: str = DEFAULT_CONTENT_TYPE, if_absent: bool = False
    ) -> bool:
        """Store bytes or the content of a file; True when this call's data is what is stored.

        With `if_absent` an object that is there stays, and the answer is False. Of several concurrent calls exactly
        one wins where the store can decide that (see `S3Store.supports_conditional_put`).
        """

    def get(self, key: str) -> bytes:
        """The object's content. ObjectMissingError when there is none."""

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive), fewer where the object ends. ObjectMissingError when there is none."""

    def open(self, key: str) -> BinaryIO:
        """A seekable reader that fetches only what is read. ObjectMissingError when there is none."""

    def download(self, key: str, path: Path) -> None:
        """Copy the object to a file, whose folder is made if need be and which is complete once it exists."""

    def head(self, key: str) -> ObjectInfo | None:
        """What is known of the object, or None."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix` (a string, not a folder), each once, as a stream.

        In key order for folders and AWS; some S3 servers order folder by folder instead, so sort where it matters.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete the objects; those that are not there are no error."""

    def uri(self, key: str) -> str:
        """The object's URI, readable by `storage.uris` and by data tools."""

    def sign(self, key: str, expires_s: int = 3600) -> str:
        """A URL that a client without credentials can read until it expires; of a folder, the file's URI."""

    def check(self) -> None:
        """Write, read and delete a small object, so that a run stops before it renders rather than after."""
