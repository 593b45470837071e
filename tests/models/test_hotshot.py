"""A converted Hotshot-XL computes what the original does; what is no Hotshot-XL, or not whole, is refused by name."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffSDXLPipeline, ControlNetModel, StableDiffusionXLPipeline, UNet2DConditionModel
from huggingface_hub import constants
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.hotshot_parity import main as parity
from models.components import ready
from models.hotshot.control import with_controlnet
from models.hotshot.conversion import convert
from models.hotshot.unet import HotshotUNet
from models.loaded import LoadedModel
from models.loader import load
from models.model import TaskMedia, ignore_step, nobody_cancelled
from models.weights import Weights
from schemas.catalog import Variant
from schemas.conditions import Condition
from schemas.errors import ConfigError, VariantLoadError
from schemas.inputs import Kind, Role
from schemas.request import Mode
from tests.models.hotshot_original import CONFIG, POOLED, TEXT, Original, checkpoint, original, sdxl_base
from tests.models.tiny_variants import batch_of, group_of

GOAL = 1e-4
T2V = Mode.TEXT_TO_VIDEO
REFERENCE = os.environ.get("RUSHES_HOTSHOT_REF")


@pytest.fixture(scope="module")
def unet() -> Original:
    return original()


@pytest.fixture(scope="module")
def source(unet: Original, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in Hotshot-XL's layout."""
    return checkpoint(tmp_path_factory.mktemp("hotshot") / "ckpt", unet)


@pytest.fixture(scope="module")
def folder(source: Path) -> Path:
    return convert(source, source.parent / "converted").folder


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load(variant(folder), device="cpu")


def variant(folder: Path, **changes: Any) -> Variant:
    entry: dict[str, Any] = {
        "name": "hotshot",
        "pipeline": "AnimateDiffSDXLPipeline",
        "weights": str(folder),
        "modes": ["text_to_video"],
        "dtype": "float32",
        "steps": 3,
        "guidance": 5.0,
        "fps": 8,
        "max_batch": 2,
        "call_options": {"original_size": (1920, 1080), "target_size": (512, 512)},
        "shape": {"divisor": 32, "max_frames": 24, "max_pixels": 65536, "native": [(64, 32, 4)]},
        "latent": {"channels": 4, "spatial": 8, "temporal": 1, "patch": (1, 1, 1)},
    }
    return Variant.model_validate(entry | changes)


def clips_of(model: LoadedModel, *prompts: str) -> list[Any]:
    batch = batch_of(group_of(model.variant), *prompts)
    return list(model.render(batch, (TaskMedia(),) * len(prompts), ignore_step, nobody_cancelled))


def inputs(batch: int, frames: int, height: int, width: int, seed: int) -> Mapping[str, Tensor]:
    torch.manual_seed(seed)
    return {
        "clips": torch.randn(batch, 4, frames, height, width),
        "timestep": torch.randint(0, 1000, (batch,)),
        "text": torch.randn(batch, 7, TEXT),
        "pooled": torch.randn(batch, POOLED),
        "time_ids": torch.tensor([[1080.0, 1920.0, 0.0, 0.0, 512.0, 512.0]] * batch),
    }


def called(unet: nn.Module, given: Mapping[str, Tensor]) -> Tensor:
    added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}
    with torch.no_grad():
        made: Tensor = unet(given["clips"], given["timestep"], given["text"], added_cond_kwargs=added).sample
    return made


def difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


@pytest.mark.parametrize(
    ("batch", "frames", "height", "width"),
    [(1, 8, 8, 8), (2, 8, 4, 6), (3, 2, 2, 10), (1, 24, 4, 4), (1, 1, 8, 4), (2, 1, 4, 4), (1, 5, 6, 2)],
)
def test_the_unet_is_the_original(
    model: LoadedModel, unet: Original, batch: int, frames: int, height: int, width: int
) -> None:
    given = inputs(batch, frames, height, width, seed=batch + frames)
    converted = model.pipes[T2V].unet
    assert isinstance(converted, HotshotUNet)
    assert difference(called(converted, given), unet(**given)) <= GOAL


