"""Stages change pixels in the way that they say."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.finishing import Finishing
from models.model import Frames
from schemas.errors import ConfigError
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


def test_the_same_clip_gives_the_same_bytes() -> None:
    steps = ({"interpolate": 16, "by": "motion"}, {"upscale": 1.5}, {"fit": "pad", "size": "200:128"})
    np.testing.assert_array_equal(done(*steps)[0], done(*steps)[0])


def network(weights: str = "/nowhere/net.safetensors") -> tuple[Finishing, FinishStage]:
    net = Finisher(name="net", method="spandrel", weights=weights)
    stage = FinishStage(operation="upscale", by="net", digest="", width=192, height=128, frames=FRAMES, fps=FPS)
    return Finishing({**FLOOR, "net": net}), stage


def test_a_network_without_its_library_is_refused_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    finishing, stage = network()
    with pytest.raises(ConfigError, match=r"need spandrel: pip install 'rushes\[finish\]'"):
        finishing.apply(stage, CLIP, FPS)


def test_a_finisher_that_is_not_there_is_refused_with_those_that_are() -> None:
    _, stage = network()
    with pytest.raises(ConfigError, match="nobody called 'net' does upscale; available: lanczos"):
        Finishing().apply(stage, CLIP, FPS)
