"""Images and videos that requests bring, as pictures in the clip's own size. No torch.

Everything here reads what strangers send: sizes are checked before pixels are decoded.
"""

import io
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


def read_image(data: bytes, shape: Shape, name: str = "image") -> Image.Image:
    """Decode a still image: upright (EXIF), RGB, scaled to cover `shape` and cropped to it around the centre.

    Transparent pixels become white. Raises MediaError naming `name`.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            pixels = opened.width * opened.height
            if pixels > MAX_IMAGE_PIXELS:
                raise MediaError(f"{name}: {opened.width}×{opened.height} is more than {MAX_IMAGE_PIXELS:,} pixels")
            upright = ImageOps.exif_transpose(opened)
            return fitted(_opaque(upright), shape)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise MediaError(f"{name}: not an image that can be read ({len(data)} bytes): {error}") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's decoders raise all three on broken files
        raise MediaError(f"{name}: a damaged image: {error}") from error


def read_video(data: bytes, shape: Shape, fps: float, name: str = "video") -> tuple[Image.Image, ...]:
    """Decode the beginning of a video: `shape.frames` frames, resampled to `fps` by nearest time.

    A video that ends before that is held on its last frame. Raises MediaError naming `name`.
    """
    import av

    try:
        with av.open(io.BytesIO(data), mode="r", metadata_errors="replace") as container:
            if not container.streams.video:
                raise MediaError(f"{name}: no video in it")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_VIDEO_PIXELS:
                raise MediaError(f"{name}: {stream.width}×{stream.height} is more than {MAX_VIDEO_PIXELS:,} pixels")
            stream.thread_type = "AUTO"
            frames = tuple(_resampled(container.decode(stream), _rate(stream), shape, fps))
    except av.FFmpegError as error:
        raise MediaError(f"{name}: not a video that can be read ({len(data)} bytes): {error.strerror}") from error
    except (OSError, ValueError) as error:
        raise MediaError(f"{name}: a damaged video: {error}") from error
    if not frames:
        raise MediaError(f"{name}: a video without frames")
    return frames + (frames[-1],) * (shape.frames - len(frames))


def fitted(image: Image.Image, shape: Shape) -> Image.Image:
    """Scale to cover width × height, and crop what overhangs equally on both sides."""
    if image.size == (shape.width, shape.height):
        return image
    return ImageOps.fit(image, (shape.width, shape.height), method=Image.Resampling.LANCZOS)


def _resampled(decoded: Iterator[Any], native_fps: Fraction, shape: Shape, fps: float) -> Iterator[Image.Image]:
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
            yield fitted(shown.to_image(), shape)
            wanted += 1
        shown = frame
        if wanted >= shape.frames or index >= MAX_VIDEO_FRAMES:
            return
    if shown is not None and wanted < shape.frames:
        yield fitted(shown.to_image(), shape)


def _rate(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate
    return Fraction(rate) if rate else Fraction(25)


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")
