"""Figures of pixels on clips with known answers."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from evaluation.pixels import PixelStatistics
from evaluation.steadiness import mean_warp_error


def seen(frames: Sequence[np.ndarray] | np.ndarray) -> dict[str, float]:
    statistics = PixelStatistics()
    for frame in frames:
        statistics.add(Image.fromarray(np.asarray(frame, np.uint8)))
    return statistics.result()


def flat(*rgb: int, side: int = 48) -> np.ndarray:
    return np.broadcast_to(np.array(rgb, np.uint8), (side, side, 3))


def square(at: int, side: int = 64) -> np.ndarray:
    frame = np.full((side, side, 3), 40, np.uint8)
    frame[20:36, at : at + 16] = (220, 40, 40)
    return frame


def test_brightness_and_colour_of_flat_frames() -> None:
    white, grey, red = seen([flat(255, 255, 255)]), seen([flat(128, 128, 128)]), seen([flat(255, 0, 0)])
    assert white["brightness"] == pytest.approx(1)
    assert grey["brightness"] == pytest.approx(128 / 255)
    assert red["brightness"] == pytest.approx(0.2126)
    assert (grey["saturation"], red["saturation"]) == (0, 1)
    assert grey["colourfulness"] == pytest.approx(0, abs=1e-4)
    # Hasler and Süsstrunk: rg = 255, yb = 127.5, no spread.
    assert red["colourfulness"] == pytest.approx(0.3 * np.hypot(255, 127.5), rel=1e-5)
    assert red["contrast"] == pytest.approx(0, abs=1e-6)


def test_contrast_of_half_black_and_half_white_is_a_half() -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[:, 16:] = 255
    assert seen([frame])["contrast"] == pytest.approx(0.5)


def test_what_is_blurred_is_less_sharp() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    blurred = np.asarray(Image.fromarray(noise).resize((16, 16)).resize((64, 64)))
    assert seen([blurred])["sharpness"] < 0.2 * seen([noise])["sharpness"]
    assert seen([flat(9, 9, 9)])["sharpness"] == 0
    # One white pixel on black: the Laplacian is -4 and four times 1.
    dot = np.zeros((7, 7, 3), np.uint8)
    dot[3, 3] = 255
    assert seen([dot])["sharpness"] == pytest.approx(np.array([-4, 1, 1, 1, 1] + [0] * 20).var() * 255**2, rel=1e-5)


def test_motion_is_the_mean_change_and_a_still_clip_is_frozen() -> None:
    moving, still = seen([square(k) for k in range(10, 20)]), seen([square(10)] * 10)
    # 16 pixels leave and 16 come at each step.
    change = 2 * 16 * abs(square(0)[20, 0] @ [0.2126, 0.7152, 0.0722] - 40) / 64**2
    assert moving["motion"] == pytest.approx(change, rel=1e-4)
    assert (moving["frozen"], still["frozen"], still["motion"]) == (0, 1, 0)


def test_a_small_thing_that_moves_in_a_large_frame_is_no_freeze() -> None:
    frames = [np.full((720, 1280, 3), 40, np.uint8) for _ in range(3)]
    for k, frame in enumerate(frames):
        frame[300:330, 600 + 20 * k : 630 + 20 * k] = 200
    assert seen(frames)["frozen"] == 0


def test_noise_of_coding_is_no_motion() -> None:
    rng = np.random.default_rng(1)
    frames = [np.clip(square(10).astype(int) + rng.integers(-1, 2, (64, 64, 3)), 0, 255) for _ in range(5)]
    assert seen(frames)["frozen"] == 1


def test_flicker_is_seen_and_a_fade_is_none() -> None:
    fade = seen([flat(*[10 * k] * 3) for k in range(8)])
    flicker = seen([flat(*[100 + 20 * (k % 2)] * 3) for k in range(8)])
    assert fade["flicker"] == pytest.approx(0, abs=1e-3)
    assert flicker["flicker"] == pytest.approx(40)


def test_half_of_the_time_black_is_black() -> None:
    black, light = flat(8, 8, 8), flat(90, 90, 90)
    assert seen([black, light])["black"] == 1
    assert seen([black, light, light])["black"] == 0
    assert seen([square(10)] * 2)["black"] == 0


def test_one_frame_says_nothing_of_time_and_none_says_nothing() -> None:
    assert not {"motion", "frozen", "flicker"} & seen([flat(1, 2, 3)]).keys()
    with pytest.raises(ValueError, match="no frames"):
        seen([])


def test_a_large_clip_is_as_bright_as_a_small_one() -> None:
    large = np.random.default_rng(2).integers(0, 256, (18, 32, 3), dtype=np.uint8).repeat(40, 0).repeat(40, 1)
    small, big = seen([large[::40, ::40]]), seen([large])
    for name in ("brightness", "saturation"):
        assert big[name] == pytest.approx(small[name], rel=0.08)


def test_the_warped_error_is_of_the_steps_that_are_there() -> None:
    frames = {k: square(10 + k) for k in range(4)}
    flickering = {k: np.clip(frame.astype(int) + 40 * (k % 2), 0, 255).astype(np.uint8) for k, frame in frames.items()}
    steady, unsteady = mean_warp_error(frames, (0, 2)), mean_warp_error(flickering, (0, 2))
    assert steady is not None
    assert unsteady is not None
    assert steady < 0.2 * unsteady
    assert mean_warp_error(frames, (7,)) is None
