"""Steps as they are said, resolved, and refused."""

from typing import Any

import pytest

from schemas.catalog import Catalog, parse_catalog
from schemas.errors import CatalogError, InvalidRequestError
from schemas.finish import FLOOR, FinishStage, chained, finish_s, read_steps, resolved_finish
from schemas.reframe import window_share
from schemas.request import Settings
from schemas.resolve import resolve
from schemas.shape import Shape
from schemas.task import Group
from tests.pipelines.catalogs import TWO_VARIANTS, two_variants

SHAPE = Shape(width=64, height=48, frames=17)
PAN = [{"at_s": 2, "pan": 5}]
SQUARE: dict[str, Any] = {"width": 64, "height": 64}


def stages(*steps: Any, shape: Shape = SHAPE, asked: tuple[int, int] | None = None) -> tuple[FinishStage, ...]:
    told, wrong = read_steps(list(steps))
    found, issues = resolved_finish(told, shape, 8.0, FLOOR, asked)
    assert not (*wrong, *issues)
    return found


def refusals(*steps: Any) -> list[str]:
    told, wrong = read_steps(list(steps))
    _, issues = resolved_finish(told, SHAPE, 8.0, FLOOR)
    return [str(issue) for issue in (*wrong, *issues)]


@pytest.mark.parametrize(
    ("step", "size"),
    [
        ({"upscale": 2}, (128, 96)),
        ({"upscale": "2.5"}, (160, 120)),
        ({"upscale": "128:96"}, (128, 96)),
        ({"upscale": "720p"}, (960, 720)),
        ({"fit": "pad", "size": "1280:720"}, (1280, 720)),
        ({"fit": "crop", "size": "64x36"}, (64, 36)),
    ],
)
def test_sizes_as_they_are_written(step: dict[str, Any], size: tuple[int, int]) -> None:
    (stage,) = stages(step)
    assert (stage.width, stage.height) == size
    assert (stage.frames, stage.fps) == (17, 8.0)


def test_lines_are_those_of_the_shorter_side() -> None:
    (stage,) = stages({"upscale": "480p"}, shape=Shape(width=48, height=64, frames=5))
    assert (stage.width, stage.height) == (480, 640)


