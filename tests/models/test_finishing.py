"""Stages change pixels in the way that they say."""

import sys
from importlib.machinery import ModuleSpec
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.finishing import Finishing
from models.model import Frames
from schemas.errors import BadOutputError, ConfigError, VariantLoadError
from schemas.finish import FLOOR, Finisher, FinishStage, read_steps, resolved_finish
from schemas.shape import Shape

WIDTH, HEIGHT, FRAMES, FPS = 96, 64, 9, 8.0


def ball(at_frame: float, scale: int = 1) -> Frames:
    """A disc that moves four pixels a frame to the right."""
    y, x = np.mgrid[0 : HEIGHT * scale, 0 : WIDTH * scale] / scale
    picture = np.full((HEIGHT * scale, WIDTH * scale, 3), 40, np.uint8)
    picture[(x - 20 - 4 * at_frame) ** 2 + (y - 32) ** 2 < 144] = (250, 60, 30)
    return picture


CLIP = np.stack([ball(frame) for frame in range(FRAMES)])


def psnr_db(one: Frames, other: Frames) -> float:
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def done(*steps: dict[str, Any], clip: Frames = CLIP, finishing: Finishing | None = None) -> tuple[Frames, float]:
    told, wrong = read_steps(list(steps))
    height, width = clip.shape[1:3]
    shape = Shape(width=width, height=height, frames=len(clip))
    stages, issues = resolved_finish(told, shape, FPS, FLOOR)
    assert not (*wrong, *issues)
    fps = FPS
    for stage in stages:
        clip, fps = (finishing or Finishing()).apply(stage, clip, fps), stage.fps
    return clip, fps


def test_upscale_is_what_a_good_resampler_makes_of_it() -> None:
    large, _ = done({"upscale": 2})
    assert large.shape == (FRAMES, 2 * HEIGHT, 2 * WIDTH, 3)
    reference = np.stack(
        [np.asarray(Image.fromarray(one).resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.LANCZOS)) for one in CLIP]
    )
    repeated = CLIP.repeat(2, axis=1).repeat(2, axis=2)
    drawn = np.stack([ball(frame, scale=2) for frame in range(FRAMES)])
    assert psnr_db(large, reference) > 45
    assert psnr_db(large, drawn) > psnr_db(repeated, drawn)
    np.testing.assert_array_equal(large, done({"upscale": f"{2 * WIDTH}:{2 * HEIGHT}"})[0])


@pytest.mark.parametrize(("by", "least_db"), [("blend", 27.0), ("motion", 31.0)])
def test_interpolate_shows_what_was_between_and_lasts_as_long(by: str, least_db: float) -> None:
    smooth, fps = done({"interpolate": 24, "by": by})
    assert (len(smooth), fps) == (3 * FRAMES, 24.0)
    assert len(smooth) / fps == FRAMES / FPS
    # The frames there were stay where they were.
    assert psnr_db(smooth[::3], CLIP) > 45
    truth = np.stack([ball(frame / 3) for frame in range(3 * FRAMES)])
    moving = slice(0, 3 * FRAMES - 2)  # behind the last frame nothing is known
    held = CLIP.repeat(3, axis=0)
    assert psnr_db(smooth[moving], truth[moving]) > max(least_db, psnr_db(held[moving], truth[moving]) + 1)


def test_a_rate_that_is_no_multiple_keeps_the_length_to_a_frame() -> None:
    smooth, fps = done({"interpolate": 23.976})
    assert abs(len(smooth) / fps - FRAMES / FPS) <= 0.5 / fps


def test_fit_pads_crops_or_stretches() -> None:
    padded, _ = done({"fit": "pad", "size": "128:128"})
    cropped, _ = done({"fit": "crop", "size": "128:128"})
    stretched, _ = done({"fit": "stretch", "size": "128:128"})
    assert padded.shape == cropped.shape == stretched.shape == (FRAMES, 128, 128, 3)
    assert not padded[:, :20].any()
    assert not padded[:, -20:].any()
    whole = np.asarray(Image.fromarray(CLIP[0]).resize((128, 85), Image.Resampling.LANCZOS))
    assert psnr_db(padded[0, 21 : 21 + 85], whole) > 40
    middle = np.asarray(Image.fromarray(CLIP[4]).resize((192, 128), Image.Resampling.LANCZOS))[:, 32:-32]
    assert psnr_db(cropped[4], middle) > 40
    squeezed = np.asarray(Image.fromarray(CLIP[0]).resize((128, 128), Image.Resampling.LANCZOS))
    assert psnr_db(stretched[0], squeezed) > 40


