"""Cameras on variants that know directions and no amounts: which way one goes, what is refused, who follows
it."""

from typing import Any

import pytest

from schemas.catalog import Catalog, shipped_catalog
from schemas.directions import Direction, direction_of
from schemas.errors import CatalogError, InvalidRequestError, Issue
from schemas.motion import CameraKey, Steer, absolute_camera
from schemas.request import Mode, Request
from schemas.resolve import resolve
from schemas.task import Group
from tests.pipelines.catalogs import parse_catalog

SHAPES = """
modes = ["text_to_video"]
steps = 2
fps = 8
shape = { divisor = 8, max_frames = 33, max_pixels = 4096, native = [[64, 64, 16]] }
latent = { channels = 4, spatial = 8, temporal = 1, patch = [1, 1, 1] }
"""
LORAS = 'motion_loras = { pan_left = { source = "a/left" }, pan_right = { source = "a/right" } }'
WAYS = ("pan_left", "pan_right")
END = 2.0


def catalog(loras: str = LORAS, pipeline: str = "AnimateDiffPipeline", *more: str) -> Catalog:
    own = f'[variants.ways]\npipeline = "{pipeline}"\nweights = "a/b"\n' + "\n".join((*more, loras)) + SHAPES
    zooms = 'motion_loras = { zoom_in = { source = "a/in" } }'
    other = f'\n[variants.zooms]\npipeline = "AnimateDiffPipeline"\nweights = "a/b"\n{zooms}{SHAPES}'
    pictured = f'\n[variants.pictured]\npipeline = "WanVACEPipeline"\nweights = "a/b"\n{SHAPES}'
    keys = 'pipeline = "EasyAnimateControlPipeline"\nconditions = ["camera"]'
    free = f'\n[variants.free]\n{keys}\nweights = "a/b"\n{SHAPES}'
    return parse_catalog(own + other + pictured + free, "ways.toml")


CATALOG = catalog()


def group_of(*camera: dict[str, Any], variant: str = "ways", **fields: Any) -> Group:
    request = Request.model_validate({"prompt": "x", "variant": variant, "camera": list(camera)} | fields)
    return resolve(request.settings, CATALOG, inputs=request.input_specs, rank=lambda variant, group: 0.0)


def refused(*camera: dict[str, Any], **fields: Any) -> Issue:
    with pytest.raises(InvalidRequestError) as caught:
        group_of(*camera, **fields)
    (issue,) = caught.value.issues
    return issue


@pytest.mark.parametrize(
    ("key", "way"),
    [
        ({"zoom": 2}, "zoom_in"),
        ({"zoom": 0.5}, "zoom_out"),
        ({"pan": -1}, "pan_left"),
        ({"pan": 1}, "pan_right"),
        ({"tilt": 1}, "tilt_up"),
        ({"tilt": -1}, "tilt_down"),
        ({"roll": 1}, "roll_clockwise"),
        ({"roll": -1}, "roll_anticlockwise"),
        ({"dolly": 0.5}, None),
        ({"pan": 1, "tilt": 1}, None),
        ({"pan": 0}, None),
    ],
)
def test_a_key_s_number_says_which_way_the_camera_goes(key: dict[str, float], way: str | None) -> None:
    found = direction_of(absolute_camera([CameraKey(at_s=1, **key)]))
    assert found == (None if way is None else Direction(way))


@pytest.mark.parametrize(
    "camera",
    [
        [{"at_s": END, "pan": 10}],
        [{"at_s": 0}, {"at_s": 1.875, "pan": -400}],
        [{"at_s": 1, "pan": 5}, {"at_s": END, "pan": 10, "ease": [0.3, 0.3, 0.6, 0.6]}],
        [{"at_s": 0.5, "pan": 3, "relative": True}, {"at_s": END, "pan": 9, "relative": True}],
    ],
)
def test_a_camera_that_goes_evenly_one_way_until_the_end_is_followed(camera: list[dict[str, Any]]) -> None:
    assert group_of(*camera).camera == absolute_camera([CameraKey.model_validate(key) for key in camera])


