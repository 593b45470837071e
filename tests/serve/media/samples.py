"""Media that are what they say, and media that are not. Made, not kept: each is a few lines."""

import functools
import io
import struct
import zipfile
import zlib
from fractions import Fraction

import av
import numpy as np
from PIL import Image


@functools.cache
def image(kind: str = "PNG", width: int = 48, height: int = 32, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert(mode).save(file, kind, **options)
    return file.getvalue()


@functools.cache
def video(
    container: str = "mp4", codec: str = "mpeg4", frames: int = 8, fps: int = 8, width: int = 64, height: int = 48
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            picture = np.full((height, width, 3), index * 7 % 255, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return file.getvalue()


@functools.cache
def long_video(seconds: int) -> bytes:
    """Two frames, far apart."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for at in (0, seconds):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@functools.cache
def sound() -> bytes:
    """An MP4 without a picture."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))


@functools.cache
def png_bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """One bit a pixel, all alike: 312 MB behind 300 kB, and 7.5 GB as RGB."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png_header(width, height) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


@functools.cache
def text_bomb() -> bytes:
    """A small picture with 200 MB of compressed text."""
    text = zlib.compress(b"a" * (200 << 20), 9)
    whole = image("PNG")
    return whole[:33] + png_chunk(b"zTXt", b"Comment\0\0" + text) + whole[33:]


@functools.cache
def animation(kind: str, frames: int) -> bytes:
    file = io.BytesIO()
    pictures = [Image.new("RGB", (8, 8), (i % 256, i // 256, 0)) for i in range(frames)]
    pictures[0].save(file, kind, save_all=True, append_images=pictures[1:], duration=10, lossless=True)
    return file.getvalue()


def webp_canvas(width: int, height: int) -> bytes:
    """Says how large it is, and has nothing."""
    canvas = b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas + b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
    return b"RIFF" + struct.pack("<I", len(body)) + body


def archive(of_zeros: int = 1 << 20, comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", b"\0" * of_zeros)
        packed.comment = comment
    return file.getvalue()


SVG = (
    b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
)
HTML = b"<!doctype html><script>alert(1)</script>"
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile '/etc/passwd'\n"