def spots(frames: Frames) -> list[tuple[float, float, int]]:
    """(x, y, pixels) of what is red, by frame."""
    found = []
    for one in frames:
        y, x = np.nonzero(one[..., 0].astype(int) - one[..., 2] > 100)
        found.append((float(x.mean()) + 0.5, float(y.mean()) + 0.5, len(x)))
    return found


STILL = np.full((FRAMES, HEIGHT, WIDTH, 3), 40, np.uint8)  # with a disc in the middle, which rests
STILL[:, np.hypot(*(np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5 - np.array([HEIGHT, WIDTH])[:, None, None] / 2)) < 12] = (
    250,
    60,
    30,
)
LAST_S = (FRAMES - 1) / FPS


@pytest.mark.parametrize(
    ("key", "across", "down", "larger"),
    [
        ({"pan": 5}, -WIDTH * np.tan(np.radians(5)), 0.0, 1.0),
        ({"tilt": 3}, 0.0, WIDTH * np.tan(np.radians(3)), 1.0),
        ({"zoom": 1.5}, 0.0, 0.0, 1.5),
        ({"roll": 20}, 0.0, 0.0, 1.0),
    ],
)
def test_a_window_shows_what_a_camera_that_turns_and_zooms_would(
    key: dict[str, float], across: float, down: float, larger: float
) -> None:
    shown, _ = done({"reframe": [{"at_s": LAST_S, **key}]}, clip=STILL)
    first, last = spots(shown)[0], spots(shown)[-1]
    assert first[:2] == pytest.approx((shown.shape[2] / 2, shown.shape[1] / 2), abs=0.6), "at rest it is in the middle"
    assert (last[0] - first[0], last[1] - first[1]) == pytest.approx((across, down), abs=0.8)
    assert last[2] / first[2] == pytest.approx(larger**2, rel=0.06)


