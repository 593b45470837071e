"""What cameras, paths and edits do to the pixels: on `obedient`'s VACE, which renders its control video, and on a tiny
LTX, which keeps its keyframes' codes."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from models.guide import control_of, guide_of, keyframes_of
from models.loaded import LoadedModel
from models.loader import load
from models.model import Pictures, TaskMedia, ignore_step, nobody_cancelled
from models.motion.boxes import corners
from models.motion.camera import camera_to_world
from schemas.catalog import Variant, load_catalog
from schemas.conditions import Condition, implied_mode
from schemas.inputs import Role
from schemas.motion import Edit, PathGuide, Steer, absolute_camera, absolute_path, read_motion
from schemas.request import Mode
from schemas.task import Group, RenderBatch
from tests.models import obedient
from tests.models.conftest import TinyModel
from tests.models.tiny_variants import group_of, task_of, tiny_variant
from tests.models.tiny_world import sana_wm
from training.tiny import save

SIDE, FRAMES = 32, 13
SHAPE = {"divisor": 16, "max_frames": 81, "max_pixels": 65536, "native": [(SIDE, SIDE, FRAMES)]}
RED, GREEN, BLUE, GRAY = (230, 30, 30), (30, 230, 30), (30, 30, 230), (128, 128, 128)
FIRST = Condition(role=Role.FIRST_FRAME, medium="image", frame=0)
SOURCE = Condition(role=Role.SOURCE, medium="video", strength=None)
Given = tuple[Condition, Pictures]


@pytest.fixture(scope="module")
def vace(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = obedient.vace(tmp_path_factory.mktemp("vace"))
    return load(tiny_variant("wan-vace", folder, shape=SHAPE, guidance=1.0, fps=8), device="cpu")


def group(model: LoadedModel, *given: Given, camera: Any = (), paths: Any = (), edit: Any = None, **more: Any) -> Group:
    mode = implied_mode(one.role for one, _ in given)
    said = {
        "camera": absolute_camera(read_motion("camera", camera)[0]),
        "paths": tuple(absolute_path(one) for one in read_motion("paths", paths)[0]),
        "edit": None if edit is None else Edit.model_validate(edit),
    }
    return group_of(model.variant, mode, conditions=tuple(one for one, _ in given), **said, **more)


def clip(model: LoadedModel, *given: Given, seed: int = 0, **said: Any) -> npt.NDArray[np.int64]:
    work = group(model, *given, **said)
    batch = RenderBatch(work, (task_of(work, "a shape", seed, media=tuple("x" for _ in given)),))
    media = TaskMedia(tuple(pictures for _, pictures in given))
    (made,) = model.render(batch, (media,), ignore_step, nobody_cancelled)
    assert isinstance(made, np.ndarray), made
    return made.astype(np.int64)


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour)


def bar(left: int, width: int = 8, *, upright: bool = True) -> Image.Image:
    """Red on green: a bar from `left` (or from the top)."""
    image = plain(GREEN)
    image.paste(RED, (left, 0, left + width, SIDE) if upright else (0, left, SIDE, left + width))
    return image


def middle_of_red(frame: npt.NDArray[np.int64]) -> tuple[float, float]:
    """x and y of the centre of what is red."""
    red = np.clip(frame[..., 0] - np.maximum(frame[..., 1], frame[..., 2]), 20, None) - 20
    rows, columns = np.indices(red.shape) + 0.5
    assert red.sum() > 0, "nothing is red"
    return float((red * columns).sum() / red.sum()), float((red * rows).sum() / red.sum())


def is_like(pixels: npt.NDArray[np.int64], colour: tuple[int, int, int]) -> bool:
    return float(np.abs(pixels.reshape(-1, 3).mean(axis=0) - colour).max()) <= 20


# The code of a cell is the mean of four frames: motion ends before the last four, and they stand still.
CAMERAS: list[tuple[dict[str, float], tuple[float, float]]] = [
    ({"truck": 0.25}, (-8, 0)),
    ({"truck": -0.25}, (8, 0)),
    ({"pedestal": 0.25}, (0, 8)),
    ({"pan": 14.0362}, (-8, 0)),  # the tangent is a quarter
    ({"tilt": -14.0362}, (0, -8)),
]


@pytest.mark.parametrize(("said", "shift"), CAMERAS)
def test_what_is_seen_moves_the_right_way_by_the_right_amount(
    vace: LoadedModel, said: dict[str, float], shift: tuple[float, float]
) -> None:
    picture = bar(8, upright=bool(shift[0]))  # cells are of eight pixels
    made = clip(vace, (FIRST, picture), camera=[{"at_s": 1.0, **said}])
    begin, end = middle_of_red(made[0]), middle_of_red(made[-1])
    moved = [b - a for a, b in zip(begin, end, strict=True)]
    assert moved == pytest.approx(shift, abs=1.5)


def test_what_the_camera_uncovers_is_made_anew_and_the_network_is_told_so(
    vace: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    pipe = vace.pipes[Mode.IMAGE_TO_VIDEO]
    forward = pipe.transformer.forward

    def seeing(*given: Any, **named: Any) -> Any:
        seen.append(named["control_hidden_states"])
        return forward(*given, **named)

    monkeypatch.setattr(pipe.transformer, "forward", seeing)
    # Of the mask over four frames the pipeline keeps one.
    made = clip(vace, (FIRST, plain(RED)), camera=[{"at_s": 0.5}, {"at_s": 1.0, "truck": 0.5}])
    assert is_like(made[-1, :, :12], RED)
    assert is_like(made[-1, :, 20:], GRAY), "nobody knows what is there"
    mask = seen[0][0, 32:]
    assert mask[:, 0].max() == 0, "the first frame is kept"
    assert mask[:, -1, :, :2].max() == 0
    assert mask[:, -1, :, 2:].min() == 1


def test_a_zoom_makes_things_larger_and_a_roll_turns_them(vace: LoadedModel) -> None:
    zoomed = clip(vace, (FIRST, bar(8)), camera=[{"at_s": 1.0, "zoom": 2}])
    red = [(frame[..., 0] - frame[..., 1] > 60).mean() for frame in (zoomed[0], zoomed[-1])]
    assert red[1] == pytest.approx(2 * red[0], rel=0.35)
    rolled = clip(vace, (FIRST, bar(24)), camera=[{"at_s": 1.0, "roll": 90}])
    assert middle_of_red(rolled[0]) == pytest.approx((28, 16), abs=1.5)
    assert middle_of_red(rolled[-1]) == pytest.approx((16, 4), abs=1.5), "clockwise: what was right is above"


def test_the_camera_moves_over_a_source_that_moves_itself(vace: LoadedModel) -> None:
    moving = tuple(bar(16 if frame < 5 else 8) for frame in range(FRAMES))
    still = clip(vace, (SOURCE, moving))
    made = clip(vace, (SOURCE, moving), camera=[{"at_s": 0, "truck": -0.25}])
    for frame in (0, -1):
        assert middle_of_red(made[frame])[0] - middle_of_red(still[frame])[0] == pytest.approx(8, abs=1.5)


def test_a_path_s_box_is_seen_where_it_should_be(vace: LoadedModel) -> None:
    box = {"label": "fox", "box": [0, 0, 0.5, 0.5], "keys": [{"at_s": 1.0, "x": 0.75, "y": 0.75}]}
    made = clip(vace, paths=[box])
    dark = 765 - made.sum(axis=-1)
    corner = [(slice(0, 16), slice(0, 16)), (slice(16, 32), slice(16, 32))]
    assert dark[(0, *corner[0])].mean() > 3 * dark[(0, *corner[1])].mean() + 5
    assert dark[(-1, *corner[1])].mean() > 3 * dark[(-1, *corner[0])].mean() + 5


@pytest.mark.slow
def test_the_model_that_ships_follows_a_path_which_it_is_shown_as_a_dot() -> None:
    variant = load_catalog(Path(__file__).parents[2] / "rushes" / "catalog.toml")["directed"]
    assert variant.path_guide is PathGuide.DOTS
    assert variant.digest != variant.model_copy(update={"path_guide": PathGuide.BOXES}).digest
    keys = [{"at_s": 1, "x": 0.8, "y": 0.4}, {"at_s": 2, "x": 0.3, "y": 0.8}]
    model, shape = load(variant, device="cpu"), variant.shape.default()
    work = group(
        model, paths=[{"label": "it", "point": [0.2, 0.25], "keys": keys}],
        width=shape.width, height=shape.height, frames=shape.frames, fps=variant.fps,
    )  # fmt: skip
    batch = RenderBatch(work, (task_of(work, "a red circle following the path on a navy background", 1),))
    (made,) = model.render(batch, (TaskMedia(),), ignore_step, nobody_cancelled)
    assert isinstance(made, np.ndarray), made
    red = (made[..., 0] > 140) & (made[..., 2] < 110)
    seen = np.stack([np.argwhere(frame).mean(axis=0)[::-1] for frame in red])
    wanted = corners(work.paths, shape, variant.fps).mean(axis=(1, 2))
    assert np.hypot(*(seen - wanted).T).mean() < 0.06 * shape.width


def test_boxes_hold_within_the_region_and_the_source_outside(vace: LoadedModel) -> None:
    red = (plain(RED),) * FRAMES
    box = {"label": "fox", "box": [0.1, 0.1, 0.3, 0.9], "keys": [{"at_s": 0}]}
    made = clip(vace, (SOURCE, red), paths=[box], edit={"region": [0, 0, 0.5, 1]})
    assert is_like(made[:, :, 20:], RED)
    assert not is_like(made[:, :, :12], RED)


def test_only_the_region_of_a_source_is_made_anew(vace: LoadedModel) -> None:
    made = clip(vace, (SOURCE, (plain(BLUE),) * FRAMES), edit={"region": [0, 0.5, 1, 1]})
    assert is_like(made[:, :12], BLUE)
    assert is_like(made[:, 20:], GRAY)


def test_a_guide_can_be_seen_before_it_is_sent(vace: LoadedModel) -> None:
    given = ((FIRST, bar(12)),)
    work = group(vace, *given, camera=[{"at_s": 1.0, "truck": 0.25}])
    guide = guide_of("WanVACEPipeline", work, given)
    assert guide == control_of(work, given)
    assert guide is not None
    assert np.array_equal(np.asarray(guide.video[0]), np.asarray(bar(12))), "as it was, to the bit"
    shown, mask = np.asarray(guide.video[-1]), np.asarray(guide.mask[-1])
    assert np.array_equal(shown[:, :24], np.asarray(bar(4))[:, :24])
    assert (shown[:, 24:] == 128).all()
    assert (mask[:, :24] == 0).all()
    assert (mask[:, 24:] == 255).all()
    assert guide_of("WanPipeline", group(vace), ()) is None


def test_views_of_the_camera_are_keyframes_where_a_class_takes_nothing_else(tiny_model: TinyModel) -> None:
    model = tiny_model("ltx-condition")
    work = group(model, (FIRST, bar(12)), camera=[{"at_s": 1, "truck": 0.25}, {"at_s": 2, "truck": 0}], frames=17)
    placed = keyframes_of(work, ((FIRST, bar(12)),))
    assert [one.frame for one in placed] == [0, 8, 16]
    assert np.array_equal(np.asarray(placed[1].picture), np.asarray(bar(4))), "green goes on where nothing was"
    assert np.array_equal(np.asarray(placed[2].picture), np.asarray(bar(12)))

    def made(truck: float) -> npt.NDArray[np.int64]:
        keys = [{"at_s": 1, "truck": truck}]
        return clip(model, (FIRST, bar(12)), camera=keys, frames=17, steps=4)

    assert np.array_equal(made(0.25), made(0.25))
    assert (made(0.25) != made(-0.25)).any()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    torch.manual_seed(0)
    pipe = sana_wm()
    with torch.no_grad():
        # As it is made, what is told of the camera begins at nothing.
        for name, parameter in pipe.transformer.named_parameters():
            if "plucker" in name or "cam" in name:
                parameter.add_(torch.randn_like(parameter) * 0.5)
    entry = {
        "name": "world",
        "pipeline": "SanaWMPipeline",
        "weights": str(save(pipe, tmp_path_factory.mktemp("world"))),
        "modes": ["image_to_video"],
        "dtype": "float32",
        "steps": 2,
        "guidance": 1.0,
        "fps": 8,
        "shape": {"divisor": 32, "max_frames": 81, "max_pixels": 65536, "native": [(SIDE, SIDE, 9)]},
        "latent": {"channels": 8, "spatial": 8, "temporal": 2},
    }
    return load(Variant.model_validate(entry), device="cpu")


def test_a_model_of_cameras_is_told_where_it_is_and_its_lens(
    world: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.variant.all_steers == (Steer.CAMERA,)
    pipe, seen = world.pipes[Mode.IMAGE_TO_VIDEO], []
    prepare = pipe.prepare_camera_trajectory

    def seeing(c2w: Any, action: Any, lens: Any, frames: int) -> Any:
        seen.append((c2w, lens))
        return prepare(c2w, action, lens, frames)

    monkeypatch.setattr(pipe, "prepare_camera_trajectory", seeing)
    given = (FIRST, bar(8))
    cameras: list[Any] = [(), [{"at_s": 1}], [{"at_s": 1, "truck": 0.5, "pan": 30}], [{"at_s": 1, "zoom": 2}]]
    still, rests, moves, zooms = (clip(world, given, camera=keys) for keys in cameras)
    assert np.array_equal(still, rests), "without a word it rests"
    assert (moves != still).any()
    assert (zooms != still).any()
    assert (moves != zooms).any()
    keys = absolute_camera(read_motion("camera", cameras[2])[0])
    assert seen[2][0] == pytest.approx(camera_to_world(keys, 9, 8))
    assert seen[0][0] == pytest.approx(np.tile(np.eye(4), (9, 1, 1)))
    assert seen[0][1].tolist() == [[32, 32, 16, 16]] * 9
    assert seen[3][1][-1] == pytest.approx([64, 64, 16, 16])


def test_a_call_gets_the_views_with_their_places(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("ltx-condition")
    pipe, seen = model.pipes[Mode.IMAGE_TO_VIDEO], []
    prepare = pipe.prepare_latents

    def seeing(conditions: Any, strengths: Any, frames: Any, **named: Any) -> Any:
        seen.append((len(conditions), strengths, frames))
        return prepare(conditions, strengths, frames, **named)

    monkeypatch.setattr(pipe, "prepare_latents", seeing)
    soft = FIRST.model_copy(update={"strength": 0.5})
    clip(model, (soft, bar(12)), camera=[{"at_s": 1, "truck": 0.25}], frames=17)
    assert seen == [(2, [0.5, 0.5], [0, 8])]
