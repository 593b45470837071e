"""Cameras, paths and edits: what they may say, which variant follows them, and what they change."""

import json
from typing import Any

import pytest

from cluster.cost.model import call_shape
from schemas.errors import CatalogError, InvalidRequestError, Issue
from schemas.motion import EASES, Steer, absolute_camera, read_motion
from schemas.request import Request
from schemas.resolve import resolve
from schemas.task import Group
from tests.pipelines.catalogs import directed, parse_catalog

CATALOG = directed()
PAN = {"at_s": 1.0, "pan": 10}
FIRST, LAST = {"role": "first_frame", "image": "a"}, {"role": "last_frame", "image": "b"}
SOURCE, MASK = {"role": "source", "video": "v"}, {"role": "mask", "image": "m"}
EDGES = {"role": "structure", "video": "e", "kind": "edges"}
BOX = {"label": "fox", "box": [0.1, 0.1, 0.4, 0.4], "keys": [{"at_s": 1.0, "x": 0.75}]}


def group_of(*inputs: dict[str, Any], **fields: Any) -> Group:
    request = Request.model_validate({"prompt": "x", "variant": "vace", "inputs": inputs} | fields)
    return resolve(request.settings, CATALOG, inputs=request.input_specs, rank=lambda variant, group: 0.0)


def refused(*inputs: dict[str, Any], **fields: Any) -> list[Issue]:
    with pytest.raises(InvalidRequestError) as caught:
        group_of(*inputs, **fields)
    return list(caught.value.issues)


WRONG: list[tuple[str, Any, str, str, str]] = [
    ("camera", [{"pan": 1}], "camera.0.at_s", "is missing", ""),
    ("camera", [{"at_s": -1}], "camera.0.at_s", "greater than or equal to 0 (got -1)", ""),
    ("camera", [{"at_s": 1, "yaw": 2}], "camera.0.yaw", "no field is called 'yaw'", "at_s, relative, ease, pan, tilt"),
    ("camera", [{"at_s": 1, "ease": "slow"}], "camera.0.ease", "unknown ease 'slow'", "linear, in, out, in-out"),
    ("camera", [{"at_s": 1, "ease": [0, 1, 2]}], "camera.0.ease", "four numbers", "linear"),
    ("camera", [{"at_s": 1, "ease": [2, 0, 1, 1]}], "camera.0.ease", "x1 and x2 lie from 0 to 1", "linear"),
    ("camera", [PAN, {"at_s": 1.0}], "camera", "key 1: at_s 1 is not after the key before it (1)", ""),
    ("camera", [{"at_s": 1, "dolly": 1.5}], "camera", "key 0: dolly 1.5 goes through the scene: at most 0.95", ""),
    ("camera", "{", "camera", "not JSON", ""),
    ("camera", 5, "camera", "(got 5)", ""),
    ("paths", [{**BOX, "point": [0, 0]}], "paths.0", "begins with one of box and point", ""),
    ("paths", [{**BOX, "box": [0.5, 0, 0.2, 1]}], "paths.0.box", "left before right", ""),
    ("paths", [{**BOX, "keys": [{"at_s": 0, "z": 1}]}], "paths.0.keys.0.z", "no field is called 'z'", "at_s, relative"),
    ("paths", [{**BOX, "keys": []}], "paths.0", "one key at least", ""),
    ("paths", [{"label": "a", "point": [0, 0], "keys": [{"at_s": 1, "scale": 2}]}], "paths.0", "neither scale nor", ""),
    ("paths", [{"box": [0, 0, 1, 1], "keys": [{"at_s": 1}]}], "paths.0.label", "is missing", ""),
    ("edit", {}, "edit", "says nothing: give speed, reverse, region", ""),
    ("edit", {"speed": 0}, "edit.speed", "greater than or equal to 0.05 (got 0)", ""),
    ("edit", {"region": [0, 0, 0, 1]}, "edit.region", "left before right", ""),
    ("edit", {"pace": 2}, "edit.pace", "no field is called 'pace'", "speed, reverse, region"),
]


@pytest.mark.parametrize(("name", "value", "path", "message", "choices"), WRONG)
def test_what_motion_may_not_say_is_refused_at_its_place(
    name: str, value: Any, path: str, message: str, choices: str
) -> None:
    found, issues = read_motion(name, value)
    assert found is None
    assert issues[0].path == path
    assert message in issues[0].message
    assert ", ".join(issues[0].choices).startswith(choices)


