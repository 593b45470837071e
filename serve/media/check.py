"""Whether a file is the still image or the video that it says it is, and unfolds to no more than is allowed.

Everything is read from headers before anything is decoded, by our own few lines where a library would allocate first.
Only the named format's decoder ever sees the bytes. Blocking: call it in a thread.
"""

import warnings
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from schemas.errors import InvalidRequestError, Issue
from serve.config import MediaLimits

MAX_STREAMS = 8
MAX_FRAMES = 20_000  # as many as `models.media` decodes

_HEAD_BYTES = 4096
_ZIP_TAIL_BYTES = 22 + 0xFFFF  # a zip's directory ends within so much of the file's end


class Kind(StrEnum):
    """What a request wants at a place."""

    IMAGE = "image"
    VIDEO = "video"


@dataclass(frozen=True)
class Format:
    """One kind of file. `reader`: Pillow's name for it, or FFmpeg's demuxer."""

    kind: Kind
    content_type: str
    suffix: str
    reader: str
    aliases: tuple[str, ...] = ()

    @property
    def content_types(self) -> tuple[str, ...]:
        return (self.content_type, *self.aliases)


PNG = Format(Kind.IMAGE, "image/png", "png", "PNG")
JPEG = Format(Kind.IMAGE, "image/jpeg", "jpg", "JPEG", ("image/jpg",))
WEBP = Format(Kind.IMAGE, "image/webp", "webp", "WEBP")
MP4 = Format(Kind.VIDEO, "video/mp4", "mp4", "mov", ("video/x-m4v",))
MOV = Format(Kind.VIDEO, "video/quicktime", "mov", "mov")
WEBM = Format(Kind.VIDEO, "video/webm", "webm", "matroska")
MKV = Format(Kind.VIDEO, "video/x-matroska", "mkv", "matroska", ("video/matroska",))
FORMATS = (PNG, JPEG, WEBP, MP4, MOV, WEBM, MKV)


@dataclass(frozen=True)
class Checked:
    """What a file was found to be. Stills have one frame and no duration."""

    format: Format
    width: int
    height: int
    frames: int = 1
    duration_s: float = 0.0


def refused(path: str, message: str, code: str = "asset_invalid", choices: tuple[str, ...] = ()) -> InvalidRequestError:
    """The error of one medium, at the place in the request where it is named."""
    return InvalidRequestError((Issue(path, message, code, choices),))


def content_types(kind: Kind | None = None) -> tuple[str, ...]:
    """What is taken, of one kind or at all."""
    return tuple(one.content_type for one in FORMATS if kind in (None, one.kind))


def check(file: Path, kind: Kind | None, limits: MediaLimits, path: str, *, declared: str | None = None) -> Checked:
    """What `file` is. `kind` None takes images and videos; `declared` is the Content-Type that came with it.

    Raises InvalidRequestError naming `path` and the limit.
    """
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
        if not head:
            raise refused(path, "an empty file")
        found = sniff(head)
        if found is None or (kind is not None and found.kind is not kind):
            shown = f"{found.content_type}, not {kind}" if found else f"not {kind or 'media'} that is read here"
            raise refused(path, shown, "asset_type", content_types(kind))
        if declared is not None:
            check_declared(declared, found, path)
        _refuse_second_format(opened, head, path)
        opened.seek(0)
        if found.kind is Kind.IMAGE:
            return _check_image(opened, head, found, limits, path)
        return _check_video(opened, found, limits, path)


def check_declared(declared: str, found: Format, path: str) -> None:
    """The Content-Type against the content: exactly, without parameters."""
    said = declared.partition(";")[0].strip().lower()
    if said not in found.content_types:
        raise refused(path, f"its Content-Type is {said[:80]!r}, but it is {found.content_type}", "asset_type")


