"""The mark is found after what happens to clips, is not seen, and is not found where there is none."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.watermark_robustness import as_gif, coded, scaled, texture
from trust.watermark import GRID, Pixels, _cells, _cosines, _projections, _scores, detect, embed, keys

PAYLOAD = bytes.fromhex("0123456789abcdef")


def textured(seed: int, frames: int = 6, width: int = 512, height: int = 320) -> Pixels:
    return texture(seed, frames, width, height, pan=1, least_fall=0.8)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "nothing": lambda frames: frames,
    "CRF 28": lambda frames: coded(frames, 28),
    "half the size, CRF 28": lambda frames: coded(scaled(frames, 0.5), 28),
    "double the size": lambda frames: scaled(frames, 2.0),
    "a tenth of each side cut off, CRF 28": lambda frames: coded(frames[:, 16:-16, 26:-26], 28),
    "a tenth cut off above and left, CRF 28": lambda frames: coded(frames[:, 32:, 51:], 28),
    "every second frame, CRF 28": lambda frames: coded(frames[::2], 28),
    "the last frame alone": lambda frames: frames[-1:],
    "GIF": lambda frames: as_gif(frames[:3]),
    "brighter": lambda frames: np.clip(frames.astype(int) + 12, 0, 255).astype(np.uint8),
}


@pytest.fixture(scope="module")
def marked() -> Pixels:
    return coded(embed(textured(1), PAYLOAD), 20)


@pytest.mark.parametrize("change", CHANGES)
def test_the_mark_is_read_after(marked: Pixels, change: str) -> None:
    found = detect(CHANGES[change](marked))
    assert found is not None
    assert found.payload == PAYLOAD
    assert found.false_alarms < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_the_mark_is_not_seen(seed: int) -> None:
    clip = textured(seed, frames=2)
    error = np.mean((embed(clip, PAYLOAD).astype(float) - clip) ** 2)
    assert 10 * math.log10(255**2 / error) >= 42.0


def test_a_flat_and_a_saturated_picture_do_no_harm() -> None:
    for value in (0, 128, 255):
        flat = np.full((1, 256, 256, 3), value, np.uint8)
        assert int(np.max(np.abs(embed(flat, PAYLOAD).astype(int) - value))) <= 16
    found = detect(embed(np.full((1, 256, 256, 3), 128, np.uint8), PAYLOAD))
    assert found is not None
    assert found.payload == PAYLOAD


@pytest.mark.parametrize(("ground", "shape"), [((0, 0, 0), (255, 0, 0)), ((0, 0, 255), (255, 255, 0))])
def test_a_drawing_in_pure_colours_keeps_its_mark_when_it_is_published(
    ground: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    frames = np.full((9, 256, 256, 3), ground, np.uint8)
    y, x = np.mgrid[0:256, 0:256]
    for at, frame in enumerate(frames):
        frame[(x - 64 - at * 12) ** 2 + (y - 128) ** 2 < 42**2] = shape
    marked = embed(frames, PAYLOAD)
    error = np.mean((marked.astype(float) - frames) ** 2)
    assert 10 * math.log10(255**2 / error) >= 42.0
    found = detect(coded(marked, 20))
    assert found is not None
    assert found.payload == PAYLOAD


def test_what_has_three_pixels_a_cell_is_not_seen_either() -> None:
    y, x = np.mgrid[0:192, 0:192]
    ramp = np.stack([x * 255 // 192, y * 255 // 192, (x + y) * 255 // 384], -1).astype(np.uint8)[None]
    error = np.mean((embed(ramp, PAYLOAD).astype(float) - ramp) ** 2)
    assert 10 * math.log10(255**2 / error) >= 41.95


def test_a_clip_without_room_is_left_alone() -> None:
    small = np.zeros((2, 48, 96, 3), np.uint8)
    assert embed(small, PAYLOAD) is small
    assert detect(small) is None
    assert detect(np.zeros((1, 8, 8, 3), np.uint8)) is None
    assert detect([]) is None


@pytest.mark.parametrize("seed", range(6))
def test_where_there_is_no_mark_none_is_found(seed: int) -> None:
    assert detect(textured(100 + seed, frames=3)) is None


def test_scores_of_unmarked_pictures_keep_the_bound_that_the_threshold_is_derived_from() -> None:
    everywhere = np.ones(GRID * GRID // 16, bool)
    pictures = (textured(seed, 1, 128, 128)[0] for seed in range(1500))
    scores = np.array([_scores(_cosines(_projections(_cells(p)[0]))[None], everywhere)[0] for p in pictures])
    for threshold in (1.0, 2.0, 3.0, 4.0):
        most = math.exp(-threshold)
        share = float(np.mean(scores >= threshold))
        assert share <= most + 3 * math.sqrt(most / len(scores)), f"P(score ≥ {threshold})"


def test_the_key_never_changes() -> None:
    """Clips that were marked by an earlier version must be found."""
    known = keys()
    assert known.signs[0].astype(int).tolist() == SIGNS
    assert [round(float(shift), 4) for shift in known.shifts[:4]] == SHIFTS
    assert known.bits[:3].tolist() == BITS
    assert np.all(known.signs.sum(axis=1) == 0)
    assert sorted([*known.sync.tolist(), *known.bits.reshape(-1).tolist()]) == list(range(256))


SIGNS = [-1, 1, -1, 1, -1, -1, -1, 1, -1, -1, -1, 1, 1, 1, 1, 1]
SHIFTS = [0.8173, 0.4679, 0.775, 0.9628]
BITS = [[26, 146], [55, 191], [1, 137]]
