"""One file of a manifest as UTF-8 bytes, whatever it is packed in and whichever encoding it was written in."""

import codecs
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, cast

import pyarrow as pa

from schemas.errors import ConfigError
from storage.uris import FoundFile, open_object

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SUFFIXES = (*FORMATS, *(f"{kind}{packed}" for kind in FORMATS if kind != ".parquet" for packed in COMPRESSIONS))

_BLOCK_BYTES = 1 << 20
_SNIFFED_BYTES = 4096
# UTF-32's mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Encodings that manifests are met in; without bounds, short texts are taken for the rarest ones.
_LEGACY = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr")
_HIGH_WORD = re.compile(r"\w*[^\W\d_\x00-\x7f]\w*")
_SYMBOL_IN_WORD = re.compile(r"\w[^\w\s\x00-\x7f‘’–—-]\w|\w[¹²³]\w")


@dataclass(frozen=True)
class ManifestFile:
    """A file, how it is packed, and how its text is encoded. Offsets into it are of the UTF-8 that it becomes."""

    uri: str
    format: str
    compression: str | None = None
    encoding: str = "utf-8"
    mark_bytes: int = 0

    @property
    def seekable(self) -> bool:
        """Whether an offset is one of the file itself; otherwise everything before it must be read too."""
        return self.compression is None and self.encoding == "utf-8"

    def blocks(self, start: int = 0) -> Generator[bytes, None, None]:
        """The text as UTF-8 from offset `start` on, without its byte order mark.

        A file that is packed wrongly or ends too soon raises ConfigError naming it.
        """
        with closing(open_object(self.uri)) as source:
            if self.seekable:
                source.seek(self.mark_bytes + start)
                yield from iter(lambda: source.read(_BLOCK_BYTES), b"")
                return
            skipped = 0
            for block in self._recoded(_unpacked(source, self.uri, self.compression)):
                if skipped >= start:
                    yield block
                elif skipped + len(block) > start:
                    yield block[start - skipped :]
                skipped += len(block)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop` (exclusive) of the text as UTF-8."""
        if self.seekable:
            with closing(open_object(self.uri)) as source:
                source.seek(self.mark_bytes + start)
                return source.read(stop - start)
        parts, left = [], stop - start
        with closing(self.blocks(start)) as blocks:
            for block in blocks:
                parts.append(block[:left])
                left -= len(parts[-1])
                if left <= 0:
                    break
        return b"".join(parts)

    def _recoded(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        first = next(blocks, b"")[self.mark_bytes :]

        def rest() -> Iterator[bytes]:
            yield first
            yield from blocks

        if self.encoding == "utf-8":
            yield from rest()
            return
        # What cannot be decoded becomes U+FFFD, and rows that hold one are rejected.
        for text in codecs.iterdecode(rest(), self.encoding, errors="replace"):
            yield text.encode("utf-8", "surrogatepass")


def manifest_file(file: FoundFile, encoding: str | None = None) -> ManifestFile:
    """What a file is by its name and its first bytes. `encoding` overrules what the bytes look like.

    Raises ConfigError for a format that cannot be read, naming those that can, and for an unknown encoding.
    """
    name = PurePosixPath(file.uri)
    compression = COMPRESSIONS.get(name.suffix.lower())
    suffix = (PurePosixPath(name.stem).suffix if compression else name.suffix).lower()
    kind = FORMATS.get(suffix)
    if kind is None:
        raise ConfigError(
            f"{file.uri}: unknown manifest format {suffix!r}; available: {', '.join(FORMATS)}, text also with .gz, .zst"
        )
    if kind == "parquet":
        if compression:
            raise ConfigError(f"{file.uri}: Parquet is compressed inside; unpack it first")
        return ManifestFile(file.uri, kind)
    with closing(open_object(file.uri)) as source:
        head = next(_unpacked(source, file.uri, compression), b"")[:_SNIFFED_BYTES]
    mark, found = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", _by_zeros(head)))
    if encoding is not None:
        try:
            found = codecs.lookup(encoding).name
        except LookupError:
            raise ConfigError(f"--encoding: unknown {encoding!r}; such as utf-8, cp1252, utf-16, shift_jis") from None
    return ManifestFile(file.uri, kind, compression, found, len(mark))


def legacy_encoding(sample: bytes) -> str | None:
    """The encoding of text that is not UTF-8, judged by the lines that show it; None when nothing fits.

    Windows-1252, by far the most frequent, is taken where it gives words; what else there is, charset-normalizer
    tells apart.
    """
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    words = [word for word in _HIGH_WORD.findall(text) if len(word) > 2]
    high = sum(ord(letter) > 0x7F for word in words for letter in word)
    if text and not _SYMBOL_IN_WORD.search(text) and high * 2 <= sum(map(len, words)):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(_LEGACY)).best()
    return best.encoding if best is not None else None


def _unpacked(source: BinaryIO, uri: str, compression: str | None) -> Iterator[bytes]:
    stream = source
    if compression is not None:
        stream = cast("BinaryIO", pa.CompressedInputStream(pa.PythonFile(source, "r"), compression))
    try:
        while block := stream.read(_BLOCK_BYTES):
            yield block
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{uri}: not {compression} to its end: {error}") from error


def _by_zeros(head: bytes) -> str:
    """UTF-16 without its mark: every other byte of ASCII text is zero."""
    if len(head) >= 4 and head.count(0) * 3 >= len(head):
        return "utf-16-be" if head[0::2].count(0) > head[1::2].count(0) else "utf-16-le"
    return "utf-8"
