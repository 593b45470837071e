"""A stored clip back into frames: for contact sheets, checks and measurements."""

import io
import itertools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from models.model import Sound
from schemas.clip import ClipFormat
from schemas.errors import MediaError


def read_frames(data: bytes, clip_format: ClipFormat) -> list[Image.Image]:
    """Every frame of a clip as RGB. Raises MediaError when the bytes are no such clip."""
    try:
        if clip_format is ClipFormat.PNG:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return list(_unpacked(archive))
        if clip_format is ClipFormat.GIF:
            return [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]
        with av.open(io.BytesIO(data)) as container:
            return [frame.to_image() for frame in container.decode(video=0)]
    except (av.FFmpegError, OSError, zipfile.BadZipFile) as error:
        raise MediaError(f"not a readable {clip_format.value} clip: {error}") from error


def read_sound(data: bytes) -> Sound | None:
    """The sound of a clip in an MP4 or WebM; None where it has none. Raises MediaError."""
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.audio:
                return None
            track = container.streams.audio[0]
            to_float = av.AudioResampler("fltp", track.layout, track.rate)
            pieces = [piece for frame in container.decode(track) for piece in to_float.resample(frame)]
            samples = np.concatenate([piece.to_ndarray() for piece in pieces], axis=1)
            return Sound(samples.astype(np.float32), int(track.rate))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"no readable sound: {error}") from error


@dataclass(frozen=True)
class Reel:
    """A clip that is being decoded. `fps` is None where the format does not say (PNGs in a zip) or only roughly
    (GIF)."""

    fps: float | None
    pictures: Iterator[Image.Image]


@contextmanager
def opened(path: Path) -> Iterator[Reel]:
    """A file that may be a clip of ours, a video or an image: its pictures, as RGB, one at a time. Raises MediaError,
    also for what is found only as they are taken."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield Reel(None, _unpacked(archive))
            return
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            pass
        else:
            with image:
                yield Reel(None, (frame.convert("RGB") for frame in ImageSequence.Iterator(image)))
            return
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
            yield Reel(float(rate) if rate else None, (frame.to_image() for frame in container.decode(video=0)))
    except (av.FFmpegError, OSError, IndexError, ValueError, Image.DecompressionBombError, zipfile.BadZipFile) as error:
        raise MediaError(f"{path.name}: no pictures in it: {error}") from error


def first_pictures(path: Path, most: int) -> list[Image.Image]:
    """Up to so many pictures of a file that may be a clip of ours, a video or an image. Raises MediaError."""
    with opened(path) as reel:
        return list(itertools.islice(reel.pictures, most))


def _unpacked(archive: zipfile.ZipFile) -> Iterator[Image.Image]:
    for name in sorted(name for name in archive.namelist() if name.endswith(".png")):
        yield Image.open(io.BytesIO(archive.read(name))).convert("RGB")
