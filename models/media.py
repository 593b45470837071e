"""Images and videos that requests bring, as pictures in the clip's own size. No torch.

Everything here reads what strangers send: sizes are checked before pixels are decoded.
"""

import io
import math
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.errors import MediaError
from schemas.shape import Shape

MAX_IMAGE_PIXELS = 64_000_000
MAX_VIDEO_PIXELS = 8192 * 4320
# Frames that are decoded at most: what a clip needs comes from the beginning of a video.
MAX_VIDEO_FRAMES = 20_000
# Beyond, a pixel's proportions are a mistake of whoever wrote the file.
_MOST_STRETCH = 10
_MATRIX = struct.Struct("=9i")
_TURNS: dict[tuple[int, ...], Image.Transpose] = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,  # a phone held upright
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


@dataclass(frozen=True)
class Cut:
    """The part of a video that is used, in seconds from its beginning, and how its time runs."""

    start_s: float = 0.0
    end_s: float | None = None  # None: as far as the clip needs it
    speed: float = 1.0
    reverse: bool = False


_WHOLE = Cut()


def read_image(data: bytes, shape: Shape, name: str = "image", *, whole: bool = False) -> Image.Image:
    """Decode a still image: upright (EXIF), RGB, scaled to cover `shape` and cropped to it around the centre; `whole`
    ones are only made smaller, until they lie within it.

    Transparent pixels become white. Raises MediaError naming `name`.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            pixels = opened.width * opened.height
            if pixels > MAX_IMAGE_PIXELS:
                raise MediaError(f"{name}: {opened.width}×{opened.height} is more than {MAX_IMAGE_PIXELS:,} pixels")
            upright = ImageOps.exif_transpose(opened)
            opaque = _opaque(upright)
            return _within(opaque, shape) if whole else fitted(opaque, shape)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise MediaError(f"{name}: not an image that can be read ({len(data)} bytes): {error}") from error
    except MediaError:
        raise
    except Exception as error:
        # Decoders raise whatever they stumble over in a broken file: struct.error, IndexError and what not.
        raise MediaError(f"{name}: a damaged image: {_told(error)}") from error


def read_video(
    data: bytes, shape: Shape, fps: float, name: str = "video", cut: Cut = _WHOLE
) -> tuple[Image.Image, ...]:
    """Decode the part of a video that `cut` names: `shape.frames` frames as players show them (upright, with square
    pixels), resampled by the times that they are shown at: frame k is what is on screen `k · speed / fps` after the
    part's beginning; backwards, the same frames from the part's end.

    A part that ends before that is held on its last frame. Raises MediaError naming `name`, also when there is nothing
    of the part in the video.
    """
    import av

    try:
        with av.open(io.BytesIO(data), mode="r", metadata_errors="replace") as container:
            if not container.streams.video:
                raise MediaError(f"{name}: no video in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise MediaError(f"{name}: a video of a format that cannot be decoded here")
            if stream.width * stream.height > MAX_VIDEO_PIXELS:
                raise MediaError(f"{name}: {stream.width}×{stream.height} is more than {MAX_VIDEO_PIXELS:,} pixels")
            stream.thread_type = "AUTO"
            pixel = Fraction(stream.sample_aspect_ratio or 1)
            found = _resampled(container.decode(stream), _rate(stream), pixel, shape, fps, cut)
            frames = tuple(deque(found, shape.frames))[::-1] if cut.reverse else tuple(found)
    except av.FFmpegError as error:
        raise MediaError(f"{name}: not a video that can be read ({len(data)} bytes): {error.strerror}") from error
    except MediaError:
        raise
    except Exception as error:  # as with images
        raise MediaError(f"{name}: a damaged video: {_told(error)}") from error
    if not frames:
        if cut.start_s > 0:
            raise MediaError(f"{name}: it ends before {cut.start_s:g} s, where it is to start")
        raise MediaError(f"{name}: a video without frames")
    return frames + (frames[-1],) * (shape.frames - len(frames))


def shown_video(path: Path) -> tuple[int, int, int, float]:
    """(width, height, frames, frames a second) of a video as players show it: upright, with square pixels. Raises
    MediaError."""
    import av

    try:
        with av.open(str(path), mode="r", metadata_errors="replace") as container:
            stream = container.streams.video[0]
            frames = sum(packet.size > 0 for packet in container.demux(stream))
            container.seek(0)
            first = _as_shown(next(container.decode(stream)), Fraction(stream.sample_aspect_ratio or 1))
            return first.width, first.height, max(1, frames), float(_rate(stream))
    except (av.FFmpegError, IndexError, StopIteration, ValueError) as error:
        raise MediaError(f"not a video that can be read: {_told(error)}") from error


def _within(image: Image.Image, shape: Shape) -> Image.Image:
    scale = min(1.0, shape.width / image.width, shape.height / image.height)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def fitted(image: Image.Image, shape: Shape) -> Image.Image:
    """Scale to cover width × height, and crop what overhangs equally on both sides."""
    if image.size == (shape.width, shape.height):
        return image
    return ImageOps.fit(image, (shape.width, shape.height), method=Image.Resampling.LANCZOS)


def _resampled(
    decoded: Iterator[Any], native_fps: Fraction, pixel: Fraction, shape: Shape, fps: float, cut: Cut
) -> Iterator[Image.Image]:
    """Of every output instant, start + k · speed / fps, the frame that is on screen then, in the order of time. As many
    as the clip has; where the end of a part is said and shown first, all until there."""
    most = shape.frames
    if cut.end_s is not None:
        inside = max(1, math.ceil((cut.end_s - cut.start_s) * fps / cut.speed - 1e-6))
        most = inside if cut.reverse else min(most, inside)
    wanted = 0
    shown: Image.Image | None = None
    raw: Any = None
    start: float | None = None
    shown_s = 0.0

    def instant() -> float:
        return cut.start_s + wanted * cut.speed / fps

    for index, frame in enumerate(decoded):
        if frame.width * frame.height > MAX_VIDEO_PIXELS:  # a stream may grow after its header
            raise ValueError(f"frame {index} is {frame.width}×{frame.height}, more than {MAX_VIDEO_PIXELS:,} pixels")
        time_s = float(frame.time) if frame.time is not None else float(index / native_fps)
        start = time_s if start is None else start
        # The frame on screen before this one fills every instant up to this one's.
        while raw is not None and wanted < most and instant() < time_s - start - 1e-6:
            shown = shown or fitted(_as_shown(raw, pixel), shape)
            yield shown
            wanted += 1
        raw, shown, shown_s = frame, None, time_s - start
        if wanted >= most or index >= MAX_VIDEO_FRAMES:
            return
    end_s = shown_s + 1 / native_fps
    if raw is None or wanted >= most or (cut.start_s > 0 and cut.start_s >= end_s - 1e-6):
        return
    shown = fitted(_as_shown(raw, pixel), shape)
    yield shown
    wanted += 1
    # It is on screen for as long as the others are.
    while wanted < most and instant() < end_s - 1e-6:
        yield shown
        wanted += 1


def _as_shown(frame: Any, pixel: Fraction) -> Image.Image:
    """A frame as players show it: its pixels made square, then turned as its display matrix says."""
    image: Image.Image = frame.to_image()
    if pixel != 1 and _MOST_STRETCH * pixel >= 1 and pixel <= _MOST_STRETCH:
        # The longer side grows, so that nothing is lost.
        size = (round(image.width * pixel), image.height) if pixel > 1 else (image.width, round(image.height / pixel))
        if size[0] * size[1] > MAX_VIDEO_PIXELS:
            raise ValueError(f"{size[0]}×{size[1]} with square pixels, more than {MAX_VIDEO_PIXELS:,}")
        image = image.resize(size, Image.Resampling.BILINEAR)
    turn = _TURNS.get(_matrix_signs(frame))
    return image.transpose(turn) if turn is not None else image


def _matrix_signs(frame: Any) -> tuple[int, ...]:
    """Where the display matrix sends the x and the y axis: right, left, down or up. () when there is none."""
    found = next((bytes(side) for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), b"")
    if len(found) < _MATRIX.size:
        return ()
    x_to_x, x_to_y, _, y_to_x, y_to_y, *_ = _MATRIX.unpack_from(found)
    return tuple((value > 0) - (value < 0) for value in (x_to_x, x_to_y, y_to_x, y_to_y))


def _rate(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate
    return Fraction(rate) if rate else Fraction(25)


def _told(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")
