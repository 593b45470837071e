"""From catalog entries to loaded models: what is applied, and what is refused with which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.loaded import LoadedModel
from models.loader import load
from models.model import TaskMedia, ignore_step, nobody_cancelled
from schemas.errors import VariantLoadError
from schemas.request import Mode
from schemas.task import RenderBatch
from tests.models.conftest import TinyFolder
from tests.models.tiny_variants import I2V, T2V, V2V, batch_of, group_of, media_of, tiny_variant
from training.tiny import build


def clip_of(model: LoadedModel, prompt: str = "a") -> Any:
    batch = batch_of(group_of(model.variant), prompt)
    (clip,) = model.render(batch, media_of(batch), ignore_step, nobody_cancelled)
    assert isinstance(clip, np.ndarray), clip
    return clip


def test_one_set_of_weights_serves_all_modes(tiny_folder: TinyFolder) -> None:
    model = load(tiny_variant("wan", tiny_folder("wan")), device="cpu")
    assert model.pipes[T2V].transformer is model.pipes[I2V].transformer is model.pipes[V2V].transformer
    assert model.pipes[I2V].config.expand_timesteps is True
    assert model.load_s > 0
    assert len(model.revision) == 16


def test_only_the_modes_that_are_asked_for_are_loaded(tiny_folder: TinyFolder) -> None:
    model = load(tiny_variant("wan", tiny_folder("wan")), modes=[I2V], device="cpu")
    assert list(model.pipes) == [I2V]


def test_half_precision_runs_as_float32_on_a_cpu_and_says_so(tiny_folder: TinyFolder) -> None:
    model = load(tiny_variant("wan", tiny_folder("wan"), dtype="bfloat16"), device="cpu")
    assert model.pipes[T2V].transformer.dtype == torch.float32
    assert model.notes == ("bfloat16 runs as float32 on a CPU",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pipeline": "WamPipeline"}, r"'WamPipeline' is no diffusers pipeline; available: .*WanPipeline"),
        ({"pipeline": "UNet2DModel"}, r"'UNet2DModel' is no diffusers pipeline"),
        ({"pipelines": {I2V: "WanPipeline"}}, r"WanPipeline cannot render image_to_video; its call takes: .*prompt"),
        ({"call_options": {"guidance_scal": 1}}, r"no call option 'guidance_scal'; available: .*guidance_scale_2"),
        ({"call_options": {"prompt": "x"}}, r"no call option 'prompt'"),
        ({"scheduler": "DDIMScheduler"}, r"'DDIMScheduler' does not fit .*; available: FlowMatchEuler.*UniPC"),
        ({"scheduler_options": {"shfit": 2}}, r"has no option 'shfit'; available: .*shift"),
        ({"speed": {"cache": "first_block", "cache_options": {"treshold": 1}}}, r"no option 'treshold'; .*threshold"),
        ({"speed": {"cache": "mag"}}, r"cache 'mag' on WanTransformer3DModel: .*mag_ratios"),
        ({"speed": {"attention_backend": "telepathy"}}, r"attention_backend 'telepathy': "),
        ({"loras": [{"source": "/nowhere/at.safetensors"}]}, r"/nowhere/at.safetensors: no such folder"),
        ({"weights": "/nowhere"}, r"weights /nowhere: no such folder"),
        ({"weights": "embedded:nothing"}, r"no embedded model 'nothing'; available: .*tiny-random"),
        ({"weights": "s3://bucket/wan"}, r"no object store was given"),
        ({"weights": "half a name"}, r"neither a folder nor a source; available: owner/name"),
    ],
)
def test_a_wrong_entry_is_refused_with_the_variant_and_the_choices(
    tiny_folder: TinyFolder, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(VariantLoadError, match=message) as caught:
        load(tiny_variant("wan", tiny_folder("wan"), **changes), device="cpu")
    assert "'tiny-wan'" in str(caught.value)


@pytest.mark.parametrize("speed", [{"compile": True}, {"cache": "first_block"}])
def test_settings_that_a_unet_lacks_are_refused(tiny_folder: TinyFolder, speed: dict[str, Any]) -> None:
    with pytest.raises(VariantLoadError, match=r"UNetMotionModel|first_block"):
        load(tiny_variant("animatediff", tiny_folder("animatediff"), speed=speed), device="cpu")


def test_a_mode_that_the_variant_lacks_is_refused(tiny_folder: TinyFolder) -> None:
    with pytest.raises(VariantLoadError, match="does not render video_to_video; available: text_to_video"):
        load(tiny_variant("ltx", tiny_folder("ltx")), modes=[V2V], device="cpu")


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VariantLoadError, match="'tiny-wan'.*model_index.json"):
        load(tiny_variant("wan", tmp_path), device="cpu")


@pytest.mark.parametrize(
    "speed",
    [
        {"cache": "first_block", "cache_options": {"threshold": 0.5}},
        {"cache": "pab"},
        {"cache": "taylorseer"},
        {"cache": "mag", "cache_options": {"mag_ratios": "1.0, 0.99, 0.98", "threshold": 0.5}},
    ],
)
def test_a_step_cache_saves_calls_and_forgets_between_clips(tiny_folder: TinyFolder, speed: dict[str, Any]) -> None:
    model = load(tiny_variant("wan", tiny_folder("wan"), speed=speed, steps=12), device="cpu")
    work: list[int] = []
    for block in model.pipes[T2V].transformer.blocks:
        block.attn1.to_q.register_forward_hook(lambda *_: work.append(1))
    plain_calls = 12 * 2 * 2  # steps × guidance × blocks
    first = clip_of(model)
    assert 0 < len(work) < plain_calls
    clip_of(model, "another prompt altogether")
    assert (clip_of(model) == first).all()


def test_a_cache_that_decides_by_the_batch_renders_tasks_one_by_one(tiny_folder: TinyFolder) -> None:
    speed = {"cache": "first_block", "cache_options": {"threshold": 0.5}}
    model = load(tiny_variant("wan", tiny_folder("wan"), speed=speed, steps=6), device="cpu")
    batch = batch_of(group_of(model.variant), "a", "b")
    together = model.render(batch, media_of(batch), ignore_step, nobody_cancelled)
    for task, clip in zip(batch.tasks, together, strict=True):
        (alone,) = model.render(RenderBatch(batch.group, (task,)), (TaskMedia(),), ignore_step, nobody_cancelled)
        assert isinstance(clip, np.ndarray)
        assert (clip == alone).all()


def test_vae_settings_and_channels_last_leave_a_small_clip_as_it_is(tiny_folder: TinyFolder) -> None:
    plain = clip_of(load(tiny_variant("wan", tiny_folder("wan")), device="cpu"))
    speed = {"vae_tiling": True, "vae_slicing": True, "channels_last": True}
    model = load(tiny_variant("wan", tiny_folder("wan"), speed=speed), device="cpu")
    assert model.pipes[T2V].vae.use_tiling
    assert np.abs(clip_of(model).astype(int) - plain).max() <= 1


def test_offloading_on_a_cpu_does_nothing_and_says_so(tiny_folder: TinyFolder) -> None:
    model = load(tiny_variant("wan", tiny_folder("wan"), speed={"offload": "model"}), device="cpu")
    assert model.notes == ("offload 'model' does nothing on a CPU",)


def test_scheduler_and_its_options_come_from_the_catalog(tiny_folder: TinyFolder) -> None:
    changes = {"scheduler": "UniPCMultistepScheduler", "scheduler_options": {"flow_shift": 7.0}}
    scheduler = load(tiny_variant("wan", tiny_folder("wan"), **changes), device="cpu").pipes[T2V].scheduler
    assert type(scheduler).__name__ == "UniPCMultistepScheduler"
    assert scheduler.config.flow_shift == 7.0
    assert scheduler.config.use_flow_sigmas is True


def test_swapping_a_flow_scheduler_keeps_its_shift(tiny_folder: TinyFolder) -> None:
    model = load(tiny_variant("wan", tiny_folder("wan"), scheduler="UniPCMultistepScheduler"), device="cpu")
    assert model.pipes[T2V].scheduler.config.flow_shift == 3.0


def test_call_options_reach_the_call(tiny_folder: TinyFolder) -> None:
    plain = clip_of(load(tiny_variant("wan", tiny_folder("wan")), device="cpu"), "a" * 40)
    short = load(tiny_variant("wan", tiny_folder("wan"), call_options={"max_sequence_length": 8}), device="cpu")
    assert (clip_of(short, "a" * 40) != plain).any()


def test_a_lora_counts_with_its_weight(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = load(tiny_variant("wan", tiny_folder("wan")), device="cpu")
    plain = clip_of(base)
    pipe = base.pipes[T2V]
    pipe.transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = peft.get_peft_model_state_dict(pipe.transformer)
    pipe.save_lora_weights(tmp_path / "lora", transformer_lora_layers=layers)
    clips = {}
    for weight in (0.0, 1.0):
        loras = [{"source": str(tmp_path / "lora"), "weight": weight}]
        clips[weight] = clip_of(load(tiny_variant("wan", tiny_folder("wan"), loras=loras), device="cpu"))
    assert np.abs(clips[0.0].astype(int) - plain).max() <= 1
    assert (clips[1.0] != plain).any()


def test_a_motion_adapter_is_loaded_from_its_own_folder(tiny_folder: TinyFolder) -> None:
    folder = tiny_folder("animatediff")
    variant = tiny_variant("animatediff", folder, motion_adapter=str(folder / "motion_adapter"))
    assert clip_of(load(variant, device="cpu")).shape == (4, 32, 32, 3)


def test_the_embedded_model_loads_by_its_name(tmp_path: Path) -> None:
    model = load(tiny_variant("wan", tmp_path, weights="embedded:tiny-random"), modes=[Mode.TEXT_TO_VIDEO])
    same = load(tiny_variant("wan", build("wan", tmp_path / "again")), modes=[Mode.TEXT_TO_VIDEO])
    for ours, theirs in zip(
        model.pipes[T2V].transformer.parameters(), same.pipes[T2V].transformer.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_compiled_blocks_render_the_same_clip(tiny_folder: TinyFolder) -> None:
    plain = clip_of(load(tiny_variant("wan", tiny_folder("wan")), device="cpu"))
    compiled = load(tiny_variant("wan", tiny_folder("wan"), speed={"compile": True}), device="cpu")
    assert np.abs(clip_of(compiled).astype(int) - plain).max() <= 1
