"""The measuring code is told apart from the drawing code here: clips with known answers, right and wrong ones."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from evaluation.clip_measure import HUES_DEG, UNKNOWN, judge, measure
from training.drawing import MOTIONS, Scene, draw, held_out, move, sample

PALETTE = {
    "red": (220, 30, 30),
    "green": (30, 170, 50),
    "blue": (40, 70, 230),
    "yellow": (240, 220, 30),
    "lime": (150, 225, 40),
}


def polygon(corners: int, radius: float, inner: float | None = None) -> list[tuple[float, float]]:
    count = corners if inner is None else 2 * corners
    radii = [radius if inner is None or i % 2 == 0 else radius * inner for i in range(count)]
    turn = math.pi / 4 if corners == 4 else 0.0
    return [(r * math.sin(2 * math.pi * i / count + turn), -r * math.cos(2 * math.pi * i / count + turn))
            for i, r in enumerate(radii)]  # fmt: skip


OUTLINES = {"triangle": polygon(3, 15), "square": polygon(4, 15), "star": polygon(5, 16, 0.42)}


def clip_of(
    shape: str, colour: str, centres: list[tuple[float, float]], ground: tuple[int, int, int] = (30, 30, 40)
) -> np.ndarray:
    """Drawn by Pillow at four times the size, so that it shares nothing with the training data."""
    frames = []
    for x, y in centres:
        image = Image.new("RGB", (256, 256), ground)
        pen = ImageDraw.Draw(image)
        if shape == "circle":
            pen.ellipse([4 * (x - 12), 4 * (y - 12), 4 * (x + 12), 4 * (y + 12)], fill=PALETTE[colour])
        else:
            pen.polygon([(4 * (x + dx), 4 * (y + dy)) for dx, dy in OUTLINES[shape]], fill=PALETTE[colour])
        frames.append(np.asarray(image.resize((64, 64), Image.Resampling.BOX)))
    return np.stack(frames)


def line(dx: float, dy: float, frames: int = 17) -> list[tuple[float, float]]:
    return [(32 + dx * (i / (frames - 1) - 0.5), 32 + dy * (i / (frames - 1) - 0.5)) for i in range(frames)]


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star"])
@pytest.mark.parametrize("colour", list(PALETTE))
def test_shape_and_colour_of_a_clip_drawn_by_another_hand_are_told(shape: str, colour: str) -> None:
    seen = measure(clip_of(shape, colour, line(16, 0)))
    assert (seen.colour, seen.shape, seen.motion) == (colour, shape, "right")


@pytest.mark.parametrize(
    ("dx", "dy", "word"),
    [(-14, 0, "left"), (14, 0, "right"), (0, -14, "up"), (0, 14, "down"), (10, 10, "down-right"),
     (-10, 10, "down-left"), (10, -10, "up-right"), (-10, -10, "up-left"), (0, 0, "still"), (1, 0, "still")],
)  # fmt: skip
def test_motion_is_told_from_the_path(dx: float, dy: float, word: str) -> None:
    assert measure(clip_of("circle", "red", line(dx, dy))).motion == word


def test_a_clip_played_backwards_disobeys_its_direction_and_nothing_else() -> None:
    clip = clip_of("star", "blue", line(-16, 0))
    assert judge(measure(clip), "blue", "star", "left").everything
    backwards = judge(measure(clip[::-1]), "blue", "star", "left")
    assert (backwards.colour, backwards.shape, backwards.motion) == (True, True, False)


def test_wrong_colours_and_shapes_are_called_wrong() -> None:
    seen = measure(clip_of("square", "green", line(0, 14)))
    for colour in HUES_DEG:
        assert judge(seen, colour, "square", "down").colour == (colour == "green")
    for shape in ("circle", "triangle", "star", "cross", "ring"):
        assert not judge(seen, "green", shape, "down").shape


def test_an_empty_clip_and_pure_noise_are_unknown() -> None:
    empty = measure(np.full((17, 64, 64, 3), 90, np.uint8))
    assert (empty.colour, empty.shape, empty.motion) == (UNKNOWN, UNKNOWN, UNKNOWN)
    noise = measure(np.random.default_rng(0).integers(0, 256, (17, 64, 64, 3)).astype(np.uint8))
    assert noise.shape == UNKNOWN


def test_a_grey_shape_has_no_colour() -> None:
    clip = clip_of("circle", "red", line(12, 0))
    grey = np.repeat(clip.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    assert measure(grey).colour == UNKNOWN


def test_a_blob_between_two_shapes_is_neither() -> None:
    clip = (
        clip_of("square", "red", line(12, 0)).astype(float) * 0.5
        + clip_of("star", "red", line(12, 0)).astype(float) * 0.5
    )
    assert measure(clip.astype(np.uint8)).shape != "circle"


def test_a_jump_there_and_back_is_no_direction() -> None:
    centres = line(30, 0)
    zigzag = [centres[i] for i in (0, 8, 16, 8, 0, 8, 16, 8, 0, 8, 16, 8, 4, 8, 6, 8, 10)]
    assert measure(clip_of("circle", "red", zigzag)).motion == UNKNOWN


def test_every_trained_word_is_recognised_on_clean_clips() -> None:
    rng = np.random.default_rng(11)
    wrong = []
    for index in range(60):
        width, height = ((64, 64), (96, 64), (64, 96))[index % 3]
        scene = sample(rng, width=width, height=height)
        actor = scene.actors[0]
        verdict = judge(measure(draw(scene)), actor.colour, actor.shape, actor.motion)
        if not verdict.everything:
            wrong.append((actor.colour, actor.shape, actor.motion, verdict))
    assert wrong == []


@pytest.mark.parametrize("shape", ["cross", "ring"])
def test_shapes_that_the_base_never_saw_are_told_too(shape: str) -> None:
    actor = move(np.random.default_rng(3), shape, "red", "still", width=64, height=64)
    assert measure(draw(Scene((actor,), "gray", 64, 64, 17))).shape == shape


def test_blur_and_noise_of_a_mild_kind_change_no_answer() -> None:
    rng = np.random.default_rng(4)
    for motion in MOTIONS:
        actor = move(rng, "square", "purple", motion, width=64, height=64)
        clip = draw(Scene((actor,), "beige", 64, 64, 17)).astype(float) + rng.normal(0, 6, (17, 64, 64, 3))
        seen = measure(np.clip(clip, 0, 255).astype(np.uint8))
        assert (seen.colour, seen.shape, seen.motion) == ("purple", "square", motion)


def test_wrong_input_is_refused_with_its_shape() -> None:
    with pytest.raises(ValueError, match=r"float64 \(64, 64\)"):
        measure(np.zeros((64, 64)))  # type: ignore[arg-type]


def test_training_never_draws_a_held_out_combination() -> None:
    rng = np.random.default_rng(5)
    scenes = [sample(rng, pairs=0.3) for _ in range(400)]
    assert not any(held_out(a.colour, a.shape, a.motion) for scene in scenes for a in scene.actors)


def test_the_colour_that_the_base_never_saw_is_told_and_its_neighbours_are_not_it() -> None:
    rng = np.random.default_rng(5)
    told = {
        colour: measure(draw(Scene((move(rng, "circle", colour, "still", width=64, height=64),), "navy", 64, 64, 17)))
        for colour in ("lime", "yellow", "green")
    }
    assert {colour: seen.colour for colour, seen in told.items()} == {name: name for name in told}
