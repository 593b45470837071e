"""LTX-2 told frames, and shown videos beside the clip: real tiny pipelines with random weights, with sound."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition
from PIL import Image
from safetensors.torch import save_file

from cluster.cost.model import call_shape
from models.loaded import LoadedModel
from models.loader import load
from models.model import Pictures, Sounding, TaskMedia, frames_of, ignore_step, nobody_cancelled
from schemas.catalog import Catalog, Variant
from schemas.conditions import Condition, implied_mode
from schemas.errors import InvalidRequestError, RenderError, VariantLoadError
from schemas.inputs import Kind, Role
from schemas.loras import Lora
from schemas.request import Request
from schemas.resolve import resolve
from schemas.task import Group, RenderBatch
from tests.models.tiny_sound import ltx2
from tests.models.tiny_variants import I2V, T2V, V2V, group_of, noise_image, task_of, tiny_variant
from training.tiny import save, seeded

FPS, FRAMES, SIDE = 8, 9, 32
CONDITION = "LTX2ConditionPipeline"
FIRST = Condition(role=Role.FIRST_FRAME, medium="image", frame=0)
KEY = Condition(role=Role.KEYFRAME, medium="image", frame=4, strength=0.5)
LAST = Condition(role=Role.LAST_FRAME, medium="image", frame=FRAMES - 1)


def variant_of(folder: Path, temporal: int = 2, **changes: Any) -> Variant:
    entry: dict[str, Any] = {
        "name": "told", "weights": str(folder), "pipeline": "LTX2Pipeline", "pipelines": {I2V: CONDITION},
        "modes": (T2V, I2V), "dtype": "float32", "steps": 2, "guidance": 3.0, "fps": FPS,
        "call_options": {"max_sequence_length": 64},
        "shape": {"divisor": 32, "frame_step": 2, "frame_offset": 1, "max_frames": 81, "max_pixels": 65536,
                  "native": [(SIDE, SIDE, FRAMES)]},
        "latent": {"channels": 4, "spatial": 8, "temporal": temporal, "patch": (1, 1, 1)},
    }  # fmt: skip
    return Variant.model_validate(entry | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save(seeded(ltx2, 0), tmp_path_factory.mktemp("ltx2")))


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load(variant_of(folder), device="cpu")


def clip(model: LoadedModel, *given: tuple[Condition, int], seed: int = 1, **changes: Any) -> Any:
    """A clip that is told pictures of noise, by their seeds."""
    group = group_of(model.variant, I2V if given else T2V, conditions=tuple(one for one, _ in given), **changes)
    work = RenderBatch(group, (task_of(group, "rain", seed, media=tuple("x" for _ in given)),))
    media = TaskMedia(tuple(noise_image(picture) for _, picture in given))
    (made,) = model.render(work, (media,), ignore_step, nobody_cancelled)
    return made


def apart(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_a_firm_first_frame_is_the_same_whatever_the_seed_and_a_loose_one_is_not(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, decoded = model.pipes[I2V].vae, []
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda latents, *more, **named: (decoded.append(latents), decode(latents))[1])

    def differ(strength: float | None) -> float:
        """How far two seeds are apart in the latents of the first frame: the decoder mixes it with later ones."""
        for seed in (1, 2):
            clip(model, (FIRST.model_copy(update={"strength": strength}), 1), seed=seed)
        return float((decoded[-1][:, :, 0] - decoded[-2][:, :, 0]).abs().mean())

    firm, loose, looser = map(differ, (1.0, 0.5, 0.1))
    assert firm == 0 < loose < looser
    assert differ(None) == 0, "firm unless it says so"


def test_a_first_frame_is_seen_where_the_clip_begins(model: LoadedModel) -> None:
    one, other = (clip(model, (FIRST, picture)).astype(int) for picture in (1, 2))
    by_frame = np.abs(one - other).mean(axis=(1, 2, 3))
    assert by_frame[:3].min() > 2 * by_frame[-3:].max(), by_frame


def test_a_later_frame_changes_the_clip_by_what_it_shows_how_firmly_and_where_it_is(model: LoadedModel) -> None:
    said = clip(model, (KEY, 1))
    assert apart(said, clip(model, (KEY, 1))) == 0
    assert apart(said, clip(model, (KEY, 2))) > 0
    assert apart(said, clip(model, (KEY.model_copy(update={"strength": 1.0}), 1))) > 0
    # One frame on is within the same latent one.
    assert apart(said, clip(model, (KEY.model_copy(update={"frame": 3}), 1))) > 0
    assert apart(said, clip(model)) > 0


def test_every_frame_stands_at_its_very_instant_with_its_strength(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, seen = model.pipes[I2V], []
    forward = pipe.transformer.forward

    def seeing(*given: Any, **named: Any) -> Any:
        seen.append((named["video_coords"], named["timestep"]))
        return forward(*given, **named)

    monkeypatch.setattr(pipe.transformer, "forward", seeing)
    clip(model, (FIRST, 1), (KEY, 2), (LAST, 3))
    coords, timestep = seen[0]
    cells = (SIDE // 8) ** 2
    added = coords[0, 0, -2 * cells :].reshape(2, cells, 2)
    for told, place in zip((KEY, LAST), added, strict=True):
        assert told.frame is not None
        assert place.unique(dim=0).tolist() == [[told.frame / FPS, (told.frame + 1) / FPS]], "seconds, one frame long"
    noisy = timestep[0] / timestep.max()
    assert noisy[:cells].max() == 0, "the first frame stands in the clip's own latents"
    assert noisy[cells : -2 * cells].min() == 1
    assert noisy[-2 * cells : -cells].unique().tolist() == [0.5]
    assert noisy[-cells:].max() == 0


def test_its_clips_are_those_of_the_class_called_by_hand(model: LoadedModel) -> None:
    made = clip(model, (FIRST, 1), (LAST, 2), audio=True)
    assert isinstance(made, Sounding), "with its sound"
    told = [
        LTX2VideoCondition(frames=noise_image(1), index=0),
        # The class's own index of a last frame is that of the latent one which begins two frames before the end.
        LTX2VideoCondition(frames=noise_image(2), index=1 + (FRAMES - 2) / 2),  # type: ignore[arg-type]
    ]
    by_hand = model.pipes[I2V](
        prompt="rain", negative_prompt="", conditions=told, width=SIDE, height=SIDE, num_frames=FRAMES,
        frame_rate=float(FPS), num_inference_steps=2, guidance_scale=3.0, max_sequence_length=64, output_type="np",
        generator=torch.Generator("cpu").manual_seed(1),
    )  # fmt: skip
    np.testing.assert_array_equal(frames_of(made), (by_hand.frames[0] * 255).round().astype(np.uint8))
    wanted = by_hand.audio[0].float().clamp(-1, 1).numpy()
    np.testing.assert_array_equal(made.sound.samples[:, : wanted.shape[1]], wanted[:, : made.sound.samples.shape[1]])


def resolved(catalog: Catalog, *inputs: dict[str, Any], **said: Any) -> Group:
    request = Request.model_validate({"prompt": "rain", "variant": "told", "inputs": inputs, **said})
    return resolve(request.settings, catalog, inputs=request.input_specs, rank=lambda variant, group: 0.0)


PICTURE = {"image": "a.png"}


def test_frames_are_paid_for_and_part_of_the_fingerprint(model: LoadedModel) -> None:
    catalog = Catalog(variants={"told": model.variant})
    first, last = {"role": "first_frame", **PICTURE}, {"role": "last_frame", **PICTURE}
    alone, both = resolved(catalog, first), resolved(catalog, first, last)
    assert both.audio, "with sound, as the family has it"
    assert call_shape(model.variant, alone).frames == FRAMES
    assert call_shape(model.variant, both).frames == FRAMES + 2, "a later frame is a latent one more"
    weaker = resolved(catalog, first, {**last, "strength": 0.5})
    earlier = resolved(catalog, first, {"role": "keyframe", "at_frame": 5, **PICTURE})
    prints = {one.fingerprint("rain", "", 1, ["x", "y"]) for one in (both, weaker, earlier)}
    assert len({*prints, alone.fingerprint("rain", "", 1, ["x"])}) == 4


def test_what_it_does_not_take_is_refused_with_what_it_does(model: LoadedModel) -> None:
    vace = tiny_variant("wan-vace", Path("/none"))
    catalog = Catalog(variants={"told": model.variant, vace.name: vace})
    with pytest.raises(InvalidRequestError, match="told takes no reference; tiny-wan-vace does"):
        resolved(catalog, {"role": "first_frame", **PICTURE}, {"role": "reference", **PICTURE})
    with pytest.raises(InvalidRequestError, match="is after the end: the clip's last is frame 8"):
        resolved(catalog, {"role": "keyframe", "at_frame": 9, **PICTURE})


def test_an_entry_may_promise_no_more_than_the_class_carries() -> None:
    assert variant_of(Path("/none"), conditions=("first_frame", "keyframe", "camera")).all_steers
    with pytest.raises(ValueError, match="carries no 'mask'; available: first_frame, last_frame, keyframe, camera"):
        variant_of(Path("/none"), conditions=("first_frame", "mask"))


def test_an_entry_with_another_latent_frame_than_its_weights_is_not_loaded(folder: Path) -> None:
    with pytest.raises(
        VariantLoadError, match=r"latent\.temporal is 8, .* make 2 frames of a latent one; available: 2"
    ):
        load(variant_of(folder, temporal=8), device="cpu")


PLAIN = {"stg_scale": 0.0, "audio_stg_scale": 0.0, "modality_scale": 1.0, "audio_modality_scale": 1.0}


@pytest.mark.parametrize(
    ("options", "guidance", "passes"),
    [
        ({}, 3.0, 4),
        (PLAIN, 3.0, 2),
        (PLAIN, 1.0, 2),
        ({**PLAIN, "audio_guidance_scale": 1.0}, 1.0, 1),
        ({**PLAIN, "audio_stg_scale": 1.0}, 3.0, 3),
    ],
)
def test_a_step_is_priced_by_the_passes_that_the_class_makes(
    folder: Path, options: dict[str, Any], guidance: float, passes: int
) -> None:
    variant = variant_of(folder, call_options={"max_sequence_length": 64, **options}, guidance=guidance)
    model = load(variant, modes=(I2V,), device="cpu")
    seen: list[int] = []
    model.pipes[I2V].transformer.register_forward_hook(lambda *call: seen.append(len(call[-1][0])))
    clip(model, (FIRST, 1))
    assert sum(seen) == variant.steps * passes, "clips that went through the network"
    assert variant.passes(guidance) == passes


# --- Videos and pictures that are seen beside the clip ---------------------------------------------------------------

IN_CONTEXT = "LTX2InContextPipeline"
STRUCTURE = Condition(role=Role.STRUCTURE, medium="video", kind=Kind.EDGES)
REFERENCE = Condition(role=Role.REFERENCE, medium="image", strength=0.5)
SOURCE = Condition(role=Role.SOURCE, medium="video")
SAID = ("first_frame", "last_frame", "structure:edges", "source", "reference")


def in_context(folder: Path, **changes: Any) -> Variant:
    entry = {"pipeline": IN_CONTEXT, "pipelines": {}, "modes": (T2V, I2V, V2V), "conditions": SAID}
    return variant_of(folder, **entry | changes)


@pytest.fixture(scope="module")
def beside(folder: Path) -> LoadedModel:
    return load(in_context(folder), device="cpu")


def video(seed: int) -> tuple[Image.Image, ...]:
    return tuple(noise_image(100 * seed + frame) for frame in range(FRAMES))


def rendered(model: LoadedModel, *given: tuple[Condition, Pictures]) -> Any:
    group = group_of(
        model.variant, implied_mode(one.role for one, _ in given), conditions=tuple(one for one, _ in given)
    )
    work = RenderBatch(group, (task_of(group, "rain", 1, media=tuple("x" for _ in given)),))
    (made,) = model.render(work, (TaskMedia(tuple(media for _, media in given)),), ignore_step, nobody_cancelled)
    return made


def test_a_video_beside_the_clip_changes_it_by_what_it_shows_and_how_firmly(beside: LoadedModel) -> None:
    said = rendered(beside, (STRUCTURE, video(1)))
    assert apart(said, rendered(beside, (STRUCTURE, video(1)))) == 0
    assert apart(said, rendered(beside, (STRUCTURE, video(2)))) > 0.1
    assert apart(said, rendered(beside, (STRUCTURE.model_copy(update={"strength": 0.4}), video(1)))) > 0
    assert apart(said, rendered(beside)) > 0.1
    assert apart(said, rendered(beside, (SOURCE, video(1)))) == 0, "a source is seen as it is, like a structure"
    still = STRUCTURE.model_copy(update={"medium": "image"})
    standing = rendered(beside, (STRUCTURE, (noise_image(7),) * FRAMES))
    assert apart(rendered(beside, (still, noise_image(7))), standing) == 0, "a picture stands still"


def test_the_network_sees_each_of_them_clean_where_and_when_it_is(
    beside: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, seen = beside.pipes[I2V], []
    forward = pipe.transformer.forward

    def seeing(*given: Any, **named: Any) -> Any:
        seen.append((named["hidden_states"][0], named["timestep"][0], named["video_coords"][0]))
        return forward(*given, **named)

    monkeypatch.setattr(pipe.transformer, "forward", seeing)
    rendered(
        beside, (FIRST, noise_image(1)), (LAST, noise_image(2)), (STRUCTURE, video(3)), (REFERENCE, noise_image(4))
    )
    tokens, timestep, coords = seen[0]
    cells = (SIDE // 8) ** 2
    own, again = 5 * cells, slice(6 * cells, 11 * cells)
    assert len(tokens) == own + cells + own + cells, "the clip, the last frame, a whole video, a picture"
    vae = pipe.vae
    latents = vae.encode(pipe.video_processor.preprocess_video(list(video(3)), SIDE, SIDE)).latent_dist.mode()
    known = pipe._pack_latents(pipe._normalize_latents(latents, vae.latents_mean, vae.latents_std))[0]
    assert torch.equal(tokens[again], known), "what it shows, without noise"
    assert torch.equal(coords[:, again], coords[:, :own]), "at the places and instants of the clip's own"
    assert torch.equal(coords[:, -cells:], coords[:, :cells]), "a picture at its beginning"
    assert timestep[again].max() == 0
    assert (timestep[-cells:] / timestep.max()).unique().tolist() == [0.5], "half as firm"


def test_its_clips_with_something_beside_them_are_those_of_the_class_called_by_hand(beside: LoadedModel) -> None:
    made = rendered(beside, (STRUCTURE, video(3)), (REFERENCE, noise_image(4)))
    by_hand = beside.pipes[T2V](
        prompt="rain", negative_prompt="", width=SIDE, height=SIDE, num_frames=FRAMES, frame_rate=float(FPS),
        reference_conditions=[
            LTX2ReferenceCondition(frames=list(video(3))),
            LTX2ReferenceCondition(frames=noise_image(4), strength=0.5),
        ],
        num_inference_steps=2, guidance_scale=3.0, max_sequence_length=64, output_type="np",
        generator=torch.Generator("cpu").manual_seed(1),
    )  # fmt: skip
    np.testing.assert_array_equal(made, (by_hand.frames[0] * 255).round().astype(np.uint8))


def test_frames_beside_nothing_else_are_taken_as_by_the_class_without_a_context(
    beside: LoadedModel, model: LoadedModel
) -> None:
    np.testing.assert_array_equal(clip(beside, (FIRST, 1), (LAST, 2)), clip(model, (FIRST, 1), (LAST, 2)))


def test_a_video_beside_the_clip_is_paid_for_as_another_and_part_of_the_fingerprint(beside: LoadedModel) -> None:
    def asked(*inputs: dict[str, Any], variant: Variant = beside.variant) -> Group:
        return resolved(Catalog(variants={"told": variant}), *inputs)

    edges, ink = {"role": "structure", "kind": "edges", "video": "a.mp4"}, {"role": "reference", **PICTURE}
    one, both, weaker = asked(edges), asked(edges, ink), asked({**edges, "strength": 0.5})
    assert one.audio
    assert call_shape(beside.variant, one).frames == FRAMES + 5 * 2, "five latent frames, of two each, once more"
    assert call_shape(beside.variant, both).frames == FRAMES + 6 * 2
    smaller = in_context(Path("/none"), call_options={"reference_downscale_factor": 2})
    assert call_shape(smaller, asked(edges, variant=smaller)).frames == FRAMES + 2 * 2, "a quarter of five, rounded up"
    prints = [group.fingerprint("rain", "", 1, ["x", "y"][: len(group.conditions)]) for group in (one, both, weaker)]
    assert len({*prints, asked({**edges, "start": 1.0}).fingerprint("rain", "", 1, ["x"])}) == 4


def test_another_structure_than_its_adapter_follows_is_refused_with_the_one_it_does(beside: LoadedModel) -> None:
    catalog = Catalog(variants={"told": beside.variant})
    with pytest.raises(InvalidRequestError, match="told takes no structure of kind pose, but of edges"):
        resolved(catalog, {"role": "structure", "kind": "pose", "video": "a.mp4"})
    with pytest.raises(InvalidRequestError, match=f"{IN_CONTEXT} takes no strength of a source"):
        resolved(catalog, {"role": "source", "video": "a.mp4", "strength": 0.5})
    usual = in_context(Path("/none"), conditions=None)
    assert usual.all_roles == (Role.FIRST_FRAME, Role.LAST_FRAME, Role.KEYFRAME), "the rest is an adapter's"


def test_smaller_videos_beside_the_clip_are_of_the_adapters_size_and_divide(folder: Path, tmp_path: Path) -> None:
    half = {"max_sequence_length": 64, "reference_downscale_factor": 2}
    shape = {"divisor": 8, "max_frames": 9, "max_pixels": 65536, "native": [(SIDE, SIDE, FRAMES)]}
    with pytest.raises(VariantLoadError, match=r"divisor is 8: .* 2 times smaller, and must divide too; available: 16"):
        load(in_context(folder, call_options=half, shape=shape), device="cpu")
    file = tmp_path / "ic.safetensors"
    save_file({"x": torch.zeros(1)}, file, metadata={"reference_downscale_factor": "2"})
    with pytest.raises(
        VariantLoadError, match="references 2 times smaller; available: .*reference_downscale_factor = 2"
    ):
        load(in_context(folder, loras=({"source": str(file)},)), device="cpu")
    whole = load(in_context(folder), device="cpu")
    group = group_of(whole.variant, T2V, loras=(Lora(source=str(file)),))
    work = RenderBatch(group, (task_of(group, "rain"),))
    with pytest.raises(RenderError, match="references 2 times smaller"):
        whole.render(work, (TaskMedia(),), ignore_step, nobody_cancelled)
    model = load(in_context(folder, call_options=half), device="cpu")
    assert rendered(model, (STRUCTURE, video(1))).shape == (FRAMES, SIDE, SIDE, 3)