def sniff(head: bytes) -> Format | None:
    """The format by its first bytes."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        # The document type stands in the EBML header, which is short.
        if b"webm" in head[:64]:
            return WEBM
        return MKV if b"matroska" in head[:64] else None
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"M4A ", b"M4B "):
            return None
        return MOV if brand == b"qt  " else MP4
    if head[4:8] in (b"moov", b"wide", b"mdat") and len(head) > 16:
        return MOV  # from before there was ftyp
    return None


def _refuse_second_format(opened: BinaryIO, head: bytes, path: str) -> None:
    """Files that are also something else: an archive at the end, a document at the beginning."""
    opened.seek(0, 2)
    size = opened.tell()
    opened.seek(max(0, size - _ZIP_TAIL_BYTES))
    tail = opened.read()
    at = tail.rfind(b"PK\x05\x06")
    # A directory whose comment ends with the file: bytes that only look like one do not fit so well.
    comment = int.from_bytes(tail[at + 20 : at + 22], "little")
    is_zip = at >= 0 and at + 22 + comment == len(tail)
    if is_zip or b"%PDF-" in head[:1024]:
        raise refused(path, f"a file that is also {'an archive' if is_zip else 'a document'}")


def _check_image(opened: BinaryIO, head: bytes, found: Format, limits: MediaLimits, path: str) -> Checked:
    size = _png_size(head) if found is PNG else _webp_size(head) if found is WEBP else None
    if size is not None:
        _check_pixels(*size, limits, path)
    elif found is not JPEG:
        raise refused(path, f"a damaged {found.suffix}: its header is cut short")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit came first
            with Image.open(opened, formats=(found.reader,)) as image:
                _check_pixels(image.width, image.height, limits, path)
                if getattr(image, "n_frames", 1) > 1 and found is not JPEG:
                    raise refused(path, "an animation; a still image is wanted")
                image.load()
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise refused(path, f"more than {limits.max_pixels:,} pixels", "asset_too_large") from error
    except InvalidRequestError:
        raise
    except Exception as error:  # decoders raise what they like over hostile bytes
        raise refused(path, f"a damaged {found.suffix}: it cannot be decoded") from error
    _refuse_trailing(opened, found, path)
    return Checked(found, width, height)


def _check_pixels(width: int, height: int, limits: MediaLimits, path: str) -> None:
    if width < 1 or height < 1:
        raise refused(path, f"{width}×{height} has no pixels")
    if width * height > limits.max_pixels:
        raise refused(path, f"{width}×{height} is more than {limits.max_pixels:,} pixels", "asset_too_large")


def _png_size(head: bytes) -> tuple[int, int] | None:
    if len(head) < 24 or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """By the first chunk. Pillow has memory for the whole canvas before it says how large that is."""
    first = head[12:16]
    if len(head) < 30:
        return None
    if first == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if first == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if first == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None


def _refuse_trailing(opened: BinaryIO, found: Format, path: str) -> None:
    """Bytes behind the end of a PNG or WebP are somebody's second file. Cameras put theirs behind a JPEG."""
    opened.seek(0)
    if found is WEBP:
        head = opened.read(8)
        end = 8 + int.from_bytes(head[4:8], "little")
    elif found is PNG:
        end = _png_end(opened)
    else:
        return
    opened.seek(0, 2)
    if opened.tell() > end + (end & 1 if found is WEBP else 0):
        raise refused(path, f"a {found.suffix} with {opened.tell() - end} bytes behind its end")


def _png_end(opened: BinaryIO) -> int:
    at = 8
    while True:
        opened.seek(at)
        chunk = opened.read(8)
        if len(chunk) < 8:
            return at
        at += 12 + int.from_bytes(chunk[:4], "big")
        if chunk[4:] == b"IEND":
            return at


def _check_video(opened: BinaryIO, found: Format, limits: MediaLimits, path: str) -> Checked:
    import av

    try:
        with av.open(opened, mode="r", format=found.reader, metadata_errors="replace") as container:
            if len(container.streams) > MAX_STREAMS:
                raise refused(path, f"{len(container.streams)} streams; at most {MAX_STREAMS}", "asset_too_large")
            if not container.streams.video:
                raise refused(path, "no video in it")
            for one in container.streams.video:
                if one.codec_context is None:
                    raise refused(path, "a video in a codec that is not read here", "asset_type")
                _check_pixels(one.width, one.height, limits, path)
            stream = container.streams.video[0]
            # What the header says first: it is refused before the file is read through.
            for said in (container.duration and container.duration / av.time_base, _seconds(stream, stream.duration)):
                _check_duration(said or 0.0, limits, path)
            frames, duration_s = _walk(container, stream, limits, path)
            container.seek(0)
            first = next(iter(container.decode(stream)), None)
            if first is None:
                raise refused(path, "a video without frames")
            _check_pixels(first.width, first.height, limits, path)
            return Checked(found, first.width, first.height, frames, duration_s)
    except av.FFmpegError as error:
        raise refused(path, f"a damaged {found.suffix}: {error.strerror}") from error
    except InvalidRequestError:
        raise
    except Exception as error:  # as above
        raise refused(path, f"a damaged {found.suffix}: it cannot be decoded") from error


def _walk(container, stream, limits: MediaLimits, path: str) -> tuple[int, float]:  # type: ignore[no-untyped-def]
    """Frames and seconds by the packets themselves, since a header may say anything. Nothing is decoded."""
    frames, start, end = 0, None, 0.0
    for packet in container.demux(stream):
        if packet.size == 0:
            continue  # PyAV's sign that the file is over
        frames += 1
        if frames > MAX_FRAMES:
            raise refused(path, f"more than {MAX_FRAMES:,} frames", "asset_too_large")
        shown_s = _seconds(stream, packet.pts if packet.pts is not None else packet.dts)
        if shown_s is not None:
            start = shown_s if start is None else min(start, shown_s)
            end = max(end, shown_s + (_seconds(stream, packet.duration) or 0.0))
            _check_duration(end - start, limits, path)
    if not frames:
        raise refused(path, "a video without frames")
    return frames, max(0.0, end - (start or 0.0))


def _seconds(stream, ticks: int | None) -> float | None:  # type: ignore[no-untyped-def]
    return float(ticks * stream.time_base) if ticks is not None and stream.time_base is not None else None


def _check_duration(seconds: float, limits: MediaLimits, path: str) -> None:
    # A frame more is a matter of rounding.
    if seconds > limits.max_video_s + 0.1:
        raise refused(path, f"{seconds:.1f} s is more than {limits.max_video_s:g} s", "asset_too_large")
