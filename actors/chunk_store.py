"""The chunks of clips that are being made in several calls, in the store: PNGs in a zip, as what is made of them must
be the same whether it was stored in between or not. They go when the clip is there."""

import logging
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from actors.decoder import read_frames
from actors.encoder import encode, read_metadata
from models.model import Frames
from schemas.chunks import Chunk, chunk_fingerprints
from schemas.clip import ClipFormat
from schemas.errors import RushesError
from schemas.task import Group, Task
from storage.store import ObjectStore

log = logging.getLogger(__name__)


class ChunkNames(Protocol):
    """Where chunks go: `storage.keys` has one for bulk runs and one for the endpoint."""

    def chunk(self, task: str, number: int, fingerprint: str) -> str: ...


class StoredChunks:
    """Of one variant. Thread-safe: it keeps nothing between calls."""

    def __init__(self, store: ObjectStore, variant: str, names: ChunkNames) -> None:
        self._store, self._variant, self._names = store, variant, names

    def get(self, task: Task, group: Group, chunk: Chunk) -> Frames | None:
        """None too for what is of another clip, cannot be read, or is not whole: it is then made again."""
        key, told = self._told(task, group, chunk)
        try:
            if self._store.head(key) is None:
                return None
            with tempfile.TemporaryDirectory(prefix="rushes-chunk-") as folder:
                path = Path(folder, "chunk.zip")
                self._store.download(key, path)
                if read_metadata(path) != told:
                    return None
                frames = np.stack([np.asarray(one) for one in read_frames(path.read_bytes(), ClipFormat.PNG)])
        except (RushesError, OSError, ValueError) as error:
            log.warning("task %s: chunk %d is made again: %s", task.fingerprint, chunk.number, error)
            return None
        return frames if frames.shape == (chunk.stop - chunk.first, group.height, group.width, 3) else None

    def put(self, task: Task, group: Group, chunk: Chunk, frames: Frames) -> None:
        """Store it. Where that fails, whoever goes on makes it again."""
        key, told = self._told(task, group, chunk)
        try:
            with tempfile.TemporaryDirectory(prefix="rushes-chunk-") as folder:
                path = Path(folder, "chunk.zip")
                encode(frames, group.fps, ClipFormat.PNG, path, told)
                self._store.put(key, path, "application/zip")
        except (RushesError, OSError) as error:
            log.warning("task %s: chunk %d is not kept: %s", task.fingerprint, chunk.number, error)

    def drop(self, task: Task, group: Group) -> None:
        """Remove all of a clip's chunks. What cannot be removed stays, and harms nobody."""
        if group.chunks is None:
            return
        try:
            self._store.delete([self._told(task, group, chunk)[0] for chunk in group.cuts])
        except RushesError as error:
            log.warning("task %s: its chunks stay: %s", task.fingerprint, error)

    def _told(self, task: Task, group: Group, chunk: Chunk) -> tuple[str, dict[str, Any]]:
        """(Where a chunk is, what it says of itself.) Whatever is done to the clip afterwards, its chunks are the same.
        At the endpoint they are called by their task, which may change its variant between attempts."""
        fingerprint = chunk_fingerprints(task.base or task.fingerprint, group.cuts)[chunk.number]
        told = {"fingerprint": fingerprint, "variant": self._variant, "group": group.up_to(0).told}
        return self._names.chunk(task.fingerprint, chunk.number, fingerprint), told
