"""Pictures and videos from strangers: fitted when they can be read, refused with a name when not."""

import io
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import models.media
from models.media import read_image, read_video
from schemas.errors import MediaError
from schemas.shape import Shape

SHAPE = Shape(width=64, height=32, frames=9)


def png(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def video(path: Path, frames: int, fps: int, side: int = 48) -> bytes:
    """Frame k is grey of value 10·k."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = side
        stream.options = {"crf": "1"}
        for k in range(frames):
            pixels = np.full((side, side, 3), 10 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def greys(frames: tuple[Image.Image, ...]) -> list[int]:
    return [round(float(np.asarray(frame).mean()) / 10) for frame in frames]


def test_an_image_is_cropped_around_its_centre() -> None:
    image = Image.new("RGB", (64, 64), "red")
    image.paste("blue", (0, 16, 64, 48))
    fitted = read_image(png(image), SHAPE)
    assert fitted.size == (64, 32)
    assert fitted.getpixel((32, 16)) == (0, 0, 255)
    assert fitted.getpixel((1, 30)) == (0, 0, 255), "the red above and below was cut off"


def test_a_photo_is_turned_upright() -> None:
    image = Image.new("RGB", (40, 80), "black")
    image.paste("white", (0, 0, 40, 40))  # stored lying; orientation 6 turns its top to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = read_image(png(image, "JPEG", exif=exif), Shape(width=80, height=40, frames=1))
    assert np.asarray(upright)[20, 70].mean() > 200
    assert np.asarray(upright)[20, 10].mean() < 50


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "CMYK", "I;16"])
def test_any_kind_of_pixels_becomes_rgb(mode: str) -> None:
    form = "TIFF" if mode in ("CMYK", "I;16") else "PNG"
    assert read_image(png(Image.new(mode, (64, 32)), form), SHAPE).mode == "RGB"


def test_what_is_transparent_becomes_white() -> None:
    assert read_image(png(Image.new("RGBA", (64, 32), (9, 9, 9, 0))), SHAPE).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("data", [b"", b"GIF89a but not really", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_image_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(MediaError, match=r"cat\.png: "):
        read_image(data, SHAPE, "cat.png")


def test_half_an_image_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = png(Image.fromarray(noise))
    with pytest.raises(MediaError, match="damaged image"):
        read_image(whole[: len(whole) // 2], SHAPE)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.media, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(MediaError, match="64×32 is more than 100 pixels"):
        read_image(png(Image.new("RGB", (64, 32))), SHAPE)


def test_a_video_at_the_clips_rate_comes_frame_by_frame(tmp_path: Path) -> None:
    frames = read_video(video(tmp_path / "a.mp4", 20, 8), SHAPE, 8)
    assert greys(frames) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert {frame.size for frame in frames} == {(64, 32)}


def test_a_faster_video_gives_every_second_frame(tmp_path: Path) -> None:
    assert greys(read_video(video(tmp_path / "a.mp4", 20, 16), SHAPE, 8)) == [0, 2, 4, 6, 8, 10, 12, 14, 16]


def test_a_slower_video_shows_its_frames_longer(tmp_path: Path) -> None:
    assert greys(read_video(video(tmp_path / "a.mp4", 20, 4), SHAPE, 8)) == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_a_short_video_is_held_on_its_last_frame(tmp_path: Path) -> None:
    assert greys(read_video(video(tmp_path / "a.mp4", 3, 8), SHAPE, 8)) == [0, 1, 2, 2, 2, 2, 2, 2, 2]


def test_what_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a", "b")
    for data in (b"", b"nothing", archive.read_bytes()):
        with pytest.raises(MediaError, match=r"dog\.mp4: "):
            read_video(data, SHAPE, 8, "dog.mp4")


def test_a_file_with_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="no video in it"):
        read_video(path.read_bytes(), SHAPE, 8)


def test_half_a_video_is_refused(tmp_path: Path) -> None:
    whole = video(tmp_path / "a.mp4", 20, 8)
    with pytest.raises(MediaError):
        read_video(whole[: len(whole) // 2], SHAPE, 8)