def test_more_frames_a_second_last_as_long() -> None:
    smooth, large = stages({"interpolate": 24}, {"upscale": 2})
    assert (smooth.frames, smooth.fps, smooth.by) == (51, 24.0, "blend")
    assert (large.frames, large.fps, large.width, large.by) == (51, 24.0, 128, "lanczos")


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"interpolate": 8}, "finish.0.interpolate: 8 fps is no more than the 8 that the clip has; available: 16"),
        ({"upscale": 1}, "finish.0: upscale: a factor is above 1 and at most 8 (got 1)"),
        ({"upscale": 9}, "finish.0: upscale: a factor is above 1 and at most 8 (got 9)"),
        ({"upscale": "32:32"}, "finish.0.upscale: 32x32 is of another proportion than 64x48: upscale, then fit; "
         "available: 128:96"),
        ({"upscale": "64:48"}, "finish.0.upscale: 64x48 is not larger than 64x48; available: 128:96"),
        ({"upscale": "big"}, "finish.0: upscale: 'big' is no factor and no size; "
         "available: 2, 1280:720, 480p, 720p, 1080p, 4k"),
        ({"upscale": "9x"}, "finish.0: upscale: a factor is above 1 and at most 8 (got 9)"),
        ({"fit": "squash", "size": "64:64"}, "finish.0.fit: unknown fit 'squash'; available: pad, crop, stretch"),
        ({"fit": "pad", "size": "16:9"}, "finish.0: size: '16:9' is no size in pixels; write '1280:720'"),
        ({"fit": "pad"}, "finish.0.size: to which size? give it here, or the request's own in pixels; "
         "available: 1280:720"),
        ({"upscale": 2, "size": "64:64"}, "finish.0: upscale takes no size: that is of fit and reframe"),
        ({"upscale": 2, "fit": "pad"}, "finish.0: a step is one of interpolate, upscale, fit, reframe"),
        ({"upscale": 2, "by": "blend"}, "finish.0.by: 'blend' does no upscale; available: lanczos"),
        ({"sharpen": 2}, "finish.0.sharpen: no field of a step is called 'sharpen'; "
         "available: interpolate, upscale, fit, reframe, size, by"),
        (7, "finish.0: must be an object with one of interpolate, upscale, fit, reframe"),
        ({"reframe": [{"at_s": 1, "pan": 5, "dolly": 0.1}]}, "finish.0: reframe: a window turns and zooms: dolly is "
         "for variants that follow a camera"),
        ({"reframe": [{"at_s": 1, "pan": 0}]}, "finish.0: reframe: the camera stands still: say where it goes"),
        ({"reframe": [{"at_s": 1, "pan": 25}]}, "finish.0.reframe: the window would leave the picture, or be less than "
         "20% of it: turn less"),
        ({"reframe": [{"at_s": 1, "spin": 5}]}, "finish.0.reframe.0.spin: no field is called 'spin'; available: "
         "at_s, relative, ease, pan, tilt, roll, zoom, dolly and 2 more"),
        ({"reframe": [{"at_s": 1, "pan": 5}], "by": "lanczos"}, "finish.0.by: 'lanczos' does no reframe; "
         "available: window"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_choices(step: Any, told: str) -> None:
    assert refusals(step)[0] == told


def group(catalog: Catalog | None = None, **settings: Any) -> Group:
    fit_sizes = settings.pop("fit_sizes", None)
    finish, wrong = read_steps(settings.pop("finish", []))
    assert not wrong
    told = Settings(variant="small", finish=finish, **settings)
    return resolve(told, catalog or two_variants(), rank=lambda v, g: 0.0, fit_sizes=fit_sizes)


def test_every_stage_is_part_of_the_fingerprint_and_the_clip_below_keeps_its_own() -> None:
    plain = group()
    told: list[Group] = [
        plain,
        group(finish=[{"upscale": 2}]),
        group(finish=[{"upscale": 3}]),
        group(finish=[{"interpolate": 16}]),
        group(finish=[{"interpolate": 16, "by": "motion"}]),
        group(finish=[{"interpolate": 16}, {"upscale": 2}]),
        group(finish=[{"upscale": 2}, {"interpolate": 16}]),
        group(finish=[{"reframe": PAN}]),
        group(finish=[{"reframe": [{"at_s": 2, "pan": 6}]}]),
        group(finish=[{"reframe": [{"at_s": 2, "pan": 5, "ease": "in"}]}]),
    ]
    assert len({one.fingerprint("a", "", 1) for one in told}) == len({one.key for one in told}) == len(told)
    assert {one.base_fingerprint("a", "", 1) for one in told} == {plain.fingerprint("a", "", 1)}
    assert told[5].up_to(0) == plain
    assert told[5].up_to(1).fingerprint("a", "", 1) == told[3].fingerprint("a", "", 1)


def test_the_same_motion_of_a_window_is_the_same_clip_however_it_is_written() -> None:
    relative = [{"at_s": 0, "pan": 0}, {"at_s": 2, "pan": 5, "relative": True}]
    assert group(finish=[{"reframe": relative}]) == group(finish=[{"reframe": PAN}])
    of_a_table = [{"reframe": [{**PAN[0], "tilt": None, "relative": None, "ease": None}], "fit": None, "size": None}]
    assert group(finish=of_a_table) == group(finish=[{"reframe": '[{"at_s": 2, "pan": 5}]'}])


def test_stages_that_there_were_before_there_were_windows_keep_their_fingerprints() -> None:
    (stage,) = stages({"upscale": 2})
    assert chained("0" * 32, [stage]) == "0df613ddf2954c169a5afd4aac665173"


def test_what_a_window_moves_through_is_rendered_larger_than_what_is_asked_for() -> None:
    plain, moved = group(**SQUARE), group(**SQUARE, finish=[{"reframe": PAN}])
    assert (plain.width, plain.height) == (64, 64)
    assert (moved.clip_shape.width, moved.clip_shape.height) == (64, 64)
    assert (moved.width, moved.height) == (80, 80)
    share = window_share(moved.finish[0].camera, moved.shape, 8.0, 1.0)
    assert share * moved.width >= 62, "so that hardly a pixel of what is shown is enlarged"
    # Without a size it is as large as the window.
    free = group(finish=[{"reframe": PAN}])
    assert free.clip_shape.width < free.width
    with pytest.raises(InvalidRequestError, match="leave the picture"):
        group(**SQUARE, finish=[{"reframe": [{"at_s": 2, "pan": 40}]}])


def test_a_size_that_a_variant_lacks_is_refused_unless_it_may_be_fitted() -> None:
    with pytest.raises(InvalidRequestError, match="is more than 16384 pixels a frame"):
        group(ratio="1280:720")
    asked = group(ratio="1280:720", finish=[{"fit": "pad"}])
    allowed = group(ratio="1280:720", fit_sizes="pad")
    assert asked == allowed
    assert (asked.clip_shape.width, asked.clip_shape.height) == (1280, 720)
    # What the model renders is what it has that is most like it.
    assert (asked.width, asked.height) == (80, 48)
    assert [stage.told for stage in asked.finish] == ["fit (pad) to 1280x720 by lanczos"]
    # A size that it has is rendered as it is.
    assert not group(width=96, height=64, fit_sizes="pad").finish
    assert not group(ratio="16:9", fit_sizes="pad").finish


def test_a_catalog_names_finishers_of_its_own_and_the_floor_is_always_there() -> None:
    more = """
[finishers.net]
method = "spandrel"
weights = "/models/net.safetensors"
price_usd_per_hour = 2.0
s_per_megapixel = 0.5
"""
    catalog = parse_catalog(TWO_VARIANTS + more, "mine.toml")
    assert tuple(catalog.finishers) == ("lanczos", "blend", "motion", "window", "net")
    (stage,) = group(catalog, finish=[{"upscale": 2, "by": "net"}]).finish
    seconds, usd = finish_s((stage,), catalog.finishers)
    assert seconds == pytest.approx(0.5 * 128 * 128 * 17 / 1e6)
    assert usd == pytest.approx(seconds * 2.0 / 3600)
    # Whoever names nobody gets the floor.
    assert group(catalog, finish=[{"upscale": 2}]).finish[0].by == "lanczos"


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('method = "magic"', "finishers.net.method"),
        ('method = "spandrel"', "spandrel needs weights"),
        ('method = "latent"', "latent needs weights"),
        ('method = "motion"\nsteps = 2', "motion takes no steps"),
        ('method = "lanczos"\nweights = "x"', "lanczos takes no weights"),
    ],
)
def test_a_finisher_that_cannot_be_is_refused(entry: str, told: str) -> None:
    with pytest.raises(CatalogError, match=told):
        parse_catalog(f"{TWO_VARIANTS}\n[finishers.net]\n{entry}\n", "mine.toml")