def test_json_in_a_text_and_one_key_for_a_list_are_taken() -> None:
    as_list, _ = read_motion("camera", [PAN])
    assert read_motion("camera", json.dumps([PAN]))[0] == as_list == read_motion("camera", PAN)[0]
    written: list[Any] = ["in", [0.42, 0, 1, 1], "cubic-bezier(.42, 0, 1, 1)"]
    eases = [read_motion("camera", {**PAN, "ease": ease})[0] for ease in written]
    assert eases[0] == eases[1] == eases[2]
    assert eases[0][0].ease == EASES["in"]


def test_relative_keys_are_the_same_group_as_the_absolute_ones_that_they_come_to() -> None:
    said = [{"at_s": 0.5, "pan": 10, "zoom": 2}, {"at_s": 1, "pan": 5, "zoom": 1.5, "relative": True}]
    absolute = [{"at_s": 0, "pan": 0}, {"at_s": 0.5, "pan": 10, "zoom": 2}, {"at_s": 1, "pan": 15, "zoom": 3}]
    one, other = group_of(FIRST, camera=said), group_of(FIRST, camera=absolute)
    assert one.key == other.key
    assert one.camera == other.camera == absolute_camera(one.camera)
    moved = {**BOX, "keys": [{"at_s": 1.0, "x": 0.5, "relative": True}]}
    assert group_of(paths=[moved]).key == group_of(paths=[BOX]).key


CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"camera": [PAN]}),
    ({"camera": [PAN]}, {"camera": [{**PAN, "pan": 11}]}),
    ({"camera": [PAN]}, {"camera": [{**PAN, "at_s": 1.5}]}),
    ({"camera": [PAN]}, {"camera": [{**PAN, "ease": "in"}]}),
    ({"camera": [{"at_s": 1, "truck": 0.1}]}, {"camera": [{"at_s": 1, "pedestal": 0.1}]}),
]


@pytest.mark.parametrize(("one", "other"), CHANGES)
def test_every_word_of_a_camera_is_in_the_fingerprint(one: dict[str, Any], other: dict[str, Any]) -> None:
    _differ(group_of(FIRST, **one), group_of(FIRST, **other))


def test_every_word_of_paths_and_edits_is_in_the_fingerprint() -> None:
    for changed in ({"label": "dog"}, {"box": [0.1, 0.1, 0.5, 0.4]}, {"keys": [{"at_s": 1.0, "x": 0.7}]}):
        _differ(group_of(paths=[BOX]), group_of(paths=[{**BOX, **changed}]))
    _differ(group_of(paths=[BOX]), group_of(paths=[BOX, BOX]))
    edits: list[dict[str, Any]] = [{"speed": 2}, {"speed": 3}, {"reverse": True}, {"region": [0, 0, 0.5, 1]}]
    groups = [group_of(SOURCE), *(group_of(SOURCE, edit=edit) for edit in edits)]
    assert len({group.key for group in groups}) == 5
    _differ(group_of(SOURCE), group_of({**SOURCE, "start": 1.0}))
    _differ(group_of({**SOURCE, "end": 2.0}), group_of({**SOURCE, "end": 3.0}))
    assert group_of(SOURCE, edit={"speed": 1}).key == group_of(SOURCE).key, "as it is"


def _differ(one: Group, other: Group) -> None:
    assert one.key != other.key
    media = ["same"] * len(one.conditions)
    assert one.fingerprint("x", "", 1, media) != other.fingerprint("x", "", 1, media)


