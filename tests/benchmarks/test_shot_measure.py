"""The measuring says "wrong" on clips with drawn mistakes, one for every attribute, and "right" on those without.

All clips here are drawn by Pillow, at four times the size: they share nothing with what trains the model.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.shot_measure import (
    LOST,
    SAME_PLACE,
    camera_error,
    coloured_as,
    grid,
    measure_all,
    outside_change,
    parts,
    path_error,
    psnr,
    stands_as,
)

Frames = NDArray[np.uint8]
RGB = tuple[int, int, int]
RED, BLUE, GREEN, DARK, PALE = (220, 30, 30), (40, 70, 230), (30, 170, 50), (25, 25, 30), (235, 232, 228)
COUNT = 17


class Figure:
    """A shape, its colour, and where its middle, radius and turn are in each frame."""

    def __init__(
        self,
        shape: str,
        colour: RGB,
        at: Callable[[float], tuple[float, float]],
        radius: Callable[[float], float] = lambda t: 18.0,
        turn: Callable[[float], float] = lambda t: 0.0,
    ) -> None:
        self.shape, self.colour, self.at, self.radius, self.turn = shape, colour, at, radius, turn


def clip_of(*figures: Figure, ground: RGB = DARK, width: int = 128, height: int = 128) -> Frames:
    frames = []
    for index in range(COUNT):
        t = index / (COUNT - 1)
        image = Image.new("RGB", (4 * width, 4 * height), ground)
        pen = ImageDraw.Draw(image)
        for figure in figures:
            (x, y), r, turn = figure.at(t), figure.radius(t), figure.turn(t)
            if figure.shape == "circle":
                pen.ellipse([4 * (x - r), 4 * (y - r), 4 * (x + r), 4 * (y + r)], fill=figure.colour)
                continue
            corners = {"triangle": 3, "square": 4, "star": 10}[figure.shape]
            start = turn + (math.pi / 4 if corners == 4 else 0.0)
            points = []
            for i in range(corners):
                reach = r * (0.42 if corners == 10 and i % 2 else 1.15)
                angle = start + 2 * math.pi * i / corners
                points.append((4 * (x + reach * math.sin(angle)), 4 * (y - reach * math.cos(angle))))
            pen.polygon(points, fill=figure.colour)
        frames.append(np.asarray(image.resize((width, height), Image.Resampling.BOX)))
    return np.stack(frames)


def stay(x: float, y: float) -> Callable[[float], tuple[float, float]]:
    return lambda t: (x, y)


def slide(x: float, y: float, dx: float, dy: float) -> Callable[[float], tuple[float, float]]:
    return lambda t: (x + dx * (t - 0.5), y + dy * (t - 0.5))


def seen(clip: Frames) -> list[tuple[str, str, str]]:
    return [(m.colour, m.shape, m.motion) for m in measure_all(clip)]


def test_two_shapes_are_told_in_their_order_each_with_its_own_colour_shape_and_motion() -> None:
    circle, star = Figure("circle", RED, slide(32, 64, 0, -24), lambda t: 14), Figure("star", BLUE, stay(96, 64))
    assert seen(clip_of(star, circle)) == [("red", "circle", "up"), ("blue", "star", "still")]


def test_two_shapes_one_above_the_other_are_told_from_the_top() -> None:
    top = Figure("square", GREEN, slide(48, 40, 20, 0), lambda t: 14)
    bottom = Figure("triangle", RED, stay(48, 120), lambda t: 16)
    clip = clip_of(bottom, top, width=96, height=160)
    assert seen(clip) == [("green", "square", "right"), ("red", "triangle", "still")]


@pytest.mark.parametrize(
    ("figures", "wrong"),
    [
        ([Figure("circle", BLUE, slide(32, 64, 0, -24)), Figure("star", RED, stay(96, 64))], "colours swapped"),
        ([Figure("star", RED, slide(32, 64, 0, -24)), Figure("circle", BLUE, stay(96, 64))], "shapes swapped"),
        ([Figure("circle", RED, slide(32, 64, 0, 24)), Figure("star", BLUE, stay(96, 64))], "the other way"),
        ([Figure("circle", RED, slide(32, 64, 0, -24)), Figure("star", BLUE, slide(96, 64, 0, -24))], "both move"),
        ([Figure("circle", RED, slide(32, 64, 0, -24))], "one is missing"),
        ([Figure("circle", RED, slide(50, 64, 0, -24)), Figure("star", BLUE, stay(70, 64))], "they touch"),
    ],
)
def test_a_mistake_in_either_of_two_shapes_is_seen(figures: list[Figure], wrong: str) -> None:
    assert seen(clip_of(*figures)) != [("red", "circle", "up"), ("blue", "star", "still")], wrong


@pytest.mark.parametrize("motion", ["spinning", "circling", "growing", "shrinking"])
def test_other_motions_are_told_and_not_taken_for_one_another(motion: str) -> None:
    kinds = {
        "spinning": Figure("square", RED, stay(64, 64), turn=lambda t: math.pi * t),
        "circling": Figure(
            "square", RED, lambda t: (64 + 20 * math.sin(2 * math.pi * t), 64 - 20 * math.cos(2 * math.pi * t))
        ),
        "growing": Figure("square", RED, stay(64, 64), lambda t: 14 + 14 * t),
        "shrinking": Figure("square", RED, stay(64, 64), lambda t: 28 - 14 * t),
    }
    assert {name for name, figure in kinds.items() if seen(clip_of(figure)) == [("red", "square", motion)]} == {motion}


def test_a_shape_on_its_way_has_no_error_and_one_beside_it_or_behind_has() -> None:
    wanted = np.array([(30 + 60 * t, 90 - 50 * t) for t in np.linspace(0, 1, COUNT)])
    on_it = Figure("star", RED, lambda t: (30 + 60 * t, 90 - 50 * t))
    beside = Figure("star", RED, lambda t: (30 + 60 * t, 100 - 50 * t))
    late = Figure("star", RED, lambda t: (30 + 60 * t**2, 90 - 50 * t**2))
    straight = Figure("star", RED, stay(60, 65))
    assert path_error(clip_of(on_it), wanted) < 0.01
    assert path_error(clip_of(beside), wanted) == pytest.approx(10 / 128, abs=0.01)
    assert path_error(clip_of(late), wanted) > 0.04
    assert path_error(clip_of(straight), wanted) > 0.1
    assert path_error(clip_of(), wanted) == LOST


PAN, ZOOM = ((0.3, 0.0), 1.0), ((0.0, 0.0), 1.6)


@pytest.mark.parametrize(
    ("figure", "move"),
    [
        (Figure("square", RED, slide(64, 60, 0.3 * 128, 0)), PAN),
        (Figure("square", RED, stay(64, 64), lambda t: 20 * 1.6 ** (t - 0.5)), ZOOM),
        (
            Figure("square", RED, lambda t: (64 + 20 * 1.6 ** (t - 0.5), 64.0), lambda t: 16 * 1.6 ** (t - 0.5)),
            ZOOM,
        ),
    ],
)
def test_a_camera_that_does_what_it_was_told_has_little_error(
    figure: Figure, move: tuple[tuple[float, float], float]
) -> None:
    assert camera_error(clip_of(figure), *move) < 0.02


@pytest.mark.parametrize(
    ("figure", "move"),
    [
        (Figure("square", RED, slide(64, 64, -0.3 * 128, 0)), PAN),
        (Figure("square", RED, slide(64, 64, 0.15 * 128, 0)), PAN),
        (Figure("square", RED, stay(64, 64)), PAN),
        (Figure("square", RED, stay(64, 64)), ZOOM),
        (Figure("square", RED, stay(64, 64), lambda t: 20 * 1.6 ** (0.5 - t)), ZOOM),
        (Figure("square", RED, slide(64, 64, 0.3 * 128, 0)), ZOOM),
        (Figure("square", RED, stay(64, 64), lambda t: 20.0 if t < 0.5 else 0.0), PAN),
    ],
)
def test_a_camera_that_does_something_else_is_wrong(figure: Figure, move: tuple[tuple[float, float], float]) -> None:
    assert camera_error(clip_of(figure), *move) > 0.06


def test_change_is_counted_outside_of_the_region_only() -> None:
    left, right = Figure("circle", RED, stay(32, 64)), Figure("star", BLUE, stay(96, 64))
    source = clip_of(left, right)
    region = np.zeros(source.shape[:3], bool)
    region[:, :, 64:] = True
    assert outside_change(clip_of(left, Figure("square", GREEN, stay(96, 64))), source, region) == 0
    assert outside_change(clip_of(Figure("circle", BLUE, stay(32, 64)), right), source, region) > 1
    assert outside_change(np.clip(source.astype(int) + 3, 0, 255).astype(np.uint8), source, region) > 2


def test_a_frame_that_is_kept_is_told_from_one_that_is_shifted_by_a_pixel() -> None:
    frame = clip_of(Figure("star", RED, stay(64, 64)))[0]
    assert psnr(frame, frame) == 99
    assert psnr(np.clip(frame.astype(int) + 2, 0, 255).astype(np.uint8), frame) > 32
    assert psnr(np.roll(frame, 2, axis=1), frame) < 32


def test_structure_is_place_size_and_shape_whatever_the_colours() -> None:
    wanted = clip_of(Figure("star", RED, slide(50, 64, 20, 0)))
    assert stands_as(clip_of(Figure("star", BLUE, slide(51, 64, 20, 0)), ground=PALE), wanted)
    for mistake in (
        Figure("circle", BLUE, slide(50, 64, 20, 0)),
        Figure("star", BLUE, slide(50, 64, -20, 0)),
        Figure("star", BLUE, slide(50 + 2 * SAME_PLACE * 128, 64, 20, 0)),
        Figure("star", BLUE, slide(50, 64, 20, 0), lambda t: 25.0),
    ):
        assert not stands_as(clip_of(mistake), wanted)
    assert not stands_as(clip_of(), wanted)
    assert not stands_as(wanted, clip_of())


def test_a_style_is_the_shapes_colour_and_the_backgrounds() -> None:
    image = clip_of(Figure("circle", GREEN, stay(64, 64)), ground=PALE)[0]
    assert coloured_as(clip_of(Figure("star", GREEN, slide(64, 64, 20, 0)), ground=PALE), image)
    assert not coloured_as(clip_of(Figure("star", RED, slide(64, 64, 20, 0)), ground=PALE), image)
    assert not coloured_as(clip_of(Figure("star", GREEN, slide(64, 64, 20, 0)), ground=DARK), image)
    assert not coloured_as(clip_of(ground=PALE), image)


def test_a_grid_is_seen_where_there_is_one_and_not_where_there_is_none() -> None:
    rng = np.random.default_rng(1)
    clips = []
    for x, y, radius in rng.uniform((40, 40, 12), (88, 88, 30), size=(40, 3)):
        clips.append(clip_of(Figure("circle", RED, stay(x, y), lambda t, r=radius: r))[:1])
    assert grid(clips, 8) < 1.2
    blocked = []
    for clip in clips:
        lines = clip.astype(int)
        lines[:, ::8] += 6
        lines[:, :, ::8] += 6
        blocked.append(np.clip(lines, 0, 255).astype(np.uint8))
    assert grid(blocked, 8) > 1.2


def test_an_empty_clip_has_no_parts() -> None:
    assert parts(clip_of()) == []
