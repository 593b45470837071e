"""Shape rules: what fits, what is named when it does not, what --snap makes of it."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.shape import Shape, ShapeRule, parse_ratio

WAN = ShapeRule(
    divisor=16,
    frame_step=4,
    frame_offset=1,
    min_frames=5,
    max_frames=81,
    max_pixels=832 * 480,
    native=((832, 480, 81), (480, 832, 81)),
)

# Its least side is close to its most pixels: extreme proportions run into both.
SMALL = ShapeRule(divisor=32, frame_step=4, max_frames=33, min_side=64, max_pixels=9216, native=((64, 64, 16),))


def test_a_native_shape_fits() -> None:
    assert WAN.issues(WAN.default()) == ()


def test_a_side_off_the_grid_is_told_with_both_neighbours() -> None:
    (issue,) = WAN.issues(Shape(width=830, height=480, frames=81))
    assert issue.path == "width"
    assert set(issue.choices) == {"816", "832"}


def test_frames_off_the_grid_are_told_with_both_neighbours() -> None:
    (issue,) = WAN.issues(Shape(width=832, height=480, frames=80))
    assert (issue.path, issue.choices) == ("num_frames", ("77", "81"))
    assert "4k+1" in issue.message


def test_too_many_pixels_are_told_with_a_size_that_fits() -> None:
    (issue,) = WAN.issues(Shape(width=1280, height=720, frames=81))
    width, height = map(int, issue.choices[0].split("x"))
    assert WAN.issues(Shape(width=width, height=height, frames=81)) == ()


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 500))
def test_the_nearest_shape_of_anything_fits(width: int, height: int, frames: int) -> None:
    for rule in (WAN, SMALL):
        assert rule.issues(rule.nearest(Shape(width=width, height=height, frames=frames))) == ()


@given(st.integers(1, 60).map(lambda k: k * 16), st.integers(1, 20).map(lambda k: 4 * k + 1))
def test_a_shape_that_fits_is_its_own_nearest(side: int, frames: int) -> None:
    shape = Shape(width=side, height=16, frames=frames)
    if not WAN.issues(shape):
        assert WAN.nearest(shape) == shape


@pytest.mark.parametrize(
    ("text", "value"),
    [("16:9", Fraction(16, 9)), ("1280:720", (1280, 720)), ("1:1", Fraction(1)), ("2.39:1", Fraction(239, 100))],
)
def test_a_ratio_is_a_proportion_when_small_and_a_size_when_large(text: str, value: object) -> None:
    assert parse_ratio(text) == value


@pytest.mark.parametrize("text", ["16/9", "wide", "0:1", "-1:2", ""])
def test_what_is_no_ratio_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ratio|positive"):
        parse_ratio(text)


def test_a_ratio_takes_the_native_shape_that_has_it() -> None:
    assert WAN.for_ratio(Fraction(9, 16)) == (480, 832)


def test_a_ratio_without_a_native_shape_keeps_the_area_and_the_grid() -> None:
    width, height = WAN.for_ratio(Fraction(1))
    assert width == height
    assert WAN.issues(Shape(width=width, height=height, frames=81)) == ()


def test_a_duration_becomes_the_closest_valid_frame_count() -> None:
    assert WAN.frames_for(duration_s=2.0, fps=16) == 33
    assert WAN.frames_for(duration_s=60.0, fps=16) == 81