REFUSED: list[tuple[list[dict[str, Any]], str, str]] = [
    ([{"at_s": END, "tilt": 5}], "camera", "tilt up is no way that it knows"),
    ([{"at_s": END, "dolly": 0.2}], "camera", "dolly is no way that it knows"),
    ([{"at_s": END, "truck": 0.2}], "camera", "truck is no way that it knows"),
    ([{"at_s": END, "pan": 5, "roll": 2}], "camera", "goes along pan and roll, and one axis at a time"),
    ([{"at_s": 1, "pan": 5}, {"at_s": END, "pan": 5}], "camera.0", "pan is 5 at 1 s, and only an even way"),
    ([{"at_s": 1}, {"at_s": END, "pan": 5}], "camera.0", "pan is 0 at 1 s, and only an even way"),
    ([{"at_s": 1, "pan": 5}, {"at_s": END, "pan": 0}], "camera", "pan that returns is no way"),
    ([{"at_s": 1, "pan": 9}, {"at_s": END, "pan": 5}], "camera.0", "pan is 9 at 1 s, and only an even way"),
    ([{"at_s": 0}, {"at_s": END, "pan": 5, "ease": "in"}], "camera.1.ease", "only an even way is followed"),
    ([{"at_s": 1, "pan": 5}], "camera.0.at_s", "stops at 1 s: only a way until the clip's end is followed, at 2 s"),
]


@pytest.mark.parametrize(("camera", "path", "message"), REFUSED)
def test_what_has_more_than_a_direction_is_refused_with_the_ways_and_who_follows_it(
    camera: list[dict[str, Any]], path: str, message: str
) -> None:
    issue = refused(*camera)
    assert (issue.path, issue.choices) == (path, WAYS)
    assert message in issue.message
    # Not `pictured`, whose camera moves over a picture: nobody is sent to bring one who need not.
    assert issue.message.endswith("(on ways); free follows it")


def test_a_camera_that_begins_elsewhere_or_rests_is_no_way() -> None:
    begins = refused({"at_s": 0, "pan": 5}, {"at_s": END, "pan": 9})
    assert "there it rests at 0 s" in begins.message
    assert begins.message.endswith("; pictured follows it"), "free begins at rest as well"
    assert "says that the camera rests" in refused({"at_s": END, "pan": 0}).message


def test_the_nearest_variant_that_knows_the_way_is_named() -> None:
    assert refused({"at_s": END, "zoom": 2}).message == "zoom in is no way that it knows (on ways); zooms follows it"
    assert refused({"at_s": END, "zoom": 0.5}).message.endswith("; free follows it"), "zooms knows the other way"
    assert group_of({"at_s": END, "zoom": 2}, variant="auto").variant == "zooms"


def test_the_camera_is_in_the_group_and_the_loras_in_the_digest() -> None:
    still, left, right = group_of(), group_of({"at_s": END, "pan": -5}), group_of({"at_s": END, "pan": 5})
    assert len({one.key for one in (still, left, right)}) == 3
    assert len({one.fingerprint("x", "", 1) for one in (still, left, right)}) == 3
    plain, own = catalog("")["ways"], CATALOG["ways"]
    heavy = catalog(LORAS.replace('"a/left"', '"a/left", weight = 0.5'))["ways"]
    other = catalog(LORAS.replace("a/left", "a/west"))["ways"]
    assert len({one.digest for one in (plain, own, heavy, other)}) == 4


def test_an_entry_names_loras_by_direction_on_a_class_that_is_free_to_move() -> None:
    ways, plain = CATALOG["ways"], catalog("")["ways"]
    assert (ways.all_steers, ways.directions(Mode.TEXT_TO_VIDEO)) == ((Steer.CAMERA,), tuple(map(Direction, WAYS)))
    assert (plain.all_steers, plain.all_directions) == ((), ())
    assert (CATALOG["free"].all_steers, CATALOG["free"].all_directions) == ((Steer.CAMERA,), ()), "it follows keys"

    def wrong(message: str, *entry: str) -> None:
        with pytest.raises(CatalogError, match=message):
            catalog(*entry)

    wrong("motion_loras: WanPipeline takes none; available: AnimateDiffPipeline", LORAS, "WanPipeline")
    wrong("carries no 'camera'", "", "AnimateDiffPipeline", 'conditions = ["camera"]')
    wrong("names none; available: zoom_in, zoom_out, pan_left", "motion_loras = {}")
    wrong("motion_loras.dolly_in: Extra inputs", 'motion_loras = { dolly_in = { source = "a/b" } }')
    wrong("weight: Input should be greater than 0", LORAS.replace('"a/left"', '"a/left", weight = -1'))


def test_the_one_that_ships_turns_the_picture_against_the_camera() -> None:
    loras = shipped_catalog()["animatediff-camera"].motion_loras
    assert loras is not None
    named = {way.value: lora.source.removeprefix("guoyww/animatediff-motion-lora-") for way, lora in
             loras.by_direction.items()}  # fmt: skip
    rolls = {"roll_clockwise": "rolling-anticlockwise", "roll_anticlockwise": "rolling-clockwise"}
    assert named == {way.value: rolls.get(way.value, way.value.replace("_", "-")) for way in Direction}
