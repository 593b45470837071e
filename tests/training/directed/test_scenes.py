"""Shots keep to the canvas, to what training may see, and to what their sentence says."""

import numpy as np
import pytest
import torch

from training.directed import conditions, drawing
from training.directed.reading import ATTRIBUTES, answers
from training.directed.scenes import CANVASES, TASKS, Shot, act, fields, filmed, sample, wander, withheld
from training.directed.sentences import plain_sentence, sentence, vocabulary_of_shots
from training.drawing import BACKGROUNDS, COLOURS, MOTIONS, Scene, held_out

CPU = torch.device("cpu")


def shots(task: str, count: int = 12) -> list[Shot]:
    rng = np.random.default_rng(8)
    return [sample(rng, task, width=w, height=h, frames=5) for w, h in CANVASES for _ in range(count // 3)]


def still(shape: str = "square", colour: str = "red", background: str = "black") -> Scene:
    actor = act(np.random.default_rng(0), shape, colour, "still", fields(64, 64, 1)[0], frames=5)
    return Scene((actor,), background, 64, 64, 5)


@pytest.mark.parametrize("task", TASKS)
def test_no_shot_leaves_the_canvas_or_shows_what_is_held_out(task: str) -> None:
    for shot in shots(task):
        for actor in shot.scene.actors:
            assert not held_out(actor.colour, actor.shape, actor.motion) or task == "path"
            assert np.all(actor.path >= 0)
            assert np.all(actor.path <= [shot.scene.width, shot.scene.height])
            assert not (task == "style" and withheld(actor.colour, shot.scene.background))


@pytest.mark.parametrize("motion", MOTIONS)
def test_two_shapes_never_meet(motion: str) -> None:
    rng = np.random.default_rng(3)
    for width, height in CANVASES:
        first, second = (act(rng, "star", "red", motion, f, speed="fast") for f in fields(width, height, 2))
        apart = np.linalg.norm(first.path - second.path, axis=1)
        assert np.all(apart > 0.95 * (first.radius + second.radius))


def test_a_way_is_walked_at_an_even_pace_inside_of_its_field() -> None:
    field = fields(128, 128, 1)[0]
    for seed in range(10):
        way = wander(np.random.default_rng(seed), field, 20.0, 17)
        pace = np.linalg.norm(np.diff(way, axis=0), axis=1)
        assert pace.max() < 1.05 * np.median(pace)  # no step is longer; where a way doubles back, one is shorter
        assert way.min() >= 19.9
        assert way.max() <= 108.1


def test_a_camera_that_pans_to_the_left_sees_things_go_to_the_right_and_one_that_zooms_in_sees_them_grow() -> None:
    panned = filmed(still(), "pan-left").actors[0]
    assert panned.path[-1, 0] - panned.path[0, 0] == pytest.approx(0.3 * 64, abs=0.01)
    zoomed = filmed(still(), "zoom-in").actors[0]
    assert zoomed.radius[-1] / zoomed.radius[0] == pytest.approx(1.6, abs=0.01)


def test_pixels_are_the_named_colours_and_edges_are_one_pixel_wide() -> None:
    clip = drawing.draw([still("square", "red", "black")])[0, :, 0]
    pixels = ((clip + 1) * 127.5).round().int()
    assert tuple(pixels[:, 32, 32].tolist()) == COLOURS["red"]
    assert tuple(pixels[:, 0, 0].tolist()) == BACKGROUNDS["black"]
    row = pixels[0, 32]
    between = (row > BACKGROUNDS["black"][0]) & (row < COLOURS["red"][0])
    assert int(between.sum()) <= 2


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star"])
def test_a_shape_has_the_area_that_geometry_gives_it(shape: str) -> None:
    scene = still(shape)
    pixels = float(drawing.covered(drawing.distances([scene], 0, CPU))[0, 0].sum())
    side = 0.64 * 2 * 3**0.5
    star = 5 * 1.32 * 0.56 * np.sin(np.pi / 5)
    expected = {"circle": np.pi, "square": 1.8**2, "triangle": side**2 * 3**0.5 / 4, "star": star}[shape]
    assert pixels / float(scene.actors[0].radius[0]) ** 2 == pytest.approx(expected, rel=0.03)


def test_conditions_show_what_their_table_says() -> None:
    rng = np.random.default_rng(2)
    for task in TASKS:
        some = [sample(rng, task, frames=5) for _ in range(3)]
        clips = drawing.draw([shot.scene for shot in some])
        given = conditions.conditions(rng, some, clips)
        assert (given.reference is not None) == (task == "style")
        if task in ("text", "camera", "style"):
            assert given.video.abs().max() == 0
        if task in ("text", "camera", "style", "path", "structure"):
            assert given.mask.min() == 1
        if task in ("path", "structure"):
            assert set(given.video[:, :, 0, 0, 0].flatten().tolist()) == {-1.0}
            assert given.video.amax(dim=(1, 3, 4)).min() > 0.5
        if task == "mask":
            kept = given.mask.expand_as(clips) < 0.5
            assert torch.equal(given.video[kept], clips[kept])
            assert not torch.equal(given.video[~kept], clips[~kept])
        if task == "ends":
            assert torch.equal(given.video[:, :, [0, -1]], clips[:, :, [0, -1]])
            assert given.mask[:, 0, :, 0, 0].tolist() == [[0, 1, 1, 1, 0]] * 3


def test_the_dot_of_a_path_is_where_the_shape_is() -> None:
    rng = np.random.default_rng(4)
    shot = sample(rng, "path", frames=5)
    video = conditions.conditions(rng, [shot], drawing.draw([shot.scene])).video[0, 0]
    for frame, (x, y) in enumerate(shot.scene.actors[0].path):
        weight = (video[frame] + 1) / 2
        columns = torch.arange(128) + 0.5
        assert float((weight.sum(0) * columns).sum() / weight.sum()) == pytest.approx(x, abs=0.2)
        assert float((weight.sum(1) * columns).sum() / weight.sum()) == pytest.approx(y, abs=0.2)


def test_a_region_holds_the_whole_of_its_shape_and_nothing_of_the_other() -> None:
    rng = np.random.default_rng(6)
    for moving in (True, False):
        scene = sample(rng, "mask", frames=5).scene
        box = conditions.regions([scene], [0], [moving], [3.0], CPU)[0]
        shapes = [drawing.covered(drawing.distances([scene], i, CPU))[0] for i in (0, 1)]
        assert float((shapes[0] * (1 - box)).sum()) == 0
        assert float((shapes[1] * box).sum()) < 0.2 * float(shapes[1].sum())


def test_every_word_of_every_sentence_is_known_or_meant_not_to_be() -> None:
    known = set(vocabulary_of_shots()) | {"qwx"}
    for task in TASKS:
        for shot in shots(task):
            for seed in range(5):
                said = sentence(np.random.default_rng(seed), shot).replace(",", "").split()
                assert set(said) <= known
    assert plain_sentence([("red", "star", "up"), ("blue", "circle", "")], "black", "zoom-in") == (
        "a red star moving up and a blue circle on a black background, the camera zooms in"
    )


def test_a_style_shot_does_not_say_its_colours() -> None:
    for shot in shots("style"):
        said = sentence(np.random.default_rng(1), shot, noise=0).split()
        assert not set(said) & set(COLOURS)


def test_readers_are_asked_for_both_shapes_and_the_camera() -> None:
    rng = np.random.default_rng(9)
    names = [name for name, _ in ATTRIBUTES]
    for task in TASKS:
        shot = sample(rng, task, frames=1)
        told = dict(zip(names, answers(shot), strict=True))
        assert (told["shape two"] == 0) == (len(shot.scene.actors) == 1)
        assert (told["camera"] == 0) == (task != "camera")
        assert (told["colour one"] == 0) == (task == "style")