def test_a_window_turns_the_picture_against_the_camera() -> None:
    bar = np.full((FRAMES, HEIGHT, WIDTH, 3), 40, np.uint8)
    bar[:, HEIGHT // 2 - 2 : HEIGHT // 2 + 2] = (250, 60, 30)
    shown, _ = done({"reframe": [{"at_s": LAST_S, "roll": 20}]}, clip=bar)
    y, x = np.nonzero(shown[-1][..., 0].astype(int) - shown[-1][..., 2] > 100)
    slope = np.polyfit(x, y, 1)[0]
    assert np.degrees(np.arctan(slope)) == pytest.approx(-20, abs=1), "a camera that rolls clockwise sees it turn back"


@pytest.mark.parametrize("size", ["", "48:48", "192:128"])
def test_a_window_is_as_large_as_it_can_be_without_leaving_the_picture(size: str) -> None:
    """Pictures with bright edges: somewhere on the way the window touches one, and nowhere is beyond it."""
    edged = np.full((FRAMES, HEIGHT, WIDTH, 3), 250, np.uint8)
    edged[:, 3:-3, 3:-3] = 120
    step = {
        "reframe": [{"at_s": LAST_S, "pan": 6, "tilt": 2, "roll": 3, "zoom": 1.1}],
        **({"size": size} if size else {}),
    }
    shown, _ = done(step, clip=edged)
    assert shown.min() > 90
    assert shown.max() > 200


def test_a_window_that_shrinks_the_picture_skips_nothing() -> None:
    lines = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    lines[:, :, ::2] = 200
    shown, _ = done({"reframe": [{"at_s": LAST_S, "zoom": 1.02}], "size": "36:36"}, clip=lines)
    inside = shown[0, 4:-4, 4:-4].astype(float)
    assert np.abs(inside - 100).max() < 12, "every second line is bright: what is shown is grey"


def test_the_same_clip_gives_the_same_bytes() -> None:
    window = {"reframe": [{"at_s": 1, "roll": 5}]}
    steps = ({"interpolate": 16, "by": "motion"}, {"upscale": 1.5}, window, {"fit": "pad", "size": "200:128"})
    np.testing.assert_array_equal(done(*steps)[0], done(*steps)[0])


def network(weights: str = "/nowhere/net.safetensors") -> tuple[Finishing, FinishStage]:
    net = Finisher(name="net", method="spandrel", weights=weights)
    stage = FinishStage(operation="upscale", by="net", digest="", width=192, height=128, frames=FRAMES, fps=FPS)
    return Finishing({**FLOOR, "net": net}), stage


def test_a_network_without_its_library_is_refused_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    finishing, stage = network()
    with pytest.raises(ConfigError, match=r"need spandrel: pip install 'rushes\[finish\]'"):
        finishing.apply(stage, CLIP, FPS)


def test_a_network_beside_a_torchvision_that_does_not_fit_is_refused_with_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class DoesNotFit:
        """What an import of spandrel raises where torchvision was built for another torch."""

        def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
            if name == "spandrel":
                raise RuntimeError("operator torchvision::nms does not exist")
            return None

    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    monkeypatch.setattr(sys, "meta_path", [DoesNotFit(), *sys.meta_path])
    finishing, stage = network()
    with pytest.raises(ConfigError, match="torchvision is of another build than torch here: operator torchvision::nms"):
        finishing.apply(stage, CLIP, FPS)


def loads_spandrel() -> bool:
    try:
        import spandrel  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


with_spandrel = pytest.mark.skipif(not loads_spandrel(), reason="spandrel does not load here: pip install '.[finish]'")


def redder(path: Path, by: float = 20 / 255, scale: int = 2) -> str:
    """A real network, of Real-ESRGAN's compact kind with four channels: it repeats every pixel, and adds to its red."""
    channels, layers = 4, 2
    torch.manual_seed(0)
    weights: dict[str, torch.Tensor] = {}
    widths = [3, *[channels] * (layers + 1), 3 * scale**2]
    for number, (given, made) in enumerate(pairwise(widths)):
        weights[f"body.{2 * number}.weight"] = torch.randn(made, given, 3, 3)
        weights[f"body.{2 * number}.bias"] = torch.zeros(made)
        if number <= layers:
            weights[f"body.{2 * number + 1}.weight"] = torch.full((made,), 0.25)
    last = 2 * (layers + 1)
    weights[f"body.{last}.weight"].zero_()
    weights[f"body.{last}.bias"][: scale**2] = by
    save_file(weights, path)
    return str(path)


@with_spandrel
def test_a_network_makes_frames_larger_as_its_weights_say(tmp_path: Path) -> None:
    finishing, stage = network(redder(tmp_path / "net.safetensors"))
    large = finishing.apply(stage, CLIP, FPS)
    repeated = CLIP.repeat(2, axis=1).repeat(2, axis=2).astype(int)
    expected = np.clip(repeated + np.array([20, 0, 0]), 0, 255)
    assert np.abs(large.astype(int) - expected).max() <= 1


@with_spandrel
def test_a_network_is_called_until_frames_are_large_enough_and_the_rest_is_scaled_down(tmp_path: Path) -> None:
    finishing, stage = network(redder(tmp_path / "net.safetensors"))
    large = finishing.apply(stage.model_copy(update={"width": 288, "height": 192}), CLIP, FPS)
    assert large.shape == (FRAMES, 192, 288, 3)
    # Twice through the network: twice as much red.
    assert large[..., 0].mean(dtype=float) - CLIP[..., 0].mean(dtype=float) == pytest.approx(38, abs=3)
    assert large[..., 1:].mean(dtype=float) == pytest.approx(CLIP[..., 1:].mean(dtype=float), abs=1)


@with_spandrel
def test_a_network_that_makes_nothing_larger_or_is_none_is_refused(tmp_path: Path) -> None:
    finishing, stage = network(redder(tmp_path / "same.safetensors", scale=1))
    with pytest.raises(BadOutputError, match="makes nothing larger"):
        finishing.apply(stage, CLIP, FPS)
    save_file({"nobody.knows": torch.zeros(2)}, tmp_path / "other.safetensors")
    finishing, stage = network(str(tmp_path / "other.safetensors"))
    with pytest.raises(VariantLoadError, match="no network that spandrel knows"):
        finishing.apply(stage, CLIP, FPS)


def test_a_finisher_that_is_not_there_is_refused_with_those_that_are() -> None:
    _, stage = network()
    with pytest.raises(ConfigError, match="nobody called 'net' does upscale; available: lanczos"):
        Finishing().apply(stage, CLIP, FPS)
