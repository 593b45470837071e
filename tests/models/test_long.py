"""Classes that make long clips by themselves, in windows that slide along the clip: tiny real pipelines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx_i2v_long_multi_prompt import split_into_temporal_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cluster.cost.model import CallShape, call_shape, predict
from models.loaded import LoadedModel
from models.loader import load
from models.model import TaskMedia
from schemas.catalog import Catalog, Variant
from schemas.conditions import Condition
from schemas.errors import InvalidRequestError
from schemas.inputs import Role
from schemas.request import Mode, Request, Settings
from schemas.resolve import resolve
from schemas.sliding import FRAMEPACK, prompt_of_each_window, slide_of, told_frames
from schemas.task import Group, RenderBatch, Task
from tests.models.conftest import TinyFolder
from tests.models.tiny_long import framepack, helios, skyreels_forcing
from tests.models.tiny_variants import I2V, T2V, group_of, task_of, tiny_variant
from training.tiny import save, seeded

SIDE = 64
LTX_LONG = "LTXI2VLongMultiPromptPipeline"
# Windows of six latent frames, three of which are the last of the window before.
OPTIONS = {
    "temporal_tile_size": 24, "temporal_overlap": 12, "decode_horizontal_tiles": 1, "decode_vertical_tiles": 1,
    "cond_strength": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def ltx(tiny_folder: TinyFolder) -> LoadedModel:
    shape = {
        "divisor": 32, "frame_step": 8, "frame_offset": 1, "max_frames": 257, "max_pixels": 65536,
        "native": [(SIDE, SIDE, 57)],
    }  # fmt: skip
    latent = {"channels": 8, "spatial": 4, "temporal": 4, "patch": (1, 1, 1)}
    entry: dict[str, Any] = {
        "pipeline": LTX_LONG, "pipelines": {}, "modes": (T2V, I2V), "call_options": OPTIONS, "shape": shape,
        "latent": latent,
    }  # fmt: skip
    return load(tiny_variant("ltx", tiny_folder("ltx"), **entry), device="cpu")


def clip(model: LoadedModel, group: Group, *texts: str, seed: int = 1, image: Any = None, steps: Any = None) -> Any:
    first, *later = texts
    task = task_of(group, first, seed, media=("x",) if image is not None else ())
    task = Task(task.fingerprint, first, "", seed, task.media, later=tuple(later))
    media = TaskMedia(() if image is None else (image,))
    on_step = (lambda done, total: steps.append((done, total))) if steps is not None else (lambda *_: None)
    (made,) = model.render(RenderBatch(group, (task,)), (media,), on_step, frozenset)
    assert isinstance(made, np.ndarray), made
    return made.astype(int)


def test_a_later_prompt_acts_from_its_window_on_and_on_nothing_before(ltx: LoadedModel) -> None:
    slide = slide_of(LTX_LONG, OPTIONS, 57, 4)
    assert slide is not None
    assert slide.first_frames == (0, 9, 21, 33)
    group = group_of(ltx.variant, T2V, turns=(21,))
    steps: list[tuple[int, int]] = []
    one = clip(ltx, group, "a red ball", "a blue cat", steps=steps)
    other = clip(ltx, group, "a red ball", "a heap of green stones")
    assert one.shape == (57, SIDE, SIDE, 3)
    changed = np.abs(one - other).max(axis=(1, 2, 3))
    # The decoder looks ahead by a latent frame or two.
    assert changed[:9].max() <= 1, changed
    assert changed[33:].min() > 3, changed
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1][0] == steps[-1][1] == 4 * (ltx.variant.steps - 1), "all windows' steps"


def test_an_earlier_prompt_acts_on_its_own_time_and_the_seed_on_all(ltx: LoadedModel) -> None:
    group = group_of(ltx.variant, T2V, turns=(21,))
    made = [clip(ltx, group, *texts) for texts in (("a red ball", "a cat"), ("a heap of stones", "a cat"))]
    assert np.abs(made[0] - made[1])[:9].max() > 0
    np.testing.assert_array_equal(clip(ltx, group, "a red ball", "a cat"), made[0])
    assert np.abs(clip(ltx, group, "a red ball", "a cat", seed=2) - made[0])[41:].mean() > 1


def test_its_first_frame_is_seen(ltx: LoadedModel) -> None:
    group = group_of(ltx.variant, I2V)
    red, blue = (clip(ltx, group, "a", image=Image.new("RGB", (SIDE, SIDE), colour)) for colour in ("red", "blue"))
    assert np.abs(red - blue)[0].mean() > np.abs(red - blue)[-1].mean()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 80), st.integers(1, 12), st.integers(0, 11))
def test_the_windows_are_those_of_the_class(latents: int, size: int, overlap: int) -> None:
    options = {"temporal_tile_size": 8 * size, "temporal_overlap": 8 * overlap}
    slide = slide_of(LTX_LONG, options, (latents - 1) * 8 + 1, 8)
    theirs = [start for start, _ in split_into_temporal_windows(latents, size, overlap, 8)]
    assert theirs == ([0] if slide is None else list(slide.begins_at))
    turns = (5, 40)
    told = prompt_of_each_window(slide, turns)
    assert list(told) == sorted(told)


def test_a_prompt_that_no_window_has_is_refused_with_the_instants_there_are(ltx: LoadedModel) -> None:
    catalog = Catalog(variants={ltx.variant.name: ltx.variant})

    def ask(*turns_s: float, **said: Any) -> Group:
        asked = Settings(variant=ltx.variant.name, **said)
        return resolve(asked, catalog, turns_s=turns_s, rank=lambda v, g: 0.0)

    assert ltx.variant.several_prompts(Mode.TEXT_TO_VIDEO)
    assert ask(3.0).turns == (24,)
    with pytest.raises(InvalidRequestError) as caught:
        ask(2.25, 2.5)  # 18 and 20: the window at 21 has the second, none the first
    assert str(caught.value.issues[0]) == (
        f"prompts.1.from_s: no window of {LTX_LONG} begins between it and the next: they begin at these seconds; "
        "available: 1.125, 2.625, 4.125"
    )
    with pytest.raises(InvalidRequestError, match="one prompt a window, and this clip is one window"):
        ask(1.0, num_frames=17)


def test_an_overlap_of_which_the_class_makes_other_lengths_is_refused(ltx: LoadedModel) -> None:
    told = {**ltx.variant.model_dump(), "call_options": {**OPTIONS, "temporal_overlap": 8}}
    with pytest.raises(ValueError, match="temporal_overlap: at least 12 frames, and below the 24 of a window"):
        Variant.model_validate(told)


def test_a_sliding_call_is_priced_by_its_windows(ltx: LoadedModel) -> None:
    shape = call_shape(ltx.variant, group_of(ltx.variant, T2V))
    assert isinstance(shape, CallShape)
    assert (shape.frames, shape.calls) == (21, 4)
    once = CallShape(**{**shape.model_dump(), "calls": 1})
    four, one = (predict(ltx.variant, "cpu", s, 4, 3.0).execution_s for s in (shape, once))
    assert four == pytest.approx(4 * one)


def test_skyreels_forces_long_clips_in_windows(tmp_path: Path) -> None:
    folder = save(seeded(skyreels_forcing, 20), tmp_path)
    options = {"base_num_frames": 9, "overlap_history": 5}
    shape = {"divisor": 16, "frame_step": 4, "frame_offset": 1, "max_frames": 97, "max_pixels": 65536,
             "native": [(32, 32, 17)]}  # fmt: skip
    entry: dict[str, Any] = {
        "pipeline": "SkyReelsV2DiffusionForcingPipeline", "pipelines": {}, "modes": (T2V,), "shape": shape,
        "call_options": options, "steps": 2, "fps": 16,
    }  # fmt: skip
    model = load(tiny_variant("wan", folder, **entry), device="cpu")
    group, steps = group_of(model.variant), []
    made = clip(model, group, "a red ball", steps=steps)
    assert made.shape == (17, 32, 32, 3)
    slide = slide_of("SkyReelsV2DiffusionForcingPipeline", options, 17, 4)
    assert slide is not None
    assert slide.begins_at == (0, 1, 2)
    assert steps == [(done, 6) for done in range(1, 7)]
    assert np.abs(clip(model, group, "a heap of green stones") - made).max() > 0
    catalog = Catalog(variants={model.variant.name: model.variant})
    with pytest.raises(InvalidRequestError, match="follows one prompt a clip"):
        resolve(Settings(variant=model.variant.name), catalog, turns_s=(0.5,), rank=lambda v, g: 0.0)


def test_helios_goes_on_in_windows(tmp_path: Path) -> None:
    folder = save(seeded(helios, 20), tmp_path)
    # 32k + 1 frames of nine latent ones a window; of three, 8k + 1.
    shape = {"divisor": 16, "frame_step": 8, "frame_offset": 1, "max_frames": 97, "max_pixels": 65536,
             "native": [(SIDE, SIDE, 25)]}  # fmt: skip
    entry: dict[str, Any] = {
        "pipeline": "HeliosPipeline", "pipelines": {}, "modes": (T2V,), "shape": shape, "steps": 2, "guidance": 1.0,
        "call_options": {"num_latent_frames_per_chunk": 3},
    }  # fmt: skip
    model = load(tiny_variant("wan", folder, **entry), device="cpu")
    group, steps = group_of(model.variant), []
    made = clip(model, group, "a red ball", steps=steps)
    assert made.shape == (25, SIDE, SIDE, 3)
    assert steps == [(done, 6) for done in range(1, 7)]
    shape_of = call_shape(model.variant, group)
    assert isinstance(shape_of, CallShape)
    assert (shape_of.frames, shape_of.calls) == (9, 3)
    assert np.abs(clip(model, group, "a heap of green stones") - made).max() > 0


def framepack_variant(folder: Path, **changes: Any) -> Variant:
    shape = {"divisor": 16, "frame_step": 4, "frame_offset": 1, "max_frames": 97, "max_pixels": 65536,
             "native": [(32, 32, 25)]}  # fmt: skip
    entry: dict[str, Any] = {
        "pipeline": FRAMEPACK, "pipelines": {}, "modes": (I2V,), "shape": shape, "steps": 2,
        "call_options": {"latent_window_size": 3}, "conditions": ("first_frame", "last_frame"),
    }  # fmt: skip
    return tiny_variant("wan", folder, **entry | changes)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = save(seeded(framepack, 20), tmp_path_factory.mktemp("framepack"))
    return load(framepack_variant(folder), device="cpu")


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (32, 32), colour)


def test_framepack_goes_on_in_sections_from_its_first_frame(packed: LoadedModel) -> None:
    group, steps = group_of(packed.variant, frames=17), []
    red, blue = (clip(packed, group, "a", image=plain(colour), steps=steps) for colour in ("red", "blue"))
    assert red.shape == (17, 32, 32, 3), "two sections are more; the rest is left out"
    assert steps[:4] == [(done, 4) for done in range(1, 5)]
    assert np.abs(red - blue)[0].mean() > 1
    assert np.abs(clip(packed, group, "a heap of green stones", image=plain("red")) - red).max() > 0


FIRST_AND_LAST = (
    Condition(role=Role.FIRST_FRAME, medium="image", frame=0),
    Condition(role=Role.LAST_FRAME, medium="image", frame=24),
)


def between(model: LoadedModel, *colours: str) -> Any:
    group = group_of(model.variant, I2V, conditions=FIRST_AND_LAST[: len(colours)])
    task = task_of(group, "a", 1, media=("x",) * len(colours))
    (made,) = model.render(
        RenderBatch(group, (task,)), (TaskMedia(tuple(map(plain, colours))),), lambda *_: None, frozenset
    )
    assert isinstance(made, np.ndarray), made
    return made.astype(int)


def test_framepack_comes_to_its_last_frame_at_the_end_of_the_clip(
    packed: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, seen, encoded = packed.pipes[I2V], [], []
    forward, encode = pipe.transformer.forward, pipe.prepare_image_latents

    def seeing(*given: Any, **named: Any) -> Any:
        seen.append(named["latents_clean"])
        return forward(*given, **named)

    def encoding(image: torch.Tensor, **named: Any) -> Any:
        encoded.append((image, encode(image, **named)))
        return encoded[-1][1]

    monkeypatch.setattr(pipe, "prepare_image_latents", encoding)
    monkeypatch.setattr(pipe.transformer, "forward", seeing)
    red, blue = between(packed, "gray", "red"), between(packed, "gray", "blue")
    assert red.shape == (25, 32, 32, 3)
    by_frame = np.abs(red - blue).mean(axis=(1, 2, 3))
    # Through one layer of random weights a picture acts faintly: bytes change here and there, most of them at the end.
    assert by_frame[-5:].mean() > 4 * by_frame[:12].mean(), by_frame
    pixels, known = encoded[1]
    assert torch.equal(pixels, pipe.video_processor.preprocess(plain("red"), 32, 32))
    told = [torch.equal(clean[:, :, 1:], known) for clean in seen[:4]]
    assert told == [True, True, False, False], "the steps of the section that is made first, which is the clip's end"


def test_framepack_between_two_frames_is_the_class_called_by_hand(packed: LoadedModel) -> None:
    by_hand = packed.pipes[I2V](
        image=plain("gray"), last_image=plain("red"), prompt="a", negative_prompt="", width=32, height=32,
        num_frames=18, num_inference_steps=2, guidance_scale=3.0, latent_window_size=3, output_type="np",
        generator=torch.Generator("cpu").manual_seed(1),
    )  # fmt: skip
    assert by_hand.frames.shape[1] == 25, "two sections, of nine frames each by themselves: nothing is left out"
    np.testing.assert_array_equal(between(packed, "gray", "red"), (by_hand.frames[0] * 255).round().astype(int))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200), st.integers(2, 12))
def test_framepack_makes_no_section_more_than_a_clip_needs(frames: int, size: int) -> None:
    told = told_frames(FRAMEPACK, {"latent_window_size": size}, frames, 4)
    of_class = max(1, (told + (size - 1) * 4) // ((size - 1) * 4 + 1))
    assert of_class * size * 4 + 1 >= frames
    assert of_class == 1 or (of_class - 1) * size * 4 + 1 < frames
    slide = slide_of(FRAMEPACK, {"latent_window_size": size}, frames, 4)
    assert of_class == (1 if slide is None else len(slide.begins_at))


def test_a_last_frame_of_framepack_needs_a_first_and_a_length_of_whole_sections(packed: LoadedModel) -> None:
    catalog = Catalog(variants={packed.variant.name: packed.variant})

    def ask(frames: int, *roles: str) -> Group:
        inputs = [{"role": role, "image": "a.png"} for role in roles]
        request = Request.model_validate(
            {"prompt": "a", "variant": packed.variant.name, "num_frames": frames, "inputs": inputs}
        )
        return resolve(request.settings, catalog, inputs=request.input_specs, rank=lambda v, g: 0.0)

    alone, both = ask(25, "first_frame"), ask(25, "first_frame", "last_frame")
    assert alone.fingerprint("a", "", 1, ["x"]) != both.fingerprint("a", "", 1, ["x", "y"])
    assert ask(17, "first_frame").frames == 17
    with pytest.raises(InvalidRequestError, match="17: with a last_frame .* a section of .* does; available: 13, 25"):
        ask(17, "first_frame", "last_frame")
    with pytest.raises(InvalidRequestError, match="a last_frame beside a first_frame only.*available: first_frame"):
        ask(25, "last_frame")


def test_framepack_that_goes_on_from_its_first_frame_promises_no_last_one() -> None:
    on = {"latent_window_size": 3, "sampling_type": "vanilla"}
    with pytest.raises(ValueError, match="'vanilla' .* takes no last_frame; available: first_frame"):
        framepack_variant(Path("/none"), call_options=on)
    assert framepack_variant(Path("/none"), call_options=on, conditions=None).roles(I2V) == (Role.FIRST_FRAME,)
    with pytest.raises(ValueError, match=r"chunks\.frames: .* makes whole sections; available: 13, 25"):
        framepack_variant(Path("/none"), chunks={"frames": 17, "overlap": 1, "max_s": 9})
