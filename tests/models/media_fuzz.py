"""Images and videos, mutated: whatever their bytes, they are read or refused with a MediaError.

`tests.failures.media_fuzz` takes them through planning and the endpoint's intake as well.
"""

import io
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from models.media import read_image, read_video
from schemas.errors import MediaError
from schemas.shape import Shape

SHAPE = Shape(width=64, height=32, frames=5)
IMAGES = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM", "TGA")
VIDEOS = ("mp4", "mkv", "avi", "ts")


def quarters(path: Path, pixel: Fraction | None = None) -> bytes:
    """A landscape video: yellow and red above green and black."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :, 0] = 255
    pixels[:, :32, 1] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height = 64, 48
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def samples(folder: Path) -> list[tuple[bool, bytes]]:
    """Small files of many formats; whether each is a video."""
    picture = Image.effect_noise((48, 32), 60).convert("RGB")
    found = []
    for form in IMAGES:
        out = io.BytesIO()
        picture.save(out, form)
        found.append((False, out.getvalue()))
    return [*found, *((True, quarters(folder / f"v.{kind}")) for kind in VIDEOS)]


def mutated(chance: random.Random, media: list[tuple[bool, bytes]]) -> tuple[bool, bytes]:
    """One of the files, changed in one to six places; whether it was a video."""
    is_video, data = chance.choice(media)
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(changed))
        what = chance.random()
        if what < 0.6:
            changed[at] = chance.randrange(256)
        elif what < 0.8:
            del changed[at : at + chance.randint(1, 60)]
        elif what < 0.9:
            changed[at:at] = changed[at : at + chance.randint(1, 60)]
        else:
            changed[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        if not changed:
            break
    return is_video, bytes(changed)


def rendered(is_video: bool, data: bytes) -> str:
    """How a worker reads it. Any error but MediaError is a finding."""
    try:
        if is_video:
            read_video(data, SHAPE, 8.0)
        else:
            read_image(data, SHAPE)
    except MediaError:
        return "refused"
    return "read"


def run(seed: int, media: list[tuple[bool, bytes]]) -> str:
    """One mutated file; how it went."""
    return rendered(*mutated(random.Random(seed), media))
