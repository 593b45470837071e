"""A chunk: what one planner task reads of a manifest."""

from dataclasses import dataclass

from pipelines.manifest_file import ManifestFile

CHUNK_BYTES = 8 * 1024 * 1024
# To get at a chunk of a file that has no offsets, all before it is read too: fewer, larger chunks.
STREAM_CHUNK_BYTES = 4 * CHUNK_BYTES


@dataclass(frozen=True)
class CsvLayout:
    """How a CSV file is written, read off its first line."""

    delimiter: str
    columns: tuple[str, ...]
    skip_space: bool = False


@dataclass(frozen=True)
class Cut:
    """A part of one file: bytes of its text as UTF-8 from `start` to `stop`, or rows of a Parquet row group.

    `rows` is how many it holds at most, `first_line` the line of the first.
    """

    start: int
    stop: int
    first_line: int
    rows: int
    group: int = 0
    layout: CsvLayout | None = None


@dataclass(frozen=True)
class Chunk:
    """One cut of a manifest, with its place among all."""

    index: int
    file: ManifestFile
    cut: Cut


def chunk_bytes_of(file: ManifestFile, wanted: int) -> int:
    """How long the chunks of a file shall be."""
    return wanted if file.seekable else max(wanted, wanted * STREAM_CHUNK_BYTES // CHUNK_BYTES)
