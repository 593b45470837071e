"""EasyAnimate's control and inpainting classes. Their weights are random: what is shown is that the transformer gets
exactly the tensors that it should, and that the clip is that of the class called by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.easyanimate.pipeline_easyanimate_control import resize_mask
from PIL import Image

from models.easyanimate import EasyAnimateControlPipeline
from models.guide import guide_of
from models.loaded import LoadedModel
from models.loader import load
from models.motion.camera import camera_to_world, intrinsics
from schemas.catalog import Variant
from schemas.conditions import Condition
from schemas.errors import RenderError, VariantLoadError
from schemas.inputs import Kind, Role
from schemas.motion import Edit, absolute_camera, read_motion
from tests.models.shown import SIDE, Clip, as_bytes, as_tensor, clip, clips, moving
from tests.models.tiny_variants import I2V, T2V, V2V, group_of, noise_image, task_of, tiny_variant
from training.tiny import build

FRAMES, LATENT, STEPS = 9, 3, 2
DEPTH = Condition(role=Role.STRUCTURE, medium="video", kind=Kind.DEPTH)
FIRST = Condition(role=Role.FIRST_FRAME, medium="image", frame=0)
LAST = Condition(role=Role.LAST_FRAME, medium="image", frame=FRAMES - 1)
SOURCE = Condition(role=Role.SOURCE, medium="video", strength=1.0)
MASK = Condition(role=Role.MASK, medium="image")
NOISE_ON_KNOWN = 0.0563  # the class's own


def entry(folder: Path, pipeline: str, **changes: Any) -> Variant:
    shape = {"divisor": 16, "frame_step": 4, "frame_offset": 1, "max_frames": 49, "max_pixels": 65536}
    said = {
        "pipeline": pipeline,
        "modes": (T2V, I2V),
        "pipelines": {},
        "shape": {**shape, "native": [(SIDE, SIDE, FRAMES)]},
        "steps": STEPS,
    }
    return tiny_variant("cogvideox", folder, **{**said, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("easyanimate")
    for name in ("control", "camera", "inpaint"):
        build(f"easyanimate-{name}", root / name)
    return root


@pytest.fixture(scope="module")
def control(folder: Path) -> LoadedModel:
    said = ("structure:depth", "structure:pose", "first_frame")
    return load(entry(folder / "control", "EasyAnimateControlPipeline", conditions=said), device="cpu")


@pytest.fixture(scope="module")
def camera(folder: Path) -> LoadedModel:
    said = ("camera", "first_frame")
    return load(entry(folder / "camera", "EasyAnimateControlPipeline", conditions=said), device="cpu")


@pytest.fixture(scope="module")
def inpaint(folder: Path) -> LoadedModel:
    every = {"modes": (T2V, I2V, V2V), "strength": 1.0}
    return load(entry(folder / "inpaint", "EasyAnimateInpaintPipeline", **every), device="cpu")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What the transformers of the loaded models are given, call by call."""
    calls: list[dict[str, Any]] = []
    for name in {"control", "camera", "inpaint"} & set(request.fixturenames):
        model = request.getfixturevalue(name)
        monkeypatch.setattr(model.pipes[T2V].transformer, "forward", _seeing(model.pipes[T2V].transformer, calls))
    return calls


def _seeing(transformer: Any, calls: list[dict[str, Any]]) -> Any:
    forward = transformer.forward

    def call(*given: Any, **named: Any) -> Any:
        calls.append(named)
        return forward(*given, **named)

    return call


@torch.no_grad()
def code(model: LoadedModel, video: torch.Tensor) -> torch.Tensor:
    vae = model.pipes[T2V].vae
    return vae.encode(video)[0].mode() * vae.config.scaling_factor


def by_hand(model: LoadedModel, mode: Any = T2V, **given: Any) -> Clip:
    usual = {
        "prompt": ["a shape"],
        "negative_prompt": [""],
        "num_frames": FRAMES,
        "width": SIDE,
        "height": SIDE,
        "num_inference_steps": STEPS,
        "guidance_scale": 3.0,
        "generator": [torch.Generator().manual_seed(0)],
        "output_type": "pt",
    }
    return as_bytes(model.pipes[mode](**usual | given).frames[0])


