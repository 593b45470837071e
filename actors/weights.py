"""Weights that lie in an object store, for `models/`, which may not know one."""

from pathlib import Path

from models.weights import RemoteFile
from storage.store import open_store


class StoredWeights:
    """The `WeightsStore` of `models.weights` over any object store that Rushes can open."""

    def listing(self, uri: str) -> tuple[RemoteFile, ...]:
        """Every object under `uri`, paths relative to it."""
        return tuple(RemoteFile(info.key, info.size_bytes, info.etag) for info in open_store(_folder(uri)).list())

    def fetch(self, uri: str, file: RemoteFile, destination: Path) -> None:
        open_store(_folder(uri)).download(file.path, destination)


def _folder(uri: str) -> str:
    return uri.rstrip("/")
