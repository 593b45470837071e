"""Clips that are longer than one model call: cut into chunks, each of which begins with the last frames of the one
before it.

The frames that a chunk has in common with the one before (`overlap`) are given to its call and then dropped: what was
rendered once is never touched again, so that a chunk that is stored stays what it is, and a later prompt changes later
pixels only. (Fading between two renderings of the same frames would blur them, and change what comes before a prompt.)
A chunk ends where a prompt does, so that each call has one prompt. All calls are equally long; what the last one of a
prompt has too much is dropped too.
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class Windows(BaseModel):
    """How long the calls are, in frames, and how many of them each has in common with the one before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int = Field(ge=2, description="of each call: a length that the shape rule has")
    overlap: int = Field(
        default=1,
        ge=1,
        description="frames that each call is given of the one before, and that are then dropped; above 1 where a "
        "class holds a video",
    )


class Chunks(Windows):
    """Of a catalog's entry: clips longer than `shape.max_frames`, and clips with several prompts, are rendered in
    several calls."""

    max_s: float = Field(gt=0, le=3600, description="the longest clip, in seconds")

    @property
    def windows(self) -> Windows:
        return Windows(frames=self.frames, overlap=self.overlap)


class Chunk(NamedTuple):
    """One call of a long clip, in frames of the clip: the call's first frame, the first that is kept of it, and the one
    after the last. `turn` is the number of its prompt."""

    number: int
    start: int
    first: int
    stop: int
    turn: int

    @property
    def known(self) -> int:
        """Frames at its beginning that are those of the chunk before."""
        return self.first - self.start


def cut(frames: int, turns: Sequence[int], windows: Windows) -> tuple[Chunk, ...]:
    """The chunks of a clip of so many frames; `turns` are the frames at which its prompts after the first begin."""
    found: list[Chunk] = []
    for turn, (begin, end) in enumerate(pairwise((0, *turns, frames))):
        at = begin
        while at < end:
            # Of a beginning that is shorter than the overlap, one frame is enough.
            known = 0 if at == 0 else windows.overlap if at >= windows.overlap else 1
            stop = min(end, at - known + windows.frames)
            found.append(Chunk(len(found), at - known, at, stop, turn))
            at = stop
    return tuple(found)


def chunk_seed(seed: int, number: int) -> int:
    """The seed of a clip's chunk: the first has the clip's own."""
    if number == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"chunk {number} of {seed}".encode()).digest()[:4], "big")


def chunk_fingerprints(fingerprint: str, chunks: Sequence[Chunk]) -> tuple[str, ...]:
    """Of a clip's chunks, each made of the one before it: link by link, from the clip's own."""
    found: list[str] = []
    for chunk in chunks:
        told = f"{fingerprint}{chunk.start}:{chunk.first}:{chunk.stop}:{chunk.turn}"
        fingerprint = hashlib.sha256(told.encode()).hexdigest()[:32]
        found.append(fingerprint)
    return tuple(found)