@pytest.mark.parametrize(
    "changes",
    [
        {"layers_per_block": 2, "block_out_channels": [32, 96], "attention_head_dim": [4, 3]},
        {
            "block_out_channels": [32, 32, 64],
            "attention_head_dim": [2, 2, 4],
            "transformer_layers_per_block": [1, 1, 2],
            "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"],
            "up_block_types": ["CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"],
        },
        {"norm_num_groups": 16},
    ],
)
def test_checkpoints_of_other_sizes_convert_as_well(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = original(5, **changes)
    made = convert(checkpoint(tmp_path / "ckpt", theirs, **changes), tmp_path / "out")
    given = inputs(2, 6, 8, 4, seed=3)
    assert difference(called(HotshotUNet.from_pretrained(made.folder / "unet"), given), theirs(**given)) <= GOAL
    modules = sum(len(block.temporal_attentions) for block in (*theirs.down_blocks, *theirs.up_blocks))
    assert (made.temporal_layers, made.max_frames) == (modules, 24)


class Wrapped(nn.Module):
    """The original in the place of the pipeline's UNet."""

    def __init__(self, unet: Original, config: Any) -> None:
        super().__init__()
        self.unet, self.config = unet, config
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.add_embedding = unet.add_embedding

    def forward(
        self, sample: Tensor, timestep: Tensor, *, encoder_hidden_states: Tensor, added_cond_kwargs: Any, **others: Any
    ) -> tuple[Tensor]:
        residuals = others.get("down_block_additional_residuals", ()), others.get("mid_block_additional_residual")
        text = encoder_hidden_states[:: sample.shape[2]]
        added = added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"]
        return (self.unet(sample, timestep, text, *added, *residuals),)


def pipeline_of(folder: Path) -> AnimateDiffSDXLPipeline:
    pipeline = AnimateDiffSDXLPipeline.from_pretrained(folder, motion_adapter=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def rendered(pipeline: Any, **changes: Any) -> Tensor:
    call: dict[str, Any] = {
        "prompt": ["a red ball", "a blue cat"], "negative_prompt": ["blurry", "x"], "num_inference_steps": 4,
        "guidance_scale": 5.0, "width": 64, "height": 32, "original_size": (1920, 1080), "target_size": (512, 512),
        "generator": [torch.Generator().manual_seed(seed) for seed in (1, 2)], "output_type": "pt",
    }  # fmt: skip
    frames: Tensor = pipeline(**call | changes).frames
    return frames


@pytest.mark.parametrize("changes", [{}, {"guidance_scale": 1.0}, {"num_frames": 1}], ids=str)
@pytest.mark.parametrize("scheduler", [None, "EulerAncestralDiscreteScheduler"])
def test_the_pipeline_renders_what_the_original_renders(
    folder: Path, unet: Original, scheduler: str | None, changes: dict[str, Any]
) -> None:
    pipeline = load(variant(folder, scheduler=scheduler), device="cpu").pipes[T2V]
    changes = {"num_frames": 5, **changes}
    ours = rendered(pipeline, **changes)
    pipeline.unet = Wrapped(unet, pipeline.unet.config)
    assert difference(ours, rendered(pipeline, **changes)) <= GOAL


def test_it_renders_as_any_other_variant_does(model: LoadedModel) -> None:
    one, two = clips_of(model, "a red ball", "a blue cat")
    assert one.shape == two.shape == (4, 32, 64, 3)
    assert not np.array_equal(one, two)
    assert np.abs(clips_of(model, "a red ball")[0].astype(int) - one).max() <= 1


def test_a_catalog_may_name_the_checkpoint_itself_which_is_converted_once(source: Path, tmp_path: Path) -> None:
    first = ready(Weights(source, "r1"), tmp_path)
    assert first.revision == "r1"
    written = (first.folder / "unet" / "config.json").stat().st_mtime_ns
    clip = clips_of(load(variant(source), device="cpu", cache=tmp_path), "a")[0]
    assert (first.folder / "unet" / "config.json").stat().st_mtime_ns == written
    assert clip.shape == (4, 32, 64, 3)


def test_a_checkpoint_in_the_hubs_cache_is_converted_too(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--hotshotco--Hotshot-XL"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "snapshots" / commit).symlink_to(source)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    made = load(variant(Path("x"), weights="hotshotco/Hotshot-XL"), device="cpu", cache=tmp_path / "cache")
    assert made.revision == commit
    assert isinstance(made.pipes[T2V].unet, HotshotUNet)


def test_a_folder_saved_again_loads_as_what_it_is(folder: Path, tmp_path: Path) -> None:
    pipeline = pipeline_of(folder)
    pipeline.save_pretrained(tmp_path / "again")
    again = load(variant(tmp_path / "again"), device="cpu").pipes[T2V]
    assert isinstance(again.unet, HotshotUNet)
    assert torch.equal(again.unet.conv_in.weight, pipeline.unet.conv_in.weight)


def test_without_this_class_diffusers_refuses_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `UNetMotionModel` it would render, but other clips."""
    monkeypatch.delitem(sys.modules, HotshotUNet.__module__)
    with pytest.raises(ValueError, match="import models.hotshot.unet before calling `from_pretrained`"):
        pipeline_of(folder)


def test_more_frames_than_the_position_table_has_are_refused(model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="25 frames; Hotshot-XL's position table has 24"):
        called(model.pipes[T2V].unet, inputs(1, 25, 4, 4, seed=0))


# --- On a personalised base, and with LoRAs ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sdxl_base(tmp_path_factory.mktemp("base") / "sdxl")


def test_a_base_gives_all_but_the_temporal_layers_and_the_scheduler(source: Path, base: Path, tmp_path: Path) -> None:
    made = convert(source, tmp_path / "out", base=base)
    pipeline = pipeline_of(made.folder)
    theirs = StableDiffusionXLPipeline.from_pretrained(base)
    own = load_file(source / "unet" / "diffusion_pytorch_model.safetensors")
    weights = pipeline.unet.state_dict()
    for name, value in theirs.unet.state_dict().items():
        assert torch.equal(weights[name], value), name
    name = "down_blocks.1.temporal_attentions.0.proj_in.weight"
    assert torch.equal(weights[name.replace("temporal_attentions", "motion_modules")], own[name])
    for part in ("vae", "text_encoder", "text_encoder_2"):
        ours, base_part = getattr(pipeline, part).state_dict(), getattr(theirs, part).state_dict()
        assert all(torch.equal(ours[name], value) for name, value in base_part.items()), part
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"
    assert pipeline.unet.config.sample_size == 16


def test_a_catalog_may_name_a_base_and_the_checkpoint_as_its_motion(source: Path, base: Path, tmp_path: Path) -> None:
    made = load(variant(base, motion_adapter=str(source)), device="cpu", cache=tmp_path)
    same = load(variant(convert(source, tmp_path / "out", base=base).folder), device="cpu")
    assert np.array_equal(clips_of(made, "a"), clips_of(same, "a"))
    assert made.revision == load(variant(base, pipeline="StableDiffusionXLPipeline"), device="cpu").revision


def test_one_frame_on_a_base_is_the_bases_image(source: Path, base: Path, tmp_path: Path) -> None:
    """No temporal layer, and norms over one frame: what is left is SDXL."""
    pipeline = pipeline_of(convert(source, tmp_path / "out", base=base).folder)
    theirs = StableDiffusionXLPipeline.from_pretrained(base, scheduler=pipeline.scheduler)
    theirs.set_progress_bar_config(disable=True)
    call: dict[str, Any] = {
        "prompt": "a red ball", "num_inference_steps": 3, "width": 64, "height": 64, "original_size": (64, 64),
        "target_size": (64, 64),
    }  # fmt: skip
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    image = theirs(**call, latents=latents, output_type="pt").images
    frames = pipeline(**call, num_frames=1, latents=latents[:, :, None], output_type="pt").frames
    assert difference(frames[0], image) <= GOAL


def test_only_a_bases_unet_leaves_the_text_encoders_and_the_vae(source: Path, base: Path, tmp_path: Path) -> None:
    pipeline = pipeline_of(convert(source, tmp_path / "out", base=base / "unet").folder)
    own = load_file(source / "text_encoder" / "model.safetensors")
    (words,) = (value for name, value in own.items() if name.endswith("token_embedding.weight"))
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight, words)
    assert not torch.equal(pipeline.unet.conv_in.weight, original().conv_in.weight)


def lora_of(base: Path, folder: Path) -> UNet2DConditionModel:
    """Save a random LoRA of an SDXL, as its trainers do; returns the UNet with it merged."""
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    torch.manual_seed(3)
    unet.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v", "to_out.0"], init_lora_weights=False)
    )
    StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    unet.fuse_lora()
    unet.unload_lora()
    return unet


def test_a_lora_of_sdxl_does_what_it_does_merged_into_the_base(source: Path, base: Path, tmp_path: Path) -> None:
    merged = lora_of(base, tmp_path / "lora")
    merged.save_pretrained(tmp_path / "merged")
    entry: dict[str, Any] = {"loras": [{"source": str(tmp_path / "lora"), "weight": 1.0}]}
    plain = convert(source, tmp_path / "plain", base=base / "unet").folder
    with_lora = load(variant(plain, **entry), device="cpu").pipes[T2V]
    same = load(variant(convert(source, tmp_path / "baked", base=tmp_path / "merged").folder), device="cpu").pipes[T2V]
    without = load(variant(plain), device="cpu").pipes[T2V]
    clips = [rendered(pipeline, num_frames=4) for pipeline in (with_lora, same, without)]
    assert difference(clips[0], clips[1]) <= GOAL
    assert difference(clips[0], clips[2]) > 10 * GOAL


def test_a_lora_in_the_names_of_sdxls_own_code_acts_as_one_in_diffusers_names(folder: Path, tmp_path: Path) -> None:
    """As most LoRAs that people share are."""
    torch.manual_seed(4)
    down, up = torch.randn(2, 64), torch.randn(64, 2)
    layers = ("transformer_blocks_1_attn1_to_q", "transformer_blocks_0_attn2_to_out_0")
    theirs: dict[str, Tensor] = {}
    ours: dict[str, Tensor] = {}
    for layer in layers:
        dotted = layer.replace("transformer_blocks_", "transformer_blocks.").replace("_attn", ".attn")
        dotted = dotted.replace("_to_", ".to_").replace("out_0", "out.0")
        for block, place in (
            ("input_blocks_3_1", "down_blocks.1.attentions.0"),
            ("middle_block_1", "mid_block.attentions.0"),
        ):
            theirs |= {
                f"lora_unet_{block}_{layer}.lora_down.weight": down.clone(),
                f"lora_unet_{block}_{layer}.lora_up.weight": up.clone(),
                f"lora_unet_{block}_{layer}.alpha": torch.tensor(2.0),
            }
            ours |= {
                f"unet.{place}.{dotted}.lora_A.weight": down.clone(),
                f"unet.{place}.{dotted}.lora_B.weight": up.clone(),
            }
    clips = []
    for name, tensors in (("theirs", theirs), ("ours", ours)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        entry = {"loras": [{"source": str(tmp_path / f"{name}.safetensors"), "weight": 0.5}]}
        clips.append(rendered(load(variant(folder, **entry), device="cpu").pipes[T2V], num_frames=4))
    assert difference(*clips) <= GOAL
    assert difference(clips[0], rendered(pipeline_of(folder), num_frames=4)) > 10 * GOAL


def test_gradients_are_the_same_when_activations_are_computed_again(folder: Path) -> None:
    gradients = []
    given = inputs(2, 4, 4, 6, seed=1)
    added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}
    for again in (False, True):
        unet = HotshotUNet.from_pretrained(folder / "unet").train()
        if again:
            unet.enable_gradient_checkpointing()
        unet(given["clips"], given["timestep"], given["text"], added_cond_kwargs=added).sample.pow(2).mean().backward()
        gradients.append(unet.conv_in.weight.grad)
    assert difference(*gradients) <= 1e-6


def test_a_base_of_other_sizes_is_refused_by_the_field(source: Path, tmp_path: Path) -> None:
    other = sdxl_base(tmp_path / "other", cross_attention_dim=32)
    with pytest.raises(ConfigError, match=r"--base: .*cross_attention_dim = 32 and .* 64: .*available"):
        convert(source, tmp_path / "out", base=other)
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_no_sdxl_is_refused(source: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--base: .* is a HotshotUNet; available: SDXL's UNet2DConditionModel"):
        convert(source, tmp_path / "out", base=folder)


# --- ControlNet --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def controlnet(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(9)
    net = ControlNetModel.from_unet(
        UNet2DConditionModel.from_pretrained(base / "unet"), conditioning_embedding_out_channels=(8, 8, 8, 8)
    )
    for parameter in net.parameters():  # those that begin at nothing would change nothing
        if not parameter.abs().sum():
            nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("control") / "net"
    net.save_pretrained(folder)
    return folder


def pictures(count: int, seed: int) -> list[Image.Image]:
    random = np.random.default_rng(seed)
    return [Image.fromarray(random.integers(0, 256, (32, 64, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("changes", [{}, {"guidance_scale": 1.0}, {"control_guidance_end": 0.5}], ids=str)
def test_a_controlnet_changes_clips_as_it_changes_the_originals(
    folder: Path, unet: Original, controlnet: Path, changes: dict[str, Any]
) -> None:
    pipeline = with_controlnet(pipeline_of(folder), controlnet)
    pipeline.set_progress_bar_config(disable=True)
    given = {"conditioning_frames": [pictures(5, 0), pictures(5, 1)], "controlnet_conditioning_scale": 0.7, **changes}
    ours = rendered(pipeline, **given)
    plain = rendered(pipeline_of(folder), num_frames=5, **{k: v for k, v in changes.items() if "control" not in k})
    assert difference(ours, plain) > 10 * GOAL
    pipeline.unet = Wrapped(unet, pipeline.unet.config)
    assert difference(ours, rendered(pipeline, **given)) <= GOAL


def test_a_controlnet_without_strength_changes_nothing(folder: Path, controlnet: Path) -> None:
    plain = rendered(pipeline_of(folder), num_frames=5)
    pipeline = with_controlnet(pipeline_of(folder), controlnet)
    pipeline.set_progress_bar_config(disable=True)
    frames = [pictures(5, 0), pictures(5, 1)]
    assert difference(plain, rendered(pipeline, conditioning_frames=frames, controlnet_conditioning_scale=0.0)) <= GOAL


def test_a_variant_draws_over_a_structure_as_the_pipeline_does(folder: Path, controlnet: Path) -> None:
    entry = {"pipeline": "HotshotControlNetPipeline", "controlnet": {"source": str(controlnet), "kind": "depth"}}
    model = load(variant(folder, **entry), device="cpu")
    shown = Condition(role=Role.STRUCTURE, medium="video", kind=Kind.DEPTH, strength=0.7)
    batch = batch_of(group_of(model.variant, conditions=(shown,)), "a", "b")
    frames = [pictures(4, 0), pictures(4, 1)]
    media = tuple(TaskMedia((tuple(clip),)) for clip in frames)
    made = model.render(batch, media, ignore_step, nobody_cancelled)
    pipeline = with_controlnet(load(variant(folder), device="cpu").pipes[T2V], controlnet)
    for task, clip, own in zip(batch.tasks, frames, made, strict=True):
        expected = pipeline(
            task.prompt, negative_prompt=task.negative_prompt, conditioning_frames=clip, width=64, height=32,
            controlnet_conditioning_scale=0.7, num_inference_steps=3, guidance_scale=5.0, output_type="np",
            generator=torch.Generator().manual_seed(task.seed), original_size=(1920, 1080), target_size=(512, 512),
        ).frames[0]  # fmt: skip
        assert np.abs(own / 255 - expected).max() < 0.01
    (plain,) = clips_of(load(variant(folder), device="cpu"), "a")
    assert not np.array_equal(made[0], plain)
    assert np.array_equal(clips_of(model, "a"), [plain]), "without a structure it is Hotshot-XL's own clip"


def test_conditioning_frames_that_do_not_fit_are_told(folder: Path, controlnet: Path) -> None:
    pipeline = with_controlnet(pipeline_of(folder), controlnet)
    with pytest.raises(ValueError, match="1 clips of 5 frames for 2 prompts"):
        rendered(pipeline, conditioning_frames=pictures(5, 0))
    with pytest.raises(ValueError, match="num_frames is 4, and there are 5 conditioning_frames"):
        rendered(pipeline, conditioning_frames=[pictures(5, 0)] * 2, num_frames=4)


def test_a_controlnet_for_another_unet_is_refused(folder: Path, tmp_path: Path) -> None:
    other = UNet2DConditionModel.from_pretrained(sdxl_base(tmp_path / "other", cross_attention_dim=32) / "unet")
    ControlNetModel.from_unet(other).save_pretrained(tmp_path / "net")
    with pytest.raises(VariantLoadError, match="cross_attention_dim is 32, and that of the UNet is 64"):
        with_controlnet(pipeline_of(folder), tmp_path / "net")
    with pytest.raises(VariantLoadError, match=r"gone: no config.json in it"):
        with_controlnet(pipeline_of(folder), tmp_path / "gone")


# --- What is refused ---------------------------------------------------------------------------------------------


def broken(source: Path, place: Path, **config: Any) -> Path:
    """A copy of a checkpoint whose UNet says something else."""
    shutil.copytree(source, place)
    path = place / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return place


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"upcast_attention": True}, "upcast_attention = True cannot be converted; available: False"),
        ({"down_block_types": ["DownBlock3D", "OddBlock"]}, "down_block_types has 'OddBlock'; available: DownBlock"),
        ({"block_out_channels": [32, 72]}, "block_out_channels has 72, which temporal layers with 8 heads"),
        ({"cross_attention_dim": 32}, r"to_k.weight is \[64, 64\]; by .*config.json it is \[64, 32\]"),
        ({"layers_per_block": 2}, r"the tensor down_blocks.0.\S*1.\S* is missing"),
        ({"time_cond_proj_dim": 8}, "the tensor time_embedding.cond_proj.weight is missing"),
    ],
    ids=str,
)
def test_a_unet_that_is_not_what_its_configuration_says_is_refused(
    source: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(VariantLoadError, match=message):
        convert(broken(source, tmp_path / "ckpt", **config), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt"]


def changed(source: Path, place: Path, drop: str = "", **tensors: Tensor) -> Path:
    """A copy of a checkpoint with other tensors."""
    path = broken(source, place) / "unet" / "diffusion_pytorch_model.safetensors"
    kept = {name: value.clone() for name, value in load_file(path).items() if name != drop}
    save_file(kept | tensors, path)
    return place


TABLE = "up_blocks.0.temporal_attentions.1.transformer_blocks.0.attention_blocks.{}.pos_encoder.positional_encoding"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"drop": "up_blocks.0.temporal_attentions.0.transformer_blocks.0.ff_norm.weight"},
            "ff_norm.weight is missing",
        ),
        ({"odd": torch.zeros(1)}, "odd is a tensor of no layer"),
        ({TABLE.format(1): torch.zeros(1, 24, 64)}, r"attention_blocks.1.pos_encoder.\S+ is another table than"),
        ({TABLE.format(i): torch.zeros(1, 32, 64) for i in (0, 1)}, "of one length are wanted: .* of 24 .* of 32"),
    ],
)
def test_a_tensor_too_few_too_many_or_odd_is_named(
    source: Path, tmp_path: Path, tensors: dict[str, Any], message: str
) -> None:
    with pytest.raises(VariantLoadError, match=message):
        convert(changed(source, tmp_path / "ckpt", **tensors), tmp_path / "out")


def test_tensors_of_layers_that_never_were_are_no_hotshot(source: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not Hotshot-XL: its unet/ is a UNet2DConditionModel, not .*; available"):
        convert(base, tmp_path / "out")
    place = broken(source, tmp_path / "ckpt")
    path = place / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if "temporal" not in name}, path)
    with pytest.raises(ConfigError, match="has no temporal_attentions"):
        convert(place, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ConfigError, match=r"is not Hotshot-XL: it has no unet/config.json .*; available: a download of"
    ):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ConfigError, match="gone is no folder"):
        convert(tmp_path / "gone", tmp_path / "out")


def test_a_converted_folder_is_told_to_be_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is converted already"):
        convert(folder, tmp_path / "out")


def test_half_a_file_and_a_component_that_is_missing_are_named(source: Path, tmp_path: Path) -> None:
    place = broken(source, tmp_path / "ckpt")
    path = place / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        VariantLoadError, match="diffusion_pytorch_model.safetensors: no safetensors file, or not whole"
    ):
        convert(place, tmp_path / "out")
    path.unlink()
    with pytest.raises(VariantLoadError, match="not there; the folder has: config.json"):
        convert(place, tmp_path / "out")
    other = broken(source, tmp_path / "other")
    (other / "vae" / "config.json").unlink()
    (other / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (other / "vae").rmdir()
    with pytest.raises(ConfigError, match=r"vae/ is missing, .*available: the whole checkpoint, or --base"):
        convert(other, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt", "other"]


def test_shards_are_read_by_their_index(source: Path, tmp_path: Path) -> None:
    place = broken(source, tmp_path / "ckpt")
    whole = place / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    parts = {name: dict(list(tensors.items())[index::2]) for index, name in enumerate(names)}
    for name, part in parts.items():
        save_file(part, whole.with_name(name))
    index = {"weight_map": {tensor: name for name, part in parts.items() for tensor in part}}
    whole.with_name(f"{whole.name}.index.json").write_text(json.dumps(index))
    made = load_file(convert(place, tmp_path / "out").folder / "unet" / whole.name)
    assert torch.equal(made["conv_in.weight"], tensors["conv_in.weight"])


def test_what_is_there_is_kept_unless_told_otherwise(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    convert(source, out)  # into an empty folder
    (out / "mine.txt").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"--out: .* is not empty \(mine.txt\); available: --overwrite, another folder"
    ):
        convert(source, out)
    assert (out / "mine.txt").exists()
    convert(source, out, overwrite=True)
    assert not (out / "mine.txt").exists()
    with pytest.raises(ConfigError, match="which is only read"):
        convert(source, source / "unet")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        convert(source, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


# --- The original's own numbers ----------------------------------------------------------------------------------


def reference_of(folder: Path, source: Path, unet: Original) -> Path:
    """A folder as `benchmarks.hotshot_parity` wants it, with one call of the UNet."""
    shutil.copytree(source, folder / "ckpt")
    given = inputs(2, 4, 4, 6, seed=2)
    parts = {"x": "clips", "t": "timestep", "e": "text", "te": "pooled", "ti": "time_ids"}
    tensors = {f"call.{short}": given[name] for short, name in parts.items()}
    save_file({**tensors, "call.y": unet(**given).contiguous()}, folder / "ref.safetensors")
    return folder


def test_the_comparison_sees_what_differs(source: Path, unet: Original, tmp_path: Path) -> None:
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    told = tmp_path / "told.json"
    assert parity([str(reference_of(tmp_path / "same", source, unet)), "--json", str(told)]) == 0
    assert json.loads(told.read_text())["largest_difference"]["call"] <= GOAL
    assert parity([str(reference_of(tmp_path / "other", source, original(1))), "--json", str(told)]) == 1
    assert parity([str(tmp_path), "--json", str(told)]) == 2


@pytest.mark.skipif(REFERENCE is None, reason="RUSHES_HOTSHOT_REF names no folder with the original's outputs")
def test_the_originals_own_outputs_come_out(tmp_path: Path) -> None:
    assert REFERENCE is not None
    assert parity([REFERENCE, "--json", str(tmp_path / "told.json")]) == 0


@pytest.mark.skipif(REFERENCE is None, reason="RUSHES_HOTSHOT_REF names no folder with the original's outputs")
def test_the_stand_in_of_these_tests_is_the_original() -> None:
    assert REFERENCE is not None
    place = Path(REFERENCE)
    config = json.loads((place / "ckpt" / "unet" / "config.json").read_text())
    assert config["cross_attention_dim"] == TEXT
    unet = Original({**CONFIG, **config}).eval()
    unet.load_state_dict(load_file(place / "ckpt" / "unet" / "diffusion_pytorch_model.safetensors"))
    reference = load_file(place / "ref.safetensors")
    for case in ("a", "b", "c"):
        given = [reference[f"{case}.{part}"] for part in ("x", "t", "e", "te", "ti")]
        with torch.no_grad():
            assert difference(unet(*given), reference[f"{case}.y"]) <= GOAL
