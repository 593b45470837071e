"""Cosmos Transfer 2.5: a ControlNet's structure in windows, and the guardrail. The weights are random: what is shown is
that the ControlNet gets exactly the tensors that it should, and that the clip is that of the class called by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.cost.model import call_shape, calls_of
from models.loaded import LoadedModel
from models.loader import load
from models.model import TaskMedia, ignore_step, nobody_cancelled
from schemas.catalog import Variant, shipped_catalog
from schemas.conditions import Condition
from schemas.errors import MediaError, ModerationRefusedError, VariantLoadError
from schemas.inputs import Kind, Role
from schemas.sliding import slide_of
from schemas.task import RenderBatch
from tests.models import tiny_cosmos
from tests.models.shown import SIDE, Clip, as_bytes, as_tensor, clip, clips, moving
from tests.models.tiny_variants import T2V, group_of, task_of, tiny_variant

FRAMES, LATENT, STEPS = 9, 3, 2
EDGES = Condition(role=Role.STRUCTURE, medium="video", kind=Kind.EDGES)
LOUD = EDGES.model_copy(update={"strength": 0.5})


def entry(folder: Path, net: Path, **changes: Any) -> Variant:
    shape = {"divisor": 16, "frame_step": 4, "frame_offset": 1, "max_frames": 49, "max_pixels": 65536}
    said = {
        "pipeline": "Cosmos2_5_TransferPipeline",
        "pipelines": {},
        "modes": (T2V,),
        "controlnet": {"source": str(net), "kind": "edges"},
        "shape": {**shape, "native": [(SIDE, SIDE, FRAMES)]},
        "call_options": {"max_sequence_length": 128, "num_frames_per_chunk": FRAMES},
        "steps": STEPS,
    }
    return tiny_variant("wan", folder, **{**said, **changes})


@pytest.fixture(scope="module")
def packages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        tiny_cosmos.installed(patch)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cosmos.transfer(tmp_path_factory.mktemp("transfer"))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cosmos.controlnet(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def transfer(packages: None, folder: Path, net: Path) -> LoadedModel:
    return load(entry(folder, net), device="cpu")


def by_hand(model: LoadedModel, **given: Any) -> Clip:
    usual = {
        "prompt": ["a shape"],
        "negative_prompt": [""],
        "width": SIDE,
        "height": SIDE,
        "num_frames_per_chunk": FRAMES,
        "num_inference_steps": STEPS,
        "guidance_scale": 3.0,
        "generator": [torch.Generator().manual_seed(0)],
        "max_sequence_length": 128,
        "output_type": "pt",
    }
    return as_bytes(model.pipes[T2V](**usual | given).frames[0])


def test_the_controlnet_sees_the_structure_s_own_codes_and_how_much_they_count(
    transfer: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, seen = transfer.pipes[T2V], []
    forward = pipe.controlnet.forward

    def seeing(**named: Any) -> Any:
        seen.append(named)
        return forward(**named)

    monkeypatch.setattr(pipe.controlnet, "forward", seeing)
    video = moving(1, FRAMES)
    clip(transfer, (LOUD, video))
    assert len(seen) == 2 * STEPS, "with the prompt and without"
    drawn = torch.Generator().manual_seed(0)
    torch.randn((1, 16, LATENT, 4, 4), generator=drawn)
    mean, std = pipe.latents_mean, pipe.latents_std
    with torch.no_grad():
        pipe.vae.encode(torch.full((1, 3, FRAMES, SIDE, SIDE), -1.0)).latent_dist.sample(drawn)  # nothing before it
        codes = (pipe.vae.encode(as_tensor(video)).latent_dist.sample(drawn) - mean) / std
    for call in seen:
        assert torch.equal(call["controls_latents"], codes)
        assert call["conditioning_scale"] == 0.5
        assert not call["condition_mask"].any(), "no frame is given"


def test_its_clip_is_the_class_s_own_bit_for_bit_and_depends_on_the_structure(transfer: LoadedModel) -> None:
    video = moving(1, FRAMES)
    made = clip(transfer, (EDGES, video))
    assert np.array_equal(made, by_hand(transfer, controls=list(video)))
    half = clip(transfer, (LOUD, video))
    assert np.array_equal(half, by_hand(transfer, controls=list(video), controls_conditioning_scale=0.5))
    others = [half, clip(transfer, (EDGES, moving(2, FRAMES))), clip(transfer, (EDGES, (*video[:5], *moving(2, 4))))]
    assert all((made != other).any() for other in others)


def test_its_tasks_of_a_batch_have_the_clips_that_they_have_alone(transfer: LoadedModel) -> None:
    one, other = ((EDGES, moving(seed, FRAMES)) for seed in (1, 2))
    together = clips(transfer, (one,), (other,))
    assert np.array_equal(together[0], clip(transfer, one, seed=0))
    assert np.array_equal(together[1], clip(transfer, other, seed=1))


def test_a_clip_that_is_shorter_than_a_window_is_a_window_of_its_own(transfer: LoadedModel) -> None:
    video = moving(1, 5)
    made = clip(transfer, (EDGES, video), frames=5)
    assert np.array_equal(made, by_hand(transfer, controls=list(video), num_frames_per_chunk=5))


def test_a_longer_clip_is_made_in_windows_which_progress_and_price_count(transfer: LoadedModel) -> None:
    video, told = moving(1, 17), []
    group = group_of(transfer.variant, T2V, conditions=(EDGES,), frames=17)
    work = RenderBatch(group, (task_of(group, "a shape", media=("x",)),))
    (made,) = transfer.render(
        work, (TaskMedia((video,)),), lambda done, total: told.append((done, total)), nobody_cancelled
    )
    assert np.array_equal(made, by_hand(transfer, controls=list(video)))
    assert told == [(done, 2 * STEPS) for done in range(1, 2 * STEPS + 1)]
    shape = call_shape(transfer.variant, group)
    assert (shape.frames, calls_of(shape)) == (FRAMES, 2)
    one = group.model_copy(update={"frames": FRAMES})
    assert calls_of(call_shape(transfer.variant, one)) == 1


def refused(model: LoadedModel, prompt: str) -> tuple[ModerationRefusedError, list[int]]:
    group, steps = group_of(model.variant, T2V, conditions=(EDGES,)), []
    work = RenderBatch(group, (task_of(group, prompt, media=("x",)),))
    with pytest.raises(ModerationRefusedError) as caught:
        model.render(work, (TaskMedia((moving(1, FRAMES),)),), lambda done, total: steps.append(done), nobody_cancelled)
    return caught.value, steps


def test_what_the_guardrail_refuses_is_refused_as_by_moderation(transfer: LoadedModel) -> None:
    prompt, steps = refused(transfer, "an unsafe prompt")
    assert (prompt.moderation.refusal.code, steps) == ("SAFETY.INPUT.TEXT", [])  # type: ignore[union-attr]
    made, steps = refused(transfer, "a clip that turns out bad")
    assert (made.moderation.refusal.code, len(steps)) == ("SAFETY.OUTPUT.VIDEO", STEPS)  # type: ignore[union-attr]
    assert clip(transfer, (EDGES, moving(1, FRAMES))).any(), "and the next is rendered"


def test_what_the_guardrail_blurs_is_blurred_in_the_clip(transfer: LoadedModel) -> None:
    made = clip(transfer, (EDGES, moving(1, FRAMES)))
    assert not made[:, : tiny_cosmos.BLURRED].any()
    assert made[:, tiny_cosmos.BLURRED :].any()


def test_without_its_guardrail_it_does_not_load(folder: Path, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cosmos_guardrail", None)
    with pytest.raises(
        VariantLoadError, match="with its guardrail only, as the license .*: pip install cosmos_guardrail"
    ):
        load(entry(folder, net), device="cpu")


def test_the_shipped_entry_takes_its_controlnet_from_another_branch_of_the_same_repository(
    packages: None, folder: Path, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers
    import huggingface_hub

    entry = shipped_catalog()["cosmos-transfer-depth"]
    asked: list[Any] = []
    config = diffusers.DiffusionPipeline.load_config

    def load_config(source: str, **named: Any) -> Any:
        return {} if source == entry.weights else config(source, **named)

    def pipeline_of(source: str, **named: Any) -> str:
        asked.append((source, named["revision"]))
        return str(folder)

    def files_of(source: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((source, revision, allow_patterns))
        return str(net)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "load_config", load_config)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", pipeline_of)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", files_of)
    model = load(entry, device="cpu")
    branch = "diffusers/controlnet/general/depth"
    assert asked == [
        (entry.weights, "diffusers/general"),
        (entry.weights, branch, ["*.safetensors", "*.json"]),
    ]
    assert model.variant.kinds(Role.STRUCTURE) == (Kind.DEPTH,)


@pytest.mark.parametrize("seen", [1, 5])
@pytest.mark.parametrize("frames", [5, 93, 97, 185, 189, 369])
def test_as_many_windows_are_counted_as_the_class_makes(frames: int, seen: int) -> None:
    options = {"num_ar_conditional_frames": seen}
    slide = slide_of("Cosmos2_5_TransferPipeline", options, frames, 4)
    # The class's own rule.
    made = len(range(0, frames - seen, 93 - seen)) if frames > 93 else 1
    assert (1 if slide is None else len(slide.begins_at)) == made
    assert slide is None or slide.frames == 93


def test_it_renders_nothing_without_a_structure(transfer: LoadedModel) -> None:
    assert transfer.variant.needed(T2V) == (Role.STRUCTURE,)
    group = group_of(transfer.variant, T2V, conditions=())
    with pytest.raises(MediaError, match="needs a structure"):
        transfer.render(RenderBatch(group, (task_of(group, "a"),)), (TaskMedia(),), ignore_step, nobody_cancelled)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_channels": 64, "num_attention_heads": 4}, "num_attention_heads is 4, and the transformer takes 2"),
        ({"n_controlnet_blocks": 1}, "n_controlnet_blocks is 1, and the transformer takes 2"),
        ({"latent_channels": 17}, "latent_channels is 17, and the transformer takes 18"),
    ],
)
def test_a_controlnet_for_another_transformer_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(VariantLoadError, match=message):
        load(entry(folder, tiny_cosmos.controlnet(tmp_path, **changes)), device="cpu")


@pytest.mark.usefixtures("packages")
def test_a_transformer_that_takes_no_controlnet_is_refused(net: Path, tmp_path: Path) -> None:
    plain = tiny_cosmos.transfer(tmp_path, controlnet_block_every_n=None)
    with pytest.raises(VariantLoadError, match="the transformer takes none: controlnet_block_every_n is not set"):
        load(entry(plain, net), device="cpu")
