"""Pictures and videos from strangers: fitted when they can be read, refused with a name when not."""

import io
import struct
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import models.media
from models.media import Cut, read_image, read_video
from schemas.errors import MediaError
from schemas.shape import Shape
from tests.models.media_fuzz import quarters, run, samples

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


def turned(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """The same MP4 with another matrix in its track header, as phones write it."""
    at = data.index(b"tkhd")
    at += 8 + (32 if data[at + 4] else 20) + 16
    a, b, c, d = (value << 16 for value in matrix)
    return data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]


def corners(image: Image.Image) -> str:
    names = {(True, True): "y", (True, False): "r", (False, True): "g", (False, False): "k"}
    places = [(2, 2), (image.width - 3, 2), (2, image.height - 3), (image.width - 3, image.height - 3)]
    pixels = [image.getpixel(place) for place in places]
    return "".join(names[red > 128, green > 128] for red, green, _ in pixels)  # type: ignore[misc, index, operator]


@pytest.mark.parametrize(
    ("matrix", "size", "shown"),
    [
        ((1, 0, 0, 1), (64, 48), "yrgk"),
        ((0, 1, -1, 0), (48, 64), "gykr"),
        ((-1, 0, 0, -1), (64, 48), "kgry"),
        ((0, -1, 1, 0), (48, 64), "rkyg"),
        ((-1, 0, 0, 1), (64, 48), "rykg"),
        ((1, 0, 0, -1), (64, 48), "gkyr"),
    ],
)
def test_a_video_is_upright_as_its_matrix_says(
    tmp_path: Path, matrix: tuple[int, int, int, int], size: tuple[int, int], shown: str
) -> None:
    data = turned(quarters(tmp_path / "v.mp4"), matrix)
    frames = read_video(data, Shape(width=size[0], height=size[1], frames=4), 8)
    assert {corners(frame) for frame in frames} == {shown}


@pytest.mark.parametrize(("pixel", "size"), [(Fraction(2), (128, 48)), (Fraction(1, 2), (64, 96))])
def test_pixels_of_a_video_are_made_square(tmp_path: Path, pixel: Fraction, size: tuple[int, int]) -> None:
    data = quarters(tmp_path / "v.mp4", pixel)
    # Nothing is cropped only where the proportions are right: all four corners are there.
    frames = read_video(data, Shape(width=size[0], height=size[1], frames=2), 8)
    assert corners(frames[0]) == "yrgk"
    middle = np.asarray(frames[0]).astype(int)
    assert abs(middle[:, size[0] // 2 - 4, 1].max() - 255) < 12
    assert middle[: size[1] // 2 - 4, size[0] // 2 + 4, 1].max() < 40


def test_a_video_that_nothing_here_decodes_is_refused_by_name(tmp_path: Path) -> None:
    data = quarters(tmp_path / "v.mp4").replace(b"avc1", b"zzzz")
    with pytest.raises(MediaError, match=r"^a\.mp4: a video of a format that cannot be decoded here"):
        read_video(data, SHAPE, 8, "a.mp4")


def test_mutated_media_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    media = samples(tmp_path)
    outcomes = {run(seed, media) for seed in range(500)}
    assert outcomes == {"read", "refused"}


CUTS: list[tuple[Cut, list[int]]] = [
    (Cut(), [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    (Cut(start_s=0.5), [4, 5, 6, 7, 8, 9, 10, 11, 12]),
    (Cut(start_s=0.5, end_s=1.0), [4, 5, 6, 7, 7, 7, 7, 7, 7]),
    (Cut(speed=2), [0, 2, 4, 6, 8, 10, 12, 14, 16]),
    (Cut(speed=0.5), [0, 0, 1, 1, 2, 2, 3, 3, 4]),
    (Cut(reverse=True), [8, 7, 6, 5, 4, 3, 2, 1, 0]),
    (Cut(reverse=True, end_s=2.0), [15, 14, 13, 12, 11, 10, 9, 8, 7]),
    (Cut(reverse=True, start_s=2.0), [19, 18, 17, 16, 16, 16, 16, 16, 16]),
    (Cut(reverse=True, start_s=1.0, end_s=1.5), [11, 10, 9, 8, 8, 8, 8, 8, 8]),
    (Cut(speed=4), [0, 4, 8, 12, 16, 19, 19, 19, 19]),
    (Cut(reverse=True, speed=2, end_s=60), [19, 18, 16, 14, 12, 10, 8, 6, 4]),
    (Cut(start_s=2.25, speed=0.5), [18, 18, 19, 19, 19, 19, 19, 19, 19]),
]


@pytest.mark.parametrize(("cut", "shown"), CUTS)
def test_a_part_of_a_video_is_used_at_its_speed_and_in_its_direction(
    tmp_path: Path, cut: Cut, shown: list[int]
) -> None:
    data = video(tmp_path / "v.mp4", frames=20, fps=8)
    assert greys(read_video(data, SHAPE, 8, cut=cut)) == shown


def test_time_is_what_frames_say_not_how_many_there_are(tmp_path: Path) -> None:
    data = video(tmp_path / "v.mp4", frames=20, fps=4)
    assert greys(read_video(data, SHAPE, 8, cut=Cut(speed=2))) == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_a_part_that_the_video_does_not_reach_is_refused(tmp_path: Path) -> None:
    data = video(tmp_path / "v.mp4", frames=20, fps=8)
    with pytest.raises(MediaError, match="v: it ends before 3 s, where it is to start"):
        read_video(data, SHAPE, 8, "v", Cut(start_s=3))
