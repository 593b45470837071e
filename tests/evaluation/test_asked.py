"""What prompts ask for is read as the model was taught them, and clips are held against it."""

import numpy as np
import pytest

from evaluation.asked import Asked, Shown, asked_in, obedience
from evaluation.clip_measure import GROUNDS_RGB, UNKNOWN, ground_name, measure
from training.captions import caption, plain_caption
from training.drawing import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene, contrasts, draw, move, sample


def test_every_plain_sentence_is_read_whole() -> None:
    for colour in COLOURS:
        for shape in SHAPES:
            for motion in MOTIONS:
                for ground in (None, *BACKGROUNDS):
                    asked = asked_in(plain_caption(colour, shape, motion, ground))
                    expected = None if (shape, motion) == ("circle", "spinning") else motion
                    assert asked == Asked(colour, shape, expected, ground)


def test_sentences_of_training_are_never_read_wrong() -> None:
    """A word thrown in may hide something, and then it is not judged."""
    rng = np.random.default_rng(3)
    said = right = 0
    for _ in range(3000):
        scene = sample(rng)
        (actor,) = scene.actors
        asked = asked_in(caption(rng, scene))
        truth = Asked(actor.colour, actor.shape, actor.motion, scene.background)
        for name in ("colour", "object", "motion", "place"):
            if (found := getattr(asked, name)) is not None:
                said += 1
                right += found == getattr(truth, name)
    assert said > 0.85 * 4 * 3000 * 0.9
    assert right / said > 0.995


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("a red circle moving in a circle", Asked("red", "circle", "circling")),
        ("A CRIMSON ball, drifting to the left, on a blue background!", Asked("red", "circle", "left", "navy")),
        ("a red circle and a blue square", Asked()),
        ("a green square going up and to the left", Asked("green", "square", "up-left")),
        ("a sunset over the sea", Asked()),
        ("", Asked()),
        ("a redwood tree upstairs", Asked()),
    ],
)
def test_what_is_not_said_or_said_twice_is_not_asked(prompt: str, asked: Asked) -> None:
    assert asked_in(prompt) == asked


def test_to_show_something_else_is_to_hallucinate_and_to_show_nothing_is_not() -> None:
    asked = Asked("red", "circle", "left")
    right = Shown("red", "circle", "left", "navy")
    assert obedience(asked, right) == {
        "colour_obeyed": True,
        "object_obeyed": True,
        "motion_obeyed": True,
        "all_obeyed": True,
        "hallucinated": False,
    }
    blue = obedience(asked, Shown("blue", "circle", "left", "navy"))
    assert (blue["colour_obeyed"], blue["all_obeyed"], blue["hallucinated"]) == (False, False, True)
    nothing = obedience(asked, Shown(UNKNOWN, UNKNOWN, UNKNOWN, "navy"))
    assert (nothing["all_obeyed"], nothing["hallucinated"]) == (False, False)
    assert obedience(Asked(), right) == {}


def test_every_background_that_is_drawn_is_named() -> None:
    rng = np.random.default_rng(4)
    for ground in BACKGROUNDS:
        colour = next(name for name in COLOURS if contrasts(name, ground))
        clip = draw(Scene((move(rng, "square", colour, "left", width=64, height=64, frames=5),), ground, 64, 64, 5))
        assert ground_name(measure(clip).background_rgb) == ground
    assert ground_name((255, 0, 255)) == UNKNOWN
    assert set(GROUNDS_RGB) == set(BACKGROUNDS)
