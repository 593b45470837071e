"""Files that players play: every format is decoded again and compared."""

import json
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from actors.encoder import EncoderSettings, encode, frame_rate, poster, read_metadata
from models.model import Frames
from schemas.clip import ClipFormat
from schemas.errors import BadOutputError, MediaError

METADATA = {"prompt": "ein „blauer“ Würfel 🎲; =\n#x", "seed": 4294967295, "group": {"width": 96}, "none": None}


def clip(frames: int = 12, height: int = 48, width: int = 96) -> Frames:
    """Smooth ramps with a red and a green field, brighter from frame to frame."""
    y, x = np.mgrid[0:height, 0:width]
    out = np.stack([np.stack([x * 2, y * 3, np.full_like(x, 40 + 10 * k)], -1) for k in range(frames)]).astype(np.uint8)
    out[:, :16, :16] = (255, 0, 0)
    out[:, 24:40, 60:80] = (0, 255, 0)
    return out


def write(path: Path, frames: Frames, fps: float = 8, clip_format: ClipFormat = ClipFormat.MP4) -> Path:
    encode(frames, fps, clip_format, path, METADATA)
    return path


def decoded(path: Path) -> tuple[Frames, Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = (stream.codec_context.name, stream.average_rate, stream.codec_context.pix_fmt)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]), facts


@pytest.mark.parametrize(
    ("clip_format", "codec"), [(ClipFormat.MP4, "h264"), (ClipFormat.WEBM, "libdav1d|libvpx-vp9|vp9")]
)
def test_a_video_comes_back_with_its_frames_rate_and_colours(
    tmp_path: Path, clip_format: ClipFormat, codec: str
) -> None:
    frames = clip()
    back, (name, rate, pixels) = decoded(write(tmp_path / f"a.{clip_format.suffix}", frames, 16, clip_format))
    assert back.shape == frames.shape
    assert name in codec.split("|")
    assert rate == 16
    assert pixels == "yuv420p"
    assert np.abs(back.astype(int) - frames).mean() < 4
    assert np.abs(back[5, 8, 8].astype(int) - (255, 0, 0)).max() < 12
    assert np.abs(back[5, 32, 70].astype(int) - (0, 255, 0)).max() < 12


@pytest.mark.parametrize("clip_format", ClipFormat)
def test_what_was_rendered_is_inside_the_file(tmp_path: Path, clip_format: ClipFormat) -> None:
    assert read_metadata(write(tmp_path / f"a.{clip_format.suffix}", clip(), 8, clip_format)) == METADATA


@pytest.mark.parametrize("clip_format", ClipFormat)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, clip_format: ClipFormat) -> None:
    one = write(tmp_path / f"one.{clip_format.suffix}", clip(), 8, clip_format)
    two = write(tmp_path / f"two.{clip_format.suffix}", clip(), 8, clip_format)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("clip_format", [ClipFormat.MP4, ClipFormat.WEBM])
def test_what_else_lies_in_memory_does_not_reach_the_file(tmp_path: Path, clip_format: ClipFormat) -> None:
    # A panned texture, 64 wide: with x264's macroblock tree on, most of these files would differ from each other.
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 60, (80, 96, 3), np.uint8)
    panned = np.stack([texture[k : k + 64, 2 * k : 2 * k + 64] for k in range(16)])
    frames = clip(16, 64, 64) // 2 + panned
    files = set()
    for _ in range(25):
        around = [rng.integers(0, 255, size, np.uint8) for size in rng.integers(100, 300_000, 6)]
        files.add(write(tmp_path / f"a.{clip_format.suffix}", frames, 8, clip_format).read_bytes())
        del around
    assert len(files) == 1


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    here = write(tmp_path / "here.mp4", clip())
    code = (
        "import sys; from pathlib import Path; from tests.actors.test_encoder import clip, write;"
        "write(Path(sys.argv[1]), clip())"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there.mp4")], check=True)
    assert here.read_bytes() == (tmp_path / "there.mp4").read_bytes()


def test_an_mp4_begins_with_its_index(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp4", clip()).read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_a_player_finds_a_title(tmp_path: Path) -> None:
    with av.open(str(write(tmp_path / "a.mp4", clip()))) as container:
        assert container.metadata["title"] == METADATA["prompt"]


def test_an_odd_side_is_padded_by_its_own_edge(tmp_path: Path) -> None:
    frames = clip(3, 33, 47)
    back, _ = decoded(write(tmp_path / "a.mp4", frames))
    assert back.shape == (3, 34, 48, 3)
    assert np.abs(back[:, 33].astype(int) - back[:, 32]).mean() < 8


def test_one_frame_is_a_video_too(tmp_path: Path) -> None:
    back, _ = decoded(write(tmp_path / "a.mp4", clip(1)))
    assert len(back) == 1


def test_a_gif_keeps_count_and_length(tmp_path: Path) -> None:
    with Image.open(write(tmp_path / "a.gif", clip(24), 24, ClipFormat.GIF)) as image:
        durations = []
        for index in range(image.n_frames):
            image.seek(index)
            durations.append(image.info["duration"])
    assert len(durations) == 24
    assert sum(durations) == 1000


def test_pngs_are_exact(tmp_path: Path) -> None:
    frames = clip(3)
    with zipfile.ZipFile(write(tmp_path / "a.zip", frames, 8, ClipFormat.PNG)) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        back = np.stack([np.asarray(Image.open(archive.open(name))) for name in names])
        assert json.loads(archive.read("metadata.json")) == METADATA
    assert names == ["frame-00001.png", "frame-00002.png", "frame-00003.png"]
    assert (back == frames).all()


def test_a_poster_is_the_middle_frame(tmp_path: Path) -> None:
    frames = clip(5)
    (tmp_path / "p.jpg").write_bytes(poster(frames))
    with Image.open(tmp_path / "p.jpg") as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image).astype(int) - frames[2]).mean() < 12


def test_quality_is_a_setting(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    sizes = []
    for crf in (10, 40):
        encode(noise, 8, ClipFormat.MP4, tmp_path / "a.mp4", {}, EncoderSettings(crf=crf))
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (24, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (7.5, Fraction(15, 2)),
        (0.5, Fraction(1, 2)),
    ],
)
def test_decimal_rates_become_the_fractions_they_mean(fps: float, expected: Fraction) -> None:
    assert frame_rate(fps) == expected


@pytest.mark.parametrize(
    "frames",
    [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)],
)
def test_what_is_no_clip_is_refused(tmp_path: Path, frames: Any) -> None:
    with pytest.raises(BadOutputError, match="a clip is uint8"):
        encode(frames, 8, ClipFormat.MP4, tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.zip"])
def test_a_file_of_somebody_else_has_no_metadata(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(MediaError, match=name):
        read_metadata(tmp_path / name)