REFUSED: list[tuple[tuple[dict[str, Any], ...], dict[str, Any], str, str, tuple[str, ...]]] = [
    ((FIRST,), {"camera": [PAN], "variant": "small"}, "camera", "small follows no camera; vace does", ("vace",)),
    ((FIRST,), {"camera": [PAN], "variant": "frames"}, "camera", "frames follows no camera; vace does", ("vace",)),
    ((), {"paths": [BOX], "variant": "swift"}, "paths", "swift follows no paths; vace does", ("vace",)),
    ((), {"camera": [PAN]}, "camera", "moves over a first_frame or source", ("first_frame", "source")),
    ((FIRST,), {"camera": [{"at_s": 0, "pan": 5}]}, "camera.0", "the camera rests at 0 s", ()),
    ((FIRST,), {"camera": [PAN], "paths": [BOX]}, "camera", "the camera's view or paths", ()),
    ((SOURCE, MASK), {"camera": [PAN]}, "camera", "the camera's view or mask", ()),
    ((EDGES,), {"paths": [BOX]}, "paths", "a structure or the boxes", ()),
    ((SOURCE,), {"paths": [BOX]}, "paths", "need a mask or edit.region", ("mask", "edit.region")),
    ((FIRST,), {"camera": [{"at_s": 9, "pan": 5}]}, "camera.0.at_s", "9 s is after the end: the clip is 2.125 s", ()),
    ((), {"paths": [{**BOX, "keys": [{"at_s": 3, "x": 0}]}]}, "paths.0.keys.0.at_s", "3 s is after the end", ()),
    ((), {"edit": {"speed": 2}}, "edit", "there is no source", ("source",)),
    ((SOURCE, MASK), {"edit": {"region": [0, 0, 1, 0.5]}}, "edit.region", "one among the inputs", ()),
    ((FIRST,), {"camera": [PAN], "variant": "ends"}, "camera", "ends follows no camera; vace does", ("vace",)),
]


@pytest.mark.parametrize(("inputs", "fields", "path", "message", "choices"), REFUSED)
def test_what_a_variant_cannot_follow_is_refused_with_those_that_can(
    inputs: tuple[dict[str, Any], ...], fields: dict[str, Any], path: str, message: str, choices: tuple[str, ...]
) -> None:
    issue = next(one for one in refused(*inputs, **fields) if one.path == path)
    assert message in issue.message
    assert issue.choices == choices


def test_an_image_has_no_seconds_to_be_cut() -> None:
    with pytest.raises(ValueError, match="start and end are seconds of a video, and this is an image"):
        group_of({**FIRST, "start": 1.0})


def test_auto_takes_a_variant_that_follows() -> None:
    assert group_of(FIRST, variant="auto").variant == "small"
    assert group_of(FIRST, variant="auto", camera=[PAN]).variant == "vace"
    assert group_of(variant="auto", paths=[BOX]).variant == "vace"


VIEWS = parse_catalog(
    """
    [variants.views]
    pipeline = "LTXConditionPipeline"
    weights = "a/b"
    modes = ["image_to_video"]
    steps = 1
    fps = 8
    shape = { divisor = 32, max_frames = 17, max_pixels = 4096, native = [[64, 64, 17]] }
    latent = { channels = 4, spatial = 8, temporal = 8 }
    conditions = ["first_frame", "last_frame", "keyframe", "camera"]
    """,
    "views.toml",
)


def test_views_that_become_keyframes_are_paid_for_and_stand_alone() -> None:
    def views(*inputs: dict[str, Any], camera: list[dict[str, Any]]) -> Group:
        request = Request.model_validate({"prompt": "x", "variant": "views", "inputs": inputs, "camera": camera})
        return resolve(request.settings, VIEWS, inputs=request.input_specs, rank=lambda variant, group: 0.0)

    group = views(FIRST, camera=[PAN, {"at_s": 2, "pan": 20}])
    assert call_shape(VIEWS["views"], group).frames == group.frames + 2 * 8
    with pytest.raises(InvalidRequestError, match="at frame 16 the camera's view is a keyframe, and an input is one"):
        views(FIRST, LAST, camera=[{"at_s": 2, "pan": 20}])


def test_a_catalog_may_promise_only_motion_that_the_class_carries() -> None:
    assert CATALOG["vace"].all_steers == tuple(Steer)
    assert CATALOG["frames"].all_steers == ()
    assert VIEWS["views"].all_steers == (Steer.CAMERA,)
    text = """
    [variants.one]
    pipeline = "LTXConditionPipeline"
    weights = "a/b"
    modes = ["image_to_video"]
    steps = 1
    fps = 8
    shape = { divisor = 32, max_frames = 9, max_pixels = 4096, native = [[64, 64, 9]] }
    latent = { channels = 4, spatial = 8, temporal = 8 }
    conditions = ["paths"]
    """
    with pytest.raises(CatalogError, match="carries no 'paths'; available: first_frame, last_frame, keyframe, camera"):
        parse_catalog(text, "c.toml")
