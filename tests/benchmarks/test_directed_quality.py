"""Cases are fair: a clip drawn as asked is right in everything, an empty one in nothing; figures and sheets add up."""

import numpy as np
import pytest

from benchmarks.directed_quality import GOALS, Figure, sheet, summed, table
from benchmarks.shot_cases import KINDS, Case, drawn, edges
from training.directed.scenes import CAMERAS, act, fields, filmed
from training.drawing import BACKGROUNDS, COLOURS, MOTIONS, Scene, combinations

COUNT = 5


def cases(kind: str) -> list[Case]:
    return KINDS[kind](np.random.default_rng(3), COUNT)


def reached(name: str, value: float) -> bool | None:
    return Figure(name, value, 0.0, 0.0, 1).reached


def obeyed(case: Case) -> Scene:
    """The scene that a prompt of the plain form asks for, read back from its words."""
    order = case.order
    said, _, camera = order.prompt.partition(", the camera ")
    shapes, _, ground = said.replace(" background", "").partition(" on a ")
    actors = []
    phrases = shapes.split(" and a ")
    for phrase, field in zip(phrases, fields(order.width, order.height, len(phrases)), strict=True):
        words = phrase.removeprefix("a ").split()
        doing = " ".join(words[2:]).removeprefix("moving ").replace("standing still", "still").replace(" and ", "-")
        motion = next((m for m in MOTIONS if m == doing), "still")
        actors.append(act(np.random.default_rng(0), words[1], words[0], motion, field))
    scene = Scene(tuple(actors), ground, order.width, order.height, order.frames)
    moves = {"zooms in": "zoom-in", "zooms out": "zoom-out"} | {f"pans {m.split('-')[1]}": m for m in CAMERAS}
    return filmed(scene, moves[camera]) if camera else scene


@pytest.mark.parametrize("kind", ["text", "two", "camera", "mask"])
def test_a_clip_drawn_as_asked_is_right(kind: str) -> None:
    for case in cases(kind):
        figures = case.judge(drawn(obeyed(case)))
        wrong = {n: v for n, v in figures.items() if n != "mask, outside" and reached(n, v) is False}
        assert not wrong, (case.order.prompt, wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_clip_is_right_in_nothing(kind: str) -> None:
    for case in cases(kind):
        order = case.order
        empty = np.full((order.frames, order.height, order.width, 3), 90, np.uint8)
        figures = {n: v for n, v in case.judge(empty).items() if n in GOALS}
        assert figures
        assert not any(reached(n, v) for n, v in figures.items()), (order.prompt, figures)


def test_every_combination_is_asked_for_before_any_is_asked_for_twice() -> None:
    held = combinations(held=True)
    asked = KINDS["text"](np.random.default_rng(1), len(held))
    assert len({case.order.prompt.partition(" on a ")[0] for case in asked}) == len(held)


def test_the_frames_that_were_given_and_the_source_of_a_mask_are_right_as_they_are() -> None:
    for case in cases("frame"):
        assert case.order.video is not None
        assert all(value == 99 for value in case.judge(case.order.video).values())
    for case in cases("mask"):
        assert case.order.video is not None
        figures = case.judge(case.order.video)
        assert figures["mask, outside"] == 0
        assert not figures["mask, inside"]


def test_controls_are_white_on_black_and_as_long_as_the_clip() -> None:
    for kind in ("path", "structure"):
        for case in cases(kind):
            video = case.order.video
            assert video is not None
            assert video.shape == (case.order.frames, case.order.height, case.order.width, 3)
            assert video.max() == 255
            assert np.median(video) == 0


def test_edges_follow_the_outline() -> None:
    actor = act(np.random.default_rng(0), "square", "red", "still", fields(64, 64, 1)[0], frames=2)
    lines = edges(drawn(Scene((actor,), "black", 64, 64, 2)))[0, :, :, 0] > 0
    assert not lines[32, 32]
    assert not lines[2, 2]
    assert lines[32].sum() in range(2, 7)


def test_no_reference_has_colours_that_training_had_together() -> None:
    from training.directed.scenes import withheld

    told = {value: name for name, value in COLOURS.items()} | {value: name for name, value in BACKGROUNDS.items()}
    for case in cases("style"):
        image = case.order.reference
        assert image is not None
        middle = tuple(int(v) for v in image[image.shape[0] // 2, image.shape[1] // 2])
        assert withheld(told[middle], told[tuple(int(v) for v in image[0, 0])])
        assert not set(case.order.prompt.split()) & set(COLOURS)


def test_shares_come_with_their_interval_and_are_held_against_the_goals() -> None:
    figures = summed({"colour": [True] * 9 + [False], "path error": [0.02, 0.04]})
    assert (figures[0].value, figures[0].clips, figures[0].reached) == (0.9, 10, False)
    assert figures[0].low < 0.9 < figures[0].high
    assert (figures[1].value, figures[1].reached) == (pytest.approx(0.03), True)
    assert " NO" in table(figures)


def test_a_sheet_of_portraits_and_landscapes_has_no_holes_between_rows() -> None:
    rows = [np.full((high, 86, 3), 10, np.uint8) for high in (40, 90, 40, 50, 90, 50)]
    page = np.asarray(sheet(rows))
    for column in range(page.shape[1] // 86):
        filled = page[:, 86 * column, 0] == 10
        assert not np.any(np.diff(filled.astype(int)) > 0)
    assert (page == 10).all(axis=-1).sum() == sum(r.shape[0] * r.shape[1] for r in rows)
