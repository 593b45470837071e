"""Arrays a frame: golden values of conventions, and what holds for every motion."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.motion.boxes import boxes, colour_of, corners, drawn
from models.motion.camera import camera_to_world, intrinsics, to_rest
from models.motion.curves import eased
from models.motion.flow import flow, moved
from models.motion.rays import plucker
from schemas.motion import EASES, CameraKey, Path, PathGuide, read_motion
from schemas.shape import Shape

SHAPE = Shape(width=32, height=16, frames=5)
FPS = 4.0


def camera(*keys: dict[str, Any]) -> tuple[CameraKey, ...]:
    found, issues = read_motion("camera", list(keys))
    assert not issues
    return tuple(found)


def path(**fields: Any) -> Path:
    return Path.model_validate({"label": "thing", **fields})


def test_eases_begin_at_nothing_and_end_with_all() -> None:
    for ease in EASES.values():
        assert eased([0.0, 1.0], ease).tolist() == [0.0, 1.0]
    assert eased([0.25, 0.5], EASES["linear"]) == pytest.approx([0.25, 0.5])
    assert eased([0.5], EASES["in-out"]) == pytest.approx([0.5])
    assert eased([0.25], EASES["in"])[0] < 0.25 < eased([0.25], EASES["out"])[0]
    # CSS's `ease`, at a quarter of the time, as browsers have it.
    assert eased([0.25], (0.25, 0.1, 0.25, 1.0)) == pytest.approx([0.4085], abs=1e-4)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-2, 2), st.floats(0, 1), st.floats(-2, 2))
def test_an_ease_and_its_mirror_image_are_symmetric(share: float, x1: float, y1: float, x2: float, y2: float) -> None:
    there = eased([share], (x1, y1, x2, y2))
    back = eased([1 - share], (1 - x2, 1 - y2, 1 - x1, 1 - y1))
    # Where time stands still a hair of it is a step of the way.
    slope = 1e-6 + 1e-4 * (x1 >= 0.9 and x2 <= 0.1)
    if 0.01 < share < 0.99 and not (x1 > 0.9 and x2 < 0.1):
        assert there + back == pytest.approx([1.0], abs=max(slope, 1e-6))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.sampled_from(list(EASES.values())))
def test_named_eases_never_run_back(shares: list[float], ease: tuple[float, float, float, float]) -> None:
    done = eased(sorted(shares), ease)
    assert (np.diff(done) >= -1e-9).all()
    assert ((done >= 0) & (done <= 1)).all()


def test_a_camera_that_rests_is_the_identity() -> None:
    for keys in ((), camera({"at_s": 1.0})):
        assert np.array_equal(camera_to_world(keys, 3, FPS), np.tile(np.eye(4), (3, 1, 1)))
    assert to_rest((), SHAPE, FPS)[2] == pytest.approx(np.eye(3))
    assert np.abs(flow((), (), SHAPE, FPS)).max() < 1e-9


RIGHT, DOWN, AHEAD = np.eye(3)


@pytest.mark.parametrize(
    ("said", "axis", "goes_to"),
    [
        ({"pan": 90}, AHEAD, RIGHT),
        ({"pan": 90}, RIGHT, -AHEAD),
        ({"tilt": 90}, AHEAD, -DOWN),
        ({"tilt": 90}, DOWN, AHEAD),
        ({"roll": 90}, RIGHT, DOWN),
        ({"roll": 90}, DOWN, -RIGHT),
        ({"pan": 90, "tilt": 90}, AHEAD, -DOWN),
        ({"pan": 90, "tilt": 90}, RIGHT, -AHEAD),
    ],
)
def test_a_quarter_turn_carries_an_axis_of_the_camera_to_the_world_s(
    said: dict[str, float], axis: Any, goes_to: Any
) -> None:
    matrix = camera_to_world(camera({"at_s": 1, **said}), 5, FPS)[-1]
    assert matrix[:3, :3] @ axis == pytest.approx(goes_to, abs=1e-12)
    assert matrix[:3, 3] == pytest.approx(np.zeros(3))
    assert matrix[3].tolist() == [0, 0, 0, 1]


def test_a_dolly_goes_ahead_a_truck_right_and_a_pedestal_up() -> None:
    keys = camera({"at_s": 1, "dolly": 0.5, "truck": 0.25, "pedestal": 0.125, "pan": 90})
    matrices = camera_to_world(keys, 5, FPS)
    assert matrices[-1, :3, 3] == pytest.approx([0.25, -0.125, 0.5]), "along the axes of the beginning"
    assert matrices[2, :3, 3] == pytest.approx([0.125, -0.0625, 0.25]), "half-way at half the time"


def test_zoom_is_in_the_lens_and_passes_equal_ratios_in_equal_times() -> None:
    keys = camera({"at_s": 1, "zoom": 4})
    lens = intrinsics(keys, SHAPE, FPS)
    assert lens[:, 0, 0] / 32 == pytest.approx([4 ** (k / 4) for k in range(5)])
    assert lens[2] == pytest.approx(np.array([[64, 0, 16], [0, 64, 8], [0, 0, 1]]))
    assert camera_to_world(keys, 5, FPS)[-1] == pytest.approx(np.eye(4))


def test_before_the_first_key_it_comes_from_rest_and_after_the_last_it_stays() -> None:
    keys = camera({"at_s": 0.5, "truck": 0.2}, {"at_s": 0.75, "truck": 0.1, "relative": True})
    assert camera_to_world(keys, 6, FPS)[:, 0, 3] == pytest.approx([0, 0.1, 0.2, 0.3, 0.3, 0.3])


@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(-180, 180), st.floats(-1, 0.9))
def test_matrices_are_rigid(pan: float, tilt: float, roll: float, dolly: float) -> None:
    for matrix in camera_to_world(camera({"at_s": 1, "pan": pan, "tilt": tilt, "roll": roll, "dolly": dolly}), 3, 2.0):
        assert matrix[:3, :3] @ matrix[:3, :3].T == pytest.approx(np.eye(3), abs=1e-9)
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


def test_rays_of_a_camera_that_rests_run_through_its_pixels_and_have_no_moment() -> None:
    rays = plucker((), SHAPE, FPS)
    assert rays.shape == (6, 5, 16, 32)
    assert (rays[:3] == 0).all()
    assert np.linalg.norm(rays[3:], axis=0) == pytest.approx(1)
    x, y, z = rays[3:, 0, 3, 7]
    assert (x / z, y / z) == pytest.approx(((7.5 - 16) / 32, (3.5 - 8) / 32)), (
        "the middle of that pixel, the lens as wide"
    )
    assert np.array_equal(rays[:, 0], rays[:, -1])


def test_rays_turn_and_move_with_the_camera() -> None:
    square = Shape(width=3, height=3, frames=5)
    turned = plucker(camera({"at_s": 1, "pan": 90}), square, FPS)[:, -1, 1, 1]
    assert turned == pytest.approx([0, 0, 0, 1, 0, 0], abs=1e-6), "the middle one looks to the right"
    moved_right = plucker(camera({"at_s": 1, "truck": 0.5}), square, FPS)[:, -1, 1, 1]
    assert moved_right == pytest.approx([0, -0.5, 0, 0, 0, 1], abs=1e-6), "x × z is −y"
    zoomed = plucker(camera({"at_s": 1, "zoom": 2}), square, FPS)
    slopes = zoomed[3, :, 1, 2] / zoomed[5, :, 1, 2]
    assert slopes[[0, -1]] == pytest.approx([1 / 3, 1 / 6])


def test_flow_says_how_far_pixels_go() -> None:
    truck = flow(camera({"at_s": 1, "truck": 0.25}), (), SHAPE, FPS)
    assert truck.shape == (4, 16, 32, 2)
    assert truck.reshape(-1, 2) == pytest.approx(np.tile([-2.0, 0.0], (4 * 16 * 32, 1))), "to the right: left by 8 in 4"
    up = flow(camera({"at_s": 1, "pedestal": 0.125}), (), SHAPE, FPS)
    assert up.reshape(-1, 2) == pytest.approx(np.tile([0.0, 1.0], (4 * 16 * 32, 1)))
    zoom = flow(camera({"at_s": 0.25, "zoom": 2}), (), SHAPE, FPS)[0]
    assert zoom[8, 31] == pytest.approx([15.5, 0.5]), "twice as far from the middle"
    in_ = flow(camera({"at_s": 0.25, "dolly": 0.5}), (), SHAPE, FPS)[0]
    assert in_ == pytest.approx(zoom), "half as far away is twice as large"


def test_a_pan_moves_the_middle_by_the_tangent_and_what_it_turns_away_from_is_nowhere() -> None:
    angle = math.degrees(math.atan(0.25))
    view = to_rest(camera({"at_s": 1, "pan": angle}), SHAPE, FPS)[-1]
    assert moved(np.array([16.0, 8.0]), view) == pytest.approx([24.0, 8.0]), "the middle shows what was 8 to its right"
    away = flow(camera({"at_s": 0.25, "pan": 120}), (), SHAPE, FPS)[0]
    assert np.isnan(away[8, 0]).all()


def test_a_box_goes_where_its_keys_say() -> None:
    thing = path(box=[0.25, 0.25, 0.5, 0.75], keys=[{"at_s": 1, "x": 0.875, "scale": 2}])
    found = boxes([thing], SHAPE, FPS)
    assert found.shape == (5, 1, 4)
    assert found[0, 0] == pytest.approx([8, 4, 16, 12])
    assert found[-1, 0] == pytest.approx([20, 0, 36, 16]), "about its centre; it may leave the picture"
    relative = path(box=[0.25, 0.25, 0.5, 0.75], keys=[{"at_s": 1, "x": 0.5, "scale": 2, "relative": True}])
    assert boxes([relative], SHAPE, FPS) == pytest.approx(found)


def test_a_box_turns_clockwise_in_pixels() -> None:
    thing = path(box=[0.25, 0.25, 0.75, 0.75], keys=[{"at_s": 1, "rotation": 90}])
    assert corners([thing], SHAPE, FPS)[0, 0].tolist() == [[8, 4], [24, 4], [24, 12], [8, 12]]
    assert corners([thing], SHAPE, FPS)[-1, 0] == pytest.approx(np.array([[20, 0], [20, 16], [12, 16], [12, 0]]))
    assert boxes([thing], SHAPE, FPS)[-1, 0] == pytest.approx([12, 0, 20, 16]), "as long as before, not as the picture"


def test_a_point_has_no_size_and_moves() -> None:
    point = path(point=[0.5, 0.5], keys=[{"at_s": 1, "y": 0.25, "ease": "in-out"}])
    found = boxes([point], SHAPE, FPS)
    assert found[0, 0].tolist() == [16, 8, 16, 8]
    assert found[2, 0] == pytest.approx([16, 6, 16, 6])


def test_inside_a_box_things_move_with_it() -> None:
    thing = path(box=[0.0, 0.0, 0.5, 1.0], keys=[{"at_s": 1, "x": 0.5, "relative": True}])
    found = flow((), [thing], SHAPE, FPS)
    assert found[0, 8, 4] == pytest.approx([4, 0])
    assert found[0, 8, 20] == pytest.approx([0, 0])
    assert found[3, 8, 14] == pytest.approx([4, 0]), "the box is there by then"


def test_boxes_are_drawn_where_they_are_in_the_colour_of_their_label() -> None:
    shape = Shape(width=64, height=32, frames=5)
    one = path(box=[0.125, 0.25, 0.375, 0.75], keys=[{"at_s": 1, "x": 0.75}])
    pictures = [np.asarray(frame) for frame in drawn([one], shape, FPS)]
    for picture, (left, top, right, bottom) in zip(pictures, boxes([one], shape, FPS)[:, 0], strict=True):
        rows, columns = np.nonzero((picture == colour_of("thing")).all(axis=-1))
        # Lines are two pixels thick.
        assert [columns.min(), columns.max() + 1] == pytest.approx([left, right], abs=1.5)
        assert [rows.min(), rows.max() + 1] == pytest.approx([top, bottom], abs=1.5)
        assert (picture[int((top + bottom) / 2), int((left + right) / 2)] == 255).all(), "an outline"
    assert colour_of("fox") == colour_of("fox")


def test_dots_are_drawn_where_the_things_are() -> None:
    shape = Shape(width=64, height=32, frames=5)
    one = path(box=[0.125, 0.25, 0.375, 0.75], keys=[{"at_s": 1, "x": 0.75}])
    pictures = [np.asarray(frame) for frame in drawn([one], shape, FPS, PathGuide.DOTS)]
    for picture, (left, top, right, bottom) in zip(pictures, boxes([one], shape, FPS)[:, 0], strict=True):
        assert (picture[0] == 0).all(), "black around"
        weight = picture[..., 0].astype(float)
        rows, columns = np.mgrid[0:32, 0:64] + 0.5
        assert weight.max() == 255
        assert (weight * columns).sum() / weight.sum() == pytest.approx((left + right) / 2, abs=0.1)
        assert (weight * rows).sum() / weight.sum() == pytest.approx((top + bottom) / 2, abs=0.1)
