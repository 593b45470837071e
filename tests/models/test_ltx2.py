"""LTX-2 told frames: a real tiny `LTX2ConditionPipeline` with random weights, with sound."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

from cluster.cost.model import call_shape
from models.loaded import LoadedModel
from models.loader import load
from models.model import Sounding, TaskMedia, frames_of, ignore_step, nobody_cancelled
from schemas.catalog import Catalog, Variant
from schemas.conditions import Condition
from schemas.errors import InvalidRequestError, VariantLoadError
from schemas.inputs import Role
from schemas.request import Request
from schemas.resolve import resolve
from schemas.task import Group, RenderBatch
from tests.models.tiny_sound import ltx2
from tests.models.tiny_variants import I2V, T2V, group_of, noise_image, task_of, tiny_variant
from training.tiny import save

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
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Path(save(ltx2(), tmp_path_factory.mktemp("ltx2")))


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
