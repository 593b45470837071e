"""Images and videos that requests bring, as pictures in the clip's own size. No torch.

Everything here reads what strangers send: sizes are checked before pixels are decoded.
"""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
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


def read_video(data: bytes, shape: Shape, fps: float, name: str = "video") -> tuple[Image.Image, ...]:
    """Decode the beginning of a video: `shape.frames` frames as players show them (upright, with square pixels),
    resampled to `fps` by nearest time.

    A video that ends before that is held on its last frame. Raises MediaError naming `name`.
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
            frames = tuple(_resampled(container.decode(stream), _rate(stream), pixel, shape, fps))
    except av.FFmpegError as error:
        raise MediaError(f"{name}: not a video that can be read ({len(data)} bytes): {error.strerror}") from error
    except MediaError:
        raise
    except Exception as error:  # as with images
        raise MediaError(f"{name}: a damaged video: {_told(error)}") from error
    if not frames:
        raise MediaError(f"{name}: a video without frames")
    return frames + (frames[-1],) * (shape.frames - len(frames))


def _within(image: Image.Image, shape: Shape) -> Image.Image:
    scale = min(1.0, shape.width / image.width, shape.height / image.height)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def fitted(image: Image.Image, shape: Shape) -> Image.Image:
    """Scale to cover width × height, and crop what overhangs equally on both sides."""
    if image.size == (shape.width, shape.height):
        return image
    return ImageOps.fit(image, (shape.width, shape.height), method=Image.Resampling.LANCZOS)


def _resampled(
    decoded: Iterator[Any], native_fps: Fraction, pixel: Fraction, shape: Shape, fps: float
) -> Iterator[Image.Image]:
    """Of every output instant k / fps, the frame that is on screen then."""
    wanted = 0
    shown: Any = None
    start: float | None = None
    for index, frame in enumerate(decoded):
        if frame.width * frame.height > MAX_VIDEO_PIXELS:  # a stream may grow after its header
            raise ValueError(f"frame {index} is {frame.width}×{frame.height}, more than {MAX_VIDEO_PIXELS:,} pixels")
        time_s = float(frame.time) if frame.time is not None else float(index / native_fps)
        start = time_s if start is None else start
        # The frame on screen before this one fills every instant up to this one's.
        while shown is not None and wanted < shape.frames and wanted / fps < time_s - start - 1e-6:
            yield fitted(_as_shown(shown, pixel), shape)
            wanted += 1
        shown = frame
        if wanted >= shape.frames or index >= MAX_VIDEO_FRAMES:
            return
    if shown is not None and wanted < shape.frames:
        yield fitted(_as_shown(shown, pixel), shape)


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
