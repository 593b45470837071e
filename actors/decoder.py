"""A stored clip back into frames: for contact sheets and checks."""

import io
import zipfile

import av
from PIL import Image, ImageSequence

from schemas.clip import ClipFormat
from schemas.errors import MediaError


def read_frames(data: bytes, clip_format: ClipFormat) -> list[Image.Image]:
    """Every frame of a clip as RGB. Raises MediaError when the bytes are no such clip."""
    try:
        if clip_format is ClipFormat.PNG:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = sorted(name for name in archive.namelist() if name.endswith(".png"))
                return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
        if clip_format is ClipFormat.GIF:
            return [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]
        with av.open(io.BytesIO(data)) as container:
            return [frame.to_image() for frame in container.decode(video=0)]
    except (av.FFmpegError, OSError, zipfile.BadZipFile) as error:
        raise MediaError(f"not a readable {clip_format.value} clip: {error}") from error
