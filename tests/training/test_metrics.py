"""Distances between sets of clips, and the steadiness of one, on cases with known answers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.drawing import Scene, draw, move, sample
from training.features import TorchScriptFeatures
from training.metrics import (
    GradientHistograms,
    block_flow,
    compare,
    frechet_distance,
    kernel_distance,
    warp_error,
)


def clips(motion: str, count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        draw(Scene((move(rng, "circle", "red", motion, width=64, height=64),), "gray", 64, 64, 17))
        for _ in range(count)
    ]


def test_frechet_distance_of_two_gaussians_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (40_000, 3))
    y = rng.normal(0, 2, (40_000, 3)) + np.array([3.0, 0, 0])
    assert frechet_distance(x, y) == pytest.approx(9 + 3 * (2 - 1) ** 2, rel=0.03)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_about_zero_for_one_distribution_and_grows_with_the_gap() -> None:
    rng = np.random.default_rng(1)
    x, y, far = (rng.normal(shift, 1, (500, 8)) for shift in (0, 0, 1))
    assert abs(kernel_distance(x, y)) < 0.05
    assert kernel_distance(x, far) > 1


def test_clips_of_the_same_motion_are_closer_than_clips_of_another() -> None:
    features = GradientHistograms()
    still, again, moving = clips("still", 12, 2), clips("still", 12, 3), clips("left", 12, 4)
    assert compare(still, again, features).frechet < compare(still, moving, features).frechet


def test_one_clip_is_no_set() -> None:
    with pytest.raises(ValueError, match="two clips or more"):
        compare(clips("still", 1, 5), clips("still", 3, 6), GradientHistograms())


def test_flow_finds_a_shift_of_whole_pixels() -> None:
    rng = np.random.default_rng(7)
    before = rng.random((40, 40, 3))
    flow = block_flow(before, np.roll(before, (2, -3), axis=(0, 1)))
    assert (flow[10:-10, 10:-10] == (-2, 3)).all()


def test_warp_error_is_zero_for_a_still_clip_small_for_a_moving_one_and_large_for_flicker() -> None:
    still, moving = clips("still", 1, 8)[0][:5], clips("left", 1, 9)[0][:5]
    flicker = moving.copy()
    flicker[1::2] = np.clip(flicker[1::2].astype(int) + 40, 0, 255)
    assert warp_error(still) == 0
    assert warp_error(moving) < 0.25 * warp_error(flicker)


def test_features_can_come_from_any_torchscript_file(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d((4, 2, 2)), torch.nn.Flatten())
    path = tmp_path / "pooled.pt"
    torch.jit.trace(network, torch.zeros(1, 3, 16, 32, 32)).save(str(path))
    features = TorchScriptFeatures(path, size_px=32)
    assert features([draw(sample(np.random.default_rng(1))) for _ in range(2)]).shape == (2, 48)
    with pytest.raises(FileNotFoundError, match="no such file"):
        TorchScriptFeatures(tmp_path / "missing.pt")([np.zeros((17, 8, 8, 3), np.uint8)])
