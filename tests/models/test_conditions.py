"""What inputs do to the pixels. The pipelines of `obedient` render what they are told, so that it can be seen where and
when each input arrives; LTX is tiny and random: what it is told firmly stays, whatever the seed."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from models.conditions import NEEDED
from models.families import call_form
from models.loaded import LoadedModel
from models.loader import load, pipeline_class
from models.model import Pictures, TaskMedia, ignore_step, nobody_cancelled
from schemas.catalog import Catalog, Variant
from schemas.conditions import Condition, carried, implied_mode
from schemas.errors import InvalidRequestError, VariantLoadError
from schemas.inputs import Kind, Role
from schemas.motion import CameraKey, Edit
from schemas.request import Request
from schemas.resolve import resolve
from schemas.task import Group, RenderBatch
from tests.models import obedient
from tests.models.conftest import TinyFolder, TinyModel
from tests.models.tiny_variants import I2V, T2V, V2V, group_of, task_of, tiny_variant

SIDE, FRAMES = 32, 13
SHAPE = {"divisor": 16, "max_frames": 81, "max_pixels": 65536, "native": [(SIDE, SIDE, FRAMES)]}
RED, GREEN, BLUE, WHITE, BLACK = (230, 30, 30), (30, 230, 30), (30, 30, 230), (255, 255, 255), (0, 0, 0)
GRAY = (128, 128, 128)

Colour = tuple[int, int, int]


def plain(colour: Colour) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour)


def halves(left: Colour, right: Colour) -> Image.Image:
    image = plain(right)
    image.paste(left, (0, 0, SIDE // 2, SIDE))
    return image


def condition(role: Role, medium: Any = "image", **more: Any) -> Condition:
    return Condition(role=role, medium=medium, **more)


def clip(
    model: LoadedModel, *given: tuple[Condition, Pictures], seed: int = 0, **changes: Any
) -> npt.NDArray[np.uint8]:
    mode = implied_mode(one.role for one, _ in given)
    group = group_of(model.variant, mode, conditions=tuple(one for one, _ in given), **changes)
    work = RenderBatch(group, (task_of(group, "a shape", seed, media=tuple("x" for _ in given)),))
    media = TaskMedia(tuple(pictures for _, pictures in given))
    (made,) = model.render(work, (media,), ignore_step, nobody_cancelled)
    assert isinstance(made, np.ndarray), made
    return made


def colour_of(pixels: npt.NDArray[np.uint8]) -> Colour:
    red, green, blue = (round(float(value)) for value in pixels.reshape(-1, 3).mean(axis=0))
    return red, green, blue


def is_like(pixels: npt.NDArray[np.uint8], colour: Colour) -> bool:
    return max(abs(a - b) for a, b in zip(colour_of(pixels), colour, strict=True)) <= 20


def variant(folder: Path, family: str, **changes: Any) -> Variant:
    return tiny_variant(family, folder, shape=SHAPE, guidance=1.0, fps=8, **changes)


@pytest.fixture(scope="module")
def vace(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(variant(obedient.vace(tmp_path_factory.mktemp("vace")), "wan-vace"), device="cpu")


@pytest.fixture(scope="module")
def wan_image(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    said = ("first_frame", "last_frame")
    folder = obedient.image_to_video(tmp_path_factory.mktemp("image"))
    entry = {"pipeline": "WanImageToVideoPipeline", "pipelines": {}, "modes": (I2V,), "conditions": said}
    return load(variant(folder, "wan", **entry), device="cpu")


EDGES = condition(Role.STRUCTURE, kind=Kind.EDGES)
SOURCE, MASK = condition(Role.SOURCE, "video"), condition(Role.MASK)


def test_a_structure_is_seen_where_it_is(vace: LoadedModel) -> None:
    made = clip(vace, (EDGES, halves(WHITE, BLACK)))
    assert is_like(made[:, :, :12], WHITE)
    assert is_like(made[:, :, 20:], BLACK)


def test_a_structure_that_moves_is_seen_when_it_does(vace: LoadedModel) -> None:
    moving = tuple(halves(WHITE, BLACK) if frame < 5 else halves(BLACK, WHITE) for frame in range(FRAMES))
    made = clip(vace, (condition(Role.STRUCTURE, "video", kind=Kind.POSE), moving))
    assert is_like(made[0, :, :12], WHITE)
    assert is_like(made[-1, :, :12], BLACK)


def test_strength_is_how_much_a_structure_counts(vace: LoadedModel) -> None:
    half = clip(vace, (condition(Role.STRUCTURE, kind=Kind.RAW, strength=0.5), plain(WHITE)))
    assert is_like(half, (191, 191, 191)), "half-way from gray to white"
    assert is_like(clip(vace, (condition(Role.STRUCTURE, kind=Kind.RAW), plain(WHITE))), WHITE)


def test_a_mask_keeps_the_source_where_it_is_black_and_blanks_it_out_where_it_is_white(vace: LoadedModel) -> None:
    source = tuple(halves(RED, GREEN) for _ in range(FRAMES))
    made = clip(vace, (SOURCE, source), (MASK, halves(WHITE, BLACK)))
    assert is_like(made[:, :, :12], GRAY), "to be made anew"
    assert is_like(made[:, :, 20:], GREEN), "kept"
    made = clip(vace, (SOURCE, source), (MASK, halves(BLACK, WHITE)))
    assert is_like(made[:, :, :12], RED)
    assert is_like(made[:, :, 20:], GRAY)


def test_a_mask_that_moves_spares_other_frames(vace: LoadedModel) -> None:
    masks = tuple(plain(WHITE if frame < 5 else BLACK) for frame in range(FRAMES))
    made = clip(vace, (SOURCE, (plain(RED),) * FRAMES), (condition(Role.MASK, "video"), masks))
    assert is_like(made[0], GRAY)
    assert is_like(made[-1], RED)


def test_what_a_mask_spares_is_the_sources_own_pixels(vace: LoadedModel) -> None:
    random = np.random.default_rng(0)
    source = tuple(Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)) for _ in range(FRAMES))
    made = clip(vace, (SOURCE, source), (MASK, halves(WHITE, BLACK)))
    pixels = np.stack([np.asarray(frame) for frame in source])
    assert (made[:, :, SIDE // 2 :] == pixels[:, :, SIDE // 2 :]).all()
    assert (made[:, :, : SIDE // 2] != pixels[:, :, : SIDE // 2]).mean() > 0.9
    first = (condition(Role.FIRST_FRAME, frame=0), plain(RED))
    given = clip(vace, (SOURCE, source), (MASK, halves(WHITE, BLACK)), first)
    assert is_like(given[0, :, 20:], RED), "a frame that is given is not the source's"
    assert (given[-1, :, SIDE // 2 :] == pixels[-1, :, SIDE // 2 :]).all()


def test_a_region_of_an_edit_spares_what_is_outside_and_of_a_moved_source_nothing_is_laid_over(
    vace: LoadedModel,
) -> None:
    source = tuple(halves(RED, GREEN) for _ in range(FRAMES))
    left = Edit(region=(0.0, 0.0, 0.5, 1.0))
    still = clip(vace, (SOURCE, source), edit=left)
    assert (still[:, :, SIDE // 2 :] == np.asarray(source[0])[:, SIDE // 2 :]).all()
    camera = (CameraKey(at_s=0.0), CameraKey(at_s=(FRAMES - 1) / 8, truck=0.5))
    moved = clip(vace, (SOURCE, source), edit=left, camera=camera)
    assert (moved[-1, :, SIDE // 2 :] != np.asarray(source[-1])[:, SIDE // 2 :]).mean() > 0.5


def test_a_structure_holds_within_the_mask_and_the_source_outside(vace: LoadedModel) -> None:
    red = (plain(RED),) * FRAMES
    made = clip(vace, (SOURCE, red), (MASK, halves(WHITE, BLACK)), (EDGES, plain(BLUE)))
    assert is_like(made[:, :, :12], BLUE)
    assert is_like(made[:, :, 20:], RED)


def test_the_network_is_told_which_pixels_are_kept(vace: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    pipe = vace.pipes[V2V]
    monkeypatch.setattr(pipe.transformer, "forward", _seeing(pipe.transformer.forward, seen))
    clip(vace, (SOURCE, (plain(RED),) * FRAMES), (MASK, halves(WHITE, BLACK)))
    inactive, reactive, mask = seen[0][0, :16], seen[0][0, 16:32], seen[0][0, 32:]
    assert mask[..., :2].min() == 1, "white: made anew"
    assert mask[..., 2:].max() == 0
    assert inactive[..., :2].abs().max() < 0.02 < inactive[..., 2:].abs().max(), "what is kept is on the kept side only"
    assert reactive.abs().max() < 0.02, "gray"


def _seeing(forward: Any, seen: list[Any]) -> Any:
    def call(*given: Any, **named: Any) -> Any:
        seen.append(named["control_hidden_states"])
        return forward(*given, **named)

    return call


@pytest.mark.parametrize(("role", "frame"), [(Role.FIRST_FRAME, 0), (Role.KEYFRAME, 6), (Role.LAST_FRAME, 12)])
def test_a_frame_is_seen_at_its_instant(vace: LoadedModel, role: Role, frame: int) -> None:
    # The code of four frames is their mean: a single one of them is seen at a quarter.
    made = clip(vace, (condition(role, frame=frame), plain(RED))).astype(int)
    redness = (made[..., 0] - made[..., 1]).mean(axis=(1, 2))
    assert abs(int(redness.argmax()) - frame) <= 3
    assert redness[frame] > 25
    assert abs(redness[2 if frame > 4 else 11]) < 5


def test_frames_at_both_ends_are_each_at_its_own(vace: LoadedModel, wan_image: LoadedModel) -> None:
    first, last = condition(Role.FIRST_FRAME, frame=0), condition(Role.LAST_FRAME, frame=FRAMES - 1)
    for model in (vace, wan_image):
        made = clip(model, (first, plain(RED)), (last, plain(BLUE))).astype(int)
        red, blue = (made[frame].mean(axis=(0, 1)) for frame in (0, -1))
        assert red[0] > red[2] + 100
        assert blue[2] > blue[0] + 25
        assert max(abs(made[3].mean(axis=(0, 1)) - 128)) < 8, "in between nobody said"


def test_without_a_last_frame_the_same_class_shows_none(wan_image: LoadedModel) -> None:
    made = clip(wan_image, (condition(Role.FIRST_FRAME, frame=0), plain(RED)))
    assert is_like(made[0], RED)
    assert is_like(made[-1], GRAY)


@pytest.fixture(scope="module")
def lucy(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = obedient.lucy_edit(tmp_path_factory.mktemp("lucy"))
    return load(variant(folder, "wan", pipeline="LucyEditPipeline", pipelines={}, modes=(V2V,)), device="cpu")


def test_a_source_that_is_edited_by_the_prompt_is_seen_where_and_when_it_is(lucy: LoadedModel) -> None:
    source = tuple(halves(RED, BLUE) if frame < 5 else halves(GREEN, WHITE) for frame in range(FRAMES))
    made = clip(lucy, (SOURCE, source))
    for frame, left, right in ((0, RED, BLUE), (-1, GREEN, WHITE)):
        assert is_like(made[frame, :, :12], left)
        assert is_like(made[frame, :, 20:], right)


def test_an_edit_by_the_prompt_is_the_class_called_by_hand_and_hears_the_prompt(
    lucy: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, heard = lucy.pipes[V2V], []
    forward = pipe.transformer.forward

    def hearing(*given: Any, **named: Any) -> Any:
        heard.append(named["encoder_hidden_states"])
        return forward(*given, **named)

    monkeypatch.setattr(pipe.transformer, "forward", hearing)
    source = tuple(noise(frame) for frame in range(FRAMES))
    made = clip(lucy, (SOURCE, source), seed=5)
    by_hand = pipe(
        video=list(source), prompt=["a shape"], negative_prompt=[""], width=SIDE, height=SIDE, num_frames=FRAMES,
        num_inference_steps=3, guidance_scale=1.0, generator=[torch.Generator("cpu").manual_seed(5)],
    )  # fmt: skip
    np.testing.assert_array_equal(made, (by_hand.frames[0] * 255).round().astype(np.uint8))
    assert len(heard) == 6
    assert all(torch.equal(one, other) for one, other in zip(heard[:3], heard[3:], strict=True))


def test_a_source_that_is_edited_by_the_prompt_has_no_share_that_is_made_anew(lucy: LoadedModel) -> None:
    catalog = Catalog(variants={lucy.variant.name: lucy.variant})

    def ask(**source: Any) -> Group:
        told = {"prompt": "a", "variant": lucy.variant.name, "inputs": [{"role": "source", "video": "a.mp4", **source}]}
        request = Request.model_validate(told)
        return resolve(request.settings, catalog, inputs=request.input_specs, rank=lambda v, g: 0.0)

    assert ask().fingerprint("a", "", 1, ["x"]) != ask().fingerprint("a", "", 1, ["y"])
    assert ask().fingerprint("a", "", 1, ["x"]) != ask(start=1.0).fingerprint("a", "", 1, ["x"])
    with pytest.raises(InvalidRequestError, match="LucyEditPipeline takes no strength of a source"):
        ask(strength=0.5)


def test_weights_that_see_no_source_do_not_load_as_if_they_did(tiny_folder: TinyFolder) -> None:
    entry = {"pipeline": "LucyEditPipeline", "pipelines": {}, "modes": (V2V,)}
    with pytest.raises(VariantLoadError, match="takes 16 channels, 16 of them the clip's latents; .*available: 32"):
        load(tiny_variant("wan", tiny_folder("wan"), **entry), device="cpu")


@pytest.mark.parametrize("role", [Role.REFERENCE, Role.STYLE])
def test_a_reference_is_seen_in_the_whole_clip_and_is_no_frame_of_it(tmp_path: Path, role: Role) -> None:
    entry = {"conditions": ("reference", "style")}
    model = load(variant(obedient.vace(tmp_path, mean_share=4.0), "wan-vace", **entry), device="cpu")
    clips = [clip(model, (condition(role), plain(colour))) for colour in (RED, BLUE)]
    for made, channel in zip(clips, (0, 2), strict=True):
        means = made.astype(int).mean(axis=(1, 2))
        others = means[:, [c for c in range(3) if c != channel]].max(axis=1)
        assert (means[:, channel] - others > 25).all(), "every frame takes its colour"
        assert made.shape == (FRAMES, SIDE, SIDE, 3)
    both = clip(model, (condition(role), plain(RED)), (condition(role), plain(BLUE))).astype(int)
    red, green, blue = both.mean(axis=(0, 1, 2))
    assert min(red, blue) > green + 25, "several are all seen"


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def apart(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_a_firm_first_frame_is_the_same_whatever_the_seed_and_a_loose_one_is_not(tiny_model: TinyModel) -> None:
    model = tiny_model("ltx-condition")
    changes: dict[str, Any] = {"frames": 17, "steps": 4}
    by_strength = []
    for strength in (1.0, 0.5, 0.1):
        told = condition(Role.FIRST_FRAME, frame=0, strength=strength)
        one, other = (clip(model, (told, noise(1)), seed=seed, **changes) for seed in (1, 2))
        by_strength.append(apart(one[0], other[0]))
    firm, loose, looser = by_strength
    assert firm < loose < looser
    told = condition(Role.FIRST_FRAME, frame=0)
    default = [clip(model, (told, noise(1)), seed=seed, **changes) for seed in (1, 2)]
    assert apart(default[0][0], default[1][0]) == firm, "firm unless it says so"


@pytest.mark.parametrize("role", [Role.KEYFRAME, Role.LAST_FRAME])
def test_a_later_frame_changes_the_clip_by_what_it_shows_and_where_it_is(tiny_model: TinyModel, role: Role) -> None:
    model = tiny_model("ltx-condition")
    changes: dict[str, Any] = {"frames": 17, "steps": 4}

    def made(frame: int, image: int, strength: float | None = None) -> npt.NDArray[np.uint8]:
        return clip(model, (condition(role, frame=frame, strength=strength), noise(image)), **changes)

    said = made(16, 1)
    assert apart(said, made(16, 1)) == 0
    assert apart(said, made(16, 2)) > 0
    assert apart(said, made(8, 1)) > 0
    assert apart(said, made(16, 1, 0.3)) > 0
    assert apart(said, clip(model, **changes)) > 0


def test_the_call_gets_every_frame_with_its_place_and_strength(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("ltx-condition")
    pipe, seen = model.pipes[I2V], []
    prepare = pipe.prepare_latents

    def seeing(conditions: Any, strengths: Any, frames: Any, **named: Any) -> Any:
        seen.append((len(conditions), strengths, frames))
        return prepare(conditions, strengths, frames, **named)

    monkeypatch.setattr(pipe, "prepare_latents", seeing)
    given = [
        (condition(Role.FIRST_FRAME, frame=0), noise(1)),
        (condition(Role.KEYFRAME, frame=8, strength=0.5), noise(2)),
        (condition(Role.LAST_FRAME, frame=16), noise(3)),
    ]
    clip(model, *given, frames=17)
    assert seen == [(3, [1.0, 0.5, 1.0], [0, 8, 16])]


def test_weights_that_ignore_a_last_frame_do_not_load_as_if_they_heeded_it(tiny_folder: TinyFolder) -> None:
    entry = {"conditions": ("first_frame", "last_frame")}
    with pytest.raises(VariantLoadError, match=r"expand_timesteps .* take no last_frame; available: first_frame"):
        load(tiny_variant("wan", tiny_folder("wan"), **entry), device="cpu")


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_the_classes_take_what_their_conditions_become(name: str) -> None:
    model = tiny_variant("wan", Path("/none"))
    form = call_form(name, pipeline_class(model, name).__call__)
    assert NEEDED[name] <= form.parameters
    for mode in (T2V, I2V, V2V):
        assert carried(name, mode).usual <= carried(name, mode).roles