def keys(**said: float) -> Any:
    return absolute_camera(read_motion("camera", [{"at_s": 1.0, **said}])[0])


def white_left() -> Image.Image:
    mask = Image.new("RGB", (SIDE, SIDE))
    mask.paste((255, 255, 255), (0, 0, SIDE // 2, SIDE))
    return mask


def test_a_structure_s_codes_stand_beside_the_noise_and_the_first_frame_s_at_the_first(
    control: LoadedModel, seen: list[dict[str, Any]]
) -> None:
    video, picture = moving(1, FRAMES), noise_image(7)
    clip(control, (DEPTH, video), (FIRST, picture))
    assert len(seen) == STEPS
    shown = seen[0]["control_latents"]
    assert shown.shape == (2, 32, LATENT, 4, 4)
    for run in shown:
        assert torch.equal(run[:16], code(control, as_tensor(video))[0])
        assert torch.equal(run[16:, :1], code(control, as_tensor((picture,)))[0])
        assert not run[16:, 1:].any()
    seen.clear()
    clip(control)
    assert not seen[0]["control_latents"].any(), "of nothing"


def test_a_structure_s_clip_is_the_class_s_own_bit_for_bit_and_depends_on_what_is_shown(control: LoadedModel) -> None:
    video, picture = moving(1, FRAMES), noise_image(7)
    made = clip(control, (DEPTH, video))
    assert np.array_equal(made, by_hand(control, control_video=(as_tensor(video) + 1) / 2))
    both = clip(control, (DEPTH, video), (FIRST, picture))
    shown = {"control_video": (as_tensor(video) + 1) / 2, "ref_image": (as_tensor((picture,)) + 1) / 2}
    assert np.array_equal(both, by_hand(control, I2V, **shown))
    others = [clip(control), clip(control, (FIRST, picture)), clip(control, (DEPTH, (*video[:5], *moving(2, 4)))), both]
    assert all((made != other).any() for other in others)


def test_its_tasks_of_a_batch_have_the_clips_that_they_have_alone(control: LoadedModel) -> None:
    one, other = ((DEPTH, moving(seed, FRAMES)) for seed in (1, 2))
    together = clips(control, (one,), (other,))
    assert np.array_equal(together[0], clip(control, one, seed=0))
    assert np.array_equal(together[1], clip(control, other, seed=1))


@pytest.mark.parametrize("frames", [5, 13])
def test_its_rule_of_frames_is_what_the_class_makes(control: LoadedModel, frames: int) -> None:
    assert len(clip(control, (DEPTH, moving(1, frames)), frames=frames)) == frames


def test_diffusers_own_control_class_cannot_be_called_which_is_why_there_is_ours(folder: Path) -> None:
    """When this fails, diffusers has put it right, and ours may go."""
    from diffusers import EasyAnimateControlPipeline as Theirs

    assert not hasattr(Theirs, "decode_latents")
    assert issubclass(EasyAnimateControlPipeline, Theirs)
    with pytest.raises(TypeError, match="text_encoder_index"):
        Theirs.from_pretrained(folder / "control")(prompt="a", num_frames=5, width=SIDE, height=SIDE)


def test_the_camera_is_told_as_the_rays_of_every_pixel(camera: LoadedModel, seen: list[dict[str, Any]]) -> None:
    moves = keys(pan=20, truck=0.5, zoom=1.5)
    clip(camera, camera=moves)
    shown = seen[0]["control_latents"]
    assert shown.shape == (2, 6 + 16, LATENT, 4, 4)
    assert not shown[:, 6:].any(), "no first frame"
    shape = camera.variant.shape.default()
    poses, lenses = (
        torch.from_numpy(made) for made in (camera_to_world(moves, FRAMES, 8), intrinsics(moves, shape, 8))
    )
    rays = torch.empty(1, 6, FRAMES, SIDE, SIDE, dtype=torch.float64)
    down, across = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    for frame in range(FRAMES):
        focal, middle = lenses[frame, 0, 0], lenses[frame, 0, 2]
        ray = torch.stack([(across - middle) / focal, (down - middle) / focal, torch.ones(SIDE, SIDE)], dim=-1).double()
        ray = (ray / ray.norm(dim=-1, keepdim=True)) @ poses[frame, :3, :3].T
        rays[0, :3, frame] = torch.linalg.cross(poses[frame, :3, 3].expand_as(ray), ray).permute(2, 0, 1)
        rays[0, 3:, frame] = ray.permute(2, 0, 1)
    expected = 6 * torch.cat(
        [
            torch.nn.functional.interpolate(part, (frames, 4, 4), mode="trilinear", align_corners=False)
            for part, frames in ((rays[:, :, :1], 1), (rays[:, :, 1:], LATENT - 1))
        ],
        dim=2,
    )
    assert shown[1, :6].numpy() == pytest.approx(expected[0].numpy(), abs=1e-5)


def test_a_camera_that_moves_changes_the_clip_and_one_that_rests_is_as_none(camera: LoadedModel) -> None:
    rests = clip(camera)
    assert np.array_equal(rests, clip(camera, camera=keys()))
    made = [rests, *(clip(camera, camera=keys(**said)) for said in ({"pan": 20}, {"truck": 0.5}, {"zoom": 2}))]
    made.append(clip(camera, (FIRST, noise_image(7)), camera=keys(pan=20)))
    assert all((a != b).any() for at, a in enumerate(made) for b in made[:at])


def test_a_first_frame_is_known_and_the_rest_is_made_anew(inpaint: LoadedModel, seen: list[dict[str, Any]]) -> None:
    picture, end = noise_image(7), noise_image(8)
    for given in (((FIRST, picture),), ((FIRST, picture), (LAST, end))):
        seen.clear()
        clip(inpaint, *given)
        known = torch.full((1, 3, FRAMES, SIDE, SIDE), -1.0)
        kept = torch.zeros(1, 1, FRAMES, SIDE, SIDE)
        for one, media in given:
            known[:, :, one.frame] = as_tensor((media,))[:, :, 0]
            kept[:, :, one.frame] = 1
        drawn = torch.Generator().manual_seed(0)
        torch.randn((1, 16, LATENT, 4, 4), generator=drawn)
        noise = torch.randn(known.shape, generator=drawn) * NOISE_ON_KNOWN
        shown = code(inpaint, torch.where(known == -1, known, known + noise))
        expected = torch.cat([resize_mask(kept, shown) * inpaint.pipes[T2V].vae.config.scaling_factor, shown], dim=1)
        for run in seen[0]["inpaint_latents"]:
            assert torch.equal(run, expected[0])
        assert expected[0, 0, 0].min() > 0.7, "the first frame is a latent one"


def test_without_anything_known_it_renders_from_the_text_alone(
    inpaint: LoadedModel, seen: list[dict[str, Any]]
) -> None:
    made = clip(inpaint)
    assert not seen[0]["inpaint_latents"].any()
    assert np.array_equal(made, by_hand(inpaint))
    together = clips(inpaint, (), ())
    assert np.abs(together[0].astype(int) - made).max() <= 1
    assert np.abs(together[1].astype(int) - clip(inpaint, seed=1)).max() <= 1


def test_a_mask_keeps_the_source_s_own_pixels_where_it_is_black(
    inpaint: LoadedModel, seen: list[dict[str, Any]]
) -> None:
    video = moving(1, FRAMES)
    made = clip(inpaint, (SOURCE, video), (MASK, white_left()))
    pixels = np.stack([np.asarray(frame) for frame in video])
    half = SIDE // 2
    assert (made[:, :, half:] == pixels[:, :, half:]).all()
    assert (made[:, :, :half] != pixels[:, :, :half]).mean() > 0.9
    mask = seen[0]["inpaint_latents"][0, 0]
    assert not mask[..., :1].any(), "white: made anew"
    assert mask[..., 3:].min() == pytest.approx(inpaint.pipes[T2V].vae.config.scaling_factor)
    region = clip(inpaint, (SOURCE, video), edit=Edit(region=(0.0, 0.0, 0.5, 1.0)))
    assert np.array_equal(region, made)
    given = clip(inpaint, (SOURCE, video), (MASK, white_left()), (FIRST, noise_image(7)))
    assert (given[0, :, half:] != pixels[0, :, half:]).any(), "a frame that is given is not the source's"


def test_a_strength_below_1_begins_from_the_source(inpaint: LoadedModel) -> None:
    half, video = SOURCE.model_copy(update={"strength": 0.5}), moving(1, FRAMES)
    made = clip(inpaint, (half, video))
    torch.manual_seed(0)
    white = torch.full((1, 1, FRAMES, SIDE, SIDE), 255.0)
    shown = {"video": (as_tensor(video) + 1) / 2, "mask_video": white, "strength": 0.5}
    assert np.array_equal(made, by_hand(inpaint, V2V, **shown))
    assert (made != clip(inpaint, (half, moving(2, FRAMES)))).any()
    with pytest.raises(RenderError, match="strength 0.3 of 2 steps leaves none"):
        clip(inpaint, (SOURCE.model_copy(update={"strength": 0.3}), video))


def test_a_call_that_fails_half_way_leaves_nothing_to_the_next(
    control: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, expected = control.pipes[T2V].vae, clip(control)
    decode, calls = vae.decoder.forward, []

    def failing(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("half way")
        return decode(*given, **named)

    monkeypatch.setattr(vae.decoder, "forward", failing)
    with pytest.raises(RenderError, match="half way"):
        clip(control)
    monkeypatch.undo()
    assert np.array_equal(clip(control), expected)


def test_the_guide_shows_what_is_known_and_what_is_made_anew(inpaint: LoadedModel) -> None:
    video = moving(1, FRAMES)
    group = group_of(inpaint.variant, V2V, conditions=(SOURCE, MASK))
    guide = guide_of(inpaint.variant.pipeline, group, ((SOURCE, video), (MASK, white_left())))
    assert guide is not None
    assert np.array_equal(np.asarray(guide.mask[0]), np.asarray(white_left()))
    assert np.array_equal(np.asarray(guide.video[3])[:, SIDE // 2 :], np.asarray(video[3])[:, SIDE // 2 :])


@pytest.mark.parametrize(
    ("name", "pipeline", "said", "message"),
    [
        ("control", "Control", ("camera",), "these weights follow no camera; available: structure"),
        ("camera", "Control", ("camera", "structure"), "these weights follow no structure; available: camera"),
        ("camera", "Control", ("first_frame",), "these weights are told the camera: name 'camera'"),
        ("inpaint", "Control", ("structure",), "its transformer takes 33 channels, .*, available: 48, 38"),
        ("camera", "Inpaint", ("mask", "source"), "its transformer takes 38 channels, .*, available: 33, 48"),
    ],
)
def test_weights_that_are_for_something_else_are_refused_when_they_are_loaded(
    folder: Path, name: str, pipeline: str, said: tuple[str, ...], message: str
) -> None:
    changes: dict[str, Any] = {"conditions": said, "modes": (V2V,) if pipeline == "Inpaint" else (T2V, I2V)}
    with pytest.raises(VariantLoadError, match=message):
        load(entry(folder / name, f"EasyAnimate{pipeline}Pipeline", **changes), device="cpu")


def test_what_is_shown_is_part_of_the_task(camera: LoadedModel) -> None:
    group, moved = (group_of(camera.variant, T2V, camera=moves) for moves in ((), keys(pan=20)))
    assert task_of(group, "a").fingerprint != task_of(moved, "a").fingerprint
