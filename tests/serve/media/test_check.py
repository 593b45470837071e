"""What a file is, and what it unfolds to."""

import random
import resource
import time
from contextlib import suppress
from pathlib import Path

import pytest

from schemas.errors import InvalidRequestError
from serve.config import MediaLimits
from serve.media.check import Kind, check
from tests.serve.media import samples

LIMITS = MediaLimits()
IMAGES = {
    "png": samples.image("PNG"),
    "transparent png": samples.image("PNG", mode="RGBA"),
    "grey png": samples.image("PNG", mode="L"),
    "jpg": samples.image("JPEG"),
    "progressive jpg": samples.image("JPEG", progressive=True),
    "cmyk jpg": samples.image("JPEG", mode="CMYK"),
    "webp": samples.image("WEBP"),
    "lossless webp": samples.image("WEBP", lossless=True),
    "transparent webp": samples.image("WEBP", mode="RGBA"),
}
VIDEOS = {
    "mp4": (samples.video("mp4"), "video/mp4"),
    "mov": (samples.video("mov"), "video/quicktime"),
    "webm": (samples.video("webm", "libvpx"), "video/webm"),
    "mkv": (samples.video("matroska"), "video/x-matroska"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "media"


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES)
def test_a_still_is_taken(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    found = check(file, Kind.IMAGE, LIMITS, "promptImage")
    assert (found.width, found.height, found.frames) == (48, 32, 1)


@pytest.mark.parametrize(("data", "content_type"), VIDEOS.values(), ids=VIDEOS)
def test_a_video_is_taken(file: Path, data: bytes, content_type: str) -> None:
    file.write_bytes(data)
    found = check(file, Kind.VIDEO, LIMITS, "videoUri", declared=content_type)
    assert (found.width, found.height, found.frames) == (64, 48, 8)
    assert found.duration_s == pytest.approx(1.0, abs=0.15)
    assert found.format.content_type == content_type


REFUSED_IMAGES = {
    "nothing": (b"", "empty"),
    "one byte": (b"\x89", "not image"),
    "noise": (random.Random(0).randbytes(5000), "not image"),
    "svg": (samples.SVG, "not image"),
    "html": (samples.HTML, "not image"),
    "gif": (samples.image("GIF"), "not image"),
    "a gif of thousands": (samples.animation("GIF", 3000), "not image"),
    "bmp": (samples.image("BMP"), "not image"),
    "tiff": (samples.image("TIFF"), "not image"),
    "ico": (samples.image("ICO"), "not image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not image"),
    "zip": (samples.archive(), "not image"),
    "a video": (samples.video("mp4"), "video/mp4, not image"),
    "an apng of thousands": (samples.animation("PNG", 2000), "animation"),
    "a webp of hundreds": (samples.animation("WEBP", 300), "animation"),
    "only a png's signature": (b"\x89PNG\r\n\x1a\n", "header is cut short"),
    "only a webp's": (b"RIFF\0\0\0\0WEBPVP8 ", "header is cut short"),
    "a webp of another kind": (b"RIFF\x20\0\0\0WEBPJUNK" + b"\0" * 40, "header is cut short"),
    "half a png": (samples.image("PNG", 300, 200)[:-200], "damaged png"),
    "half a jpg": (samples.image("JPEG", 300, 200)[:-200], "damaged jpg"),
    "half a webp": (samples.image("WEBP", 300, 200, lossless=True)[:-40], "damaged webp"),
    "a png without pixels": (samples.png_header(0, 9) + samples.png_chunk(b"IEND", b""), "no pixels"),
    "a png without data": (samples.png_header(9, 9) + samples.png_chunk(b"IEND", b""), "damaged png"),
    "a png with more text than sense": (samples.text_bomb(), "damaged png"),
    "a png that is also a zip": (samples.image("PNG") + samples.archive(), "archive"),
    "a jpg that is also a zip": (samples.image("JPEG") + samples.archive(comment=b"x" * 999), "archive"),
    "a webp that is also a zip": (samples.image("WEBP") + samples.archive(), "archive"),
    "a png that is also a page": (samples.image("PNG") + samples.HTML, "behind its end"),
    "a webp that is also a page": (samples.image("WEBP") + samples.HTML, "behind its end"),
    "a jpg that is also a document": (b"\xff\xd8\xff\xfe\0\x10%PDF-1.7" + samples.image("JPEG")[2:], "document"),
}


@pytest.mark.parametrize(("data", "why"), REFUSED_IMAGES.values(), ids=REFUSED_IMAGES)
def test_what_is_no_still_is_refused_by_name(file: Path, data: bytes, why: str) -> None:
    file.write_bytes(data)
    with pytest.raises(InvalidRequestError, match=why) as refused:
        check(file, Kind.IMAGE, LIMITS, "promptImage")
    assert refused.value.issues[0].path == "promptImage"
    assert str(file) not in str(refused.value)


REFUSED_VIDEOS = {
    "a still": (samples.image("PNG"), "image/png, not video"),
    "a playlist": (samples.PLAYLIST, "not video"),
    "a list of files": (samples.CONCAT, "not video"),
    "an avi": (samples.video("avi"), "not video"),
    "only sound": (samples.sound(), "no video in it"),
    "half an mp4": (samples.video("mp4")[:-600], "damaged mp4|no video"),
    "an mp4 of nothing": (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + b"\0" * 100, "damaged mp4|no video"),
    "an mp4 of noise": (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + random.Random(1).randbytes(9000), "damaged|no video"),
    "a webm of noise": (samples.video("webm", "libvpx")[:60] + random.Random(2).randbytes(9000), "damaged|no video"),
    "an avif": (b"\0\0\0\x1cftypavif" + b"\0" * 100, "not video"),
    "an mp4 that is also a zip": (samples.video("mp4") + samples.archive(), "archive"),
    "an hour": (samples.long_video(3600), "more than 60 s"),
    "a minute and a half": (samples.long_video(90), "more than 60 s"),
}


@pytest.mark.parametrize(("data", "why"), REFUSED_VIDEOS.values(), ids=REFUSED_VIDEOS)
def test_what_is_no_video_is_refused_by_name(file: Path, data: bytes, why: str) -> None:
    file.write_bytes(data)
    with pytest.raises(InvalidRequestError, match=why) as refused:
        check(file, Kind.VIDEO, LIMITS, "keyframes.0.uri")
    assert refused.value.issues[0].path == "keyframes.0.uri"


BOMBS = {
    "png": samples.png_bomb(),
    "webp": samples.webp_canvas(16_383, 16_383),
    "webp beyond its format": samples.webp_canvas(1 << 24, 1 << 24),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_by_its_header(file: Path, data: bytes) -> None:
    """Without memory for it, and at once."""
    file.write_bytes(data)
    before_kib, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(InvalidRequestError, match="more than 64,000,000 pixels"):
        check(file, Kind.IMAGE, LIMITS, "promptImage")
    assert time.perf_counter() - start < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 50_000


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_no_decoder_sees_a_bomb(file: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening is enough for some: they make room for the canvas first."""
    opened: list[object] = []
    monkeypatch.setattr("PIL.Image.open", lambda *given, **named: opened.append(given))
    file.write_bytes(data)
    with pytest.raises(InvalidRequestError, match="more than 64,000,000 pixels"):
        check(file, Kind.IMAGE, LIMITS, "promptImage")
    assert opened == []


def test_a_jpg_that_says_more_pixels_than_it_has_is_refused_by_its_header(file: Path) -> None:
    data = bytearray(samples.image("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    file.write_bytes(data)
    with pytest.raises(InvalidRequestError, match="more than 64,000,000 pixels"):
        check(file, Kind.IMAGE, LIMITS, "promptImage")


def test_pixels_of_a_video_are_limited_too(file: Path) -> None:
    file.write_bytes(samples.video("mp4", width=640, height=480))
    with pytest.raises(InvalidRequestError, match="640×480 is more than 300,000 pixels"):
        check(file, Kind.VIDEO, MediaLimits(max_pixels=300_000), "videoUri")


def test_frames_of_a_video_are_counted_not_believed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.media.check.MAX_FRAMES", 7)
    file.write_bytes(samples.video("mp4"))
    with pytest.raises(InvalidRequestError, match="more than 7 frames"):
        check(file, Kind.VIDEO, LIMITS, "videoUri")


def test_a_duration_that_the_header_hides_is_found(file: Path) -> None:
    """A Matroska whose duration says nothing: the packets tell."""
    data = samples.video("matroska", frames=80, fps=1)
    at = data.index(b"\x44\x89\x88")  # Duration, eight bytes
    file.write_bytes(data[: at + 3] + b"\0" * 8 + data[at + 11 :])
    with pytest.raises(InvalidRequestError, match="more than 60 s"):
        check(file, Kind.VIDEO, LIMITS, "videoUri")


@pytest.mark.parametrize("declared", ["image/png", "IMAGE/PNG", "image/png; charset=binary"])
def test_a_true_content_type_is_taken(file: Path, declared: str) -> None:
    file.write_bytes(samples.image("PNG"))
    check(file, Kind.IMAGE, LIMITS, "promptImage", declared=declared)


@pytest.mark.parametrize("declared", ["image/jpeg", "application/octet-stream", "text/html", "", "image/*", "png"])
def test_a_false_content_type_is_refused(file: Path, declared: str) -> None:
    file.write_bytes(samples.image("PNG"))
    with pytest.raises(InvalidRequestError, match="but it is image/png"):
        check(file, Kind.IMAGE, LIMITS, "promptImage", declared=declared)


def test_a_picture_with_a_camera_s_trailer_is_taken(file: Path) -> None:
    file.write_bytes(samples.image("JPEG") + samples.video("mp4"))
    check(file, Kind.IMAGE, LIMITS, "promptImage")


def test_damage_anywhere_is_an_error_of_ours_or_none(file: Path) -> None:
    """Every kind, bytes flipped and cut at random: nothing else may come out, and it takes no memory to speak of."""
    dice = random.Random(7)
    everything = [*IMAGES.values(), *(data for data, _ in VIDEOS.values())]
    for _ in range(300):
        data = bytearray(dice.choice(everything))
        for _ in range(dice.randint(1, 12)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        file.write_bytes(data[: dice.randint(len(data) // 2, len(data))])
        with suppress(InvalidRequestError):
            check(file, None, LIMITS, "promptImage")
