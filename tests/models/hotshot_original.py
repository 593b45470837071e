"""Hotshot-XL as its authors built it, in small and in plain torch: what the converted UNet is compared with.

Written from the description of the original (hotshotco/Hotshot-XL, `hotshot_xl/models/`), not from diffusers: clips go
through it as (batch, channels, frames, height, width), and its weights have the names of the hub's checkpoints.
`checkpoint` writes a whole one with random weights.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from training.tiny_text import CLIP_VOCABULARY, clip_text_encoder, clip_tokenizer

TEXT, POOLED, TIME_IDS, ID_WIDTH = 64, 32, 6, 8
CONFIG: dict[str, Any] = {
    "_class_name": "UNet3DConditionModel",
    "_diffusers_version": "0.21.4",
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": ID_WIDTH,
    "attention_head_dim": [2, 4],
    "block_out_channels": [32, 64],
    "cross_attention_dim": TEXT,
    "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock3DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_attention_heads": None,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": POOLED + TIME_IDS * ID_WIDTH,
    "resnet_time_scale_shift": "default",
    "sample_size": 8,
    "transformer_layers_per_block": [1, 2],
    "up_block_types": ["CrossAttnUpBlock3D", "UpBlock3D"],
    "upcast_attention": False,
    "use_linear_projection": True,
}


def frame_by_frame(layer: Any, clips: Tensor, *args: Any) -> Tensor:
    """What a layer for images makes of every frame."""
    made = layer(clips.transpose(1, 2).flatten(0, 1), *args)
    return made.unflatten(0, (len(clips), -1)).transpose(1, 2)


def sinusoid(value: Tensor, width: int) -> Tensor:
    rates = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    angles = value.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Embedding(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, out), nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class Resnet(nn.Module):
    """Its norms see whole clips."""

    def __init__(self, width: int, out: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, width, eps=1e-5), nn.GroupNorm(groups, out, eps=1e-5)
        self.conv1, self.conv2 = nn.Conv2d(width, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, out)
        if width != out:
            self.conv_shortcut = nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = frame_by_frame(self.conv1, F.silu(self.norm1(x)))
        y = y + self.time_emb_proj(F.silu(time))[:, :, None, None, None]
        y = frame_by_frame(self.conv2, F.silu(self.norm2(y)))
        return y + (frame_by_frame(self.conv_shortcut, x) if hasattr(self, "conv_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, width: int, text: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = nn.Linear(text, width, bias=False), nn.Linear(text, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(text), self.to_v(text))
        )
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1)
        return self.to_out[0]((weights @ v).transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Gated(width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class SpatialBlock(nn.Module):
    def __init__(self, width: int, text: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1, self.attn2 = Attention(width, width, heads), Attention(width, text, heads)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), text)
        return x + self.ff(self.norm3(x))


class Spatial(nn.Module):
    """A transformer over the pixels of one frame, (frames, channels, height, width)."""

    def __init__(self, width: int, text: int, heads: int, layers: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(width, text, heads) for _ in range(layers)])

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        y = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            y = block(y, text)
        return x + self.proj_out(y).transpose(1, 2).unflatten(2, x.shape[2:])


class Positions(nn.Module):
    def __init__(self, width: int, frames: int = 24) -> None:
        super().__init__()
        rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        angles = torch.arange(frames)[:, None] * rates
        self.register_buffer("positional_encoding", torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[None])


class TemporalAttention(Attention):
    def __init__(self, width: int) -> None:
        super().__init__(width, width, 8)
        self.pos_encoder = Positions(width)


class TemporalBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([TemporalAttention(width) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.ff, self.ff_norm = FeedForward(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            y = norm(x) + attention.pos_encoder.positional_encoding[:, : x.shape[1]]
            x = x + attention(y, y)
        return x + self.ff(self.ff_norm(x))


class Temporal(nn.Module):
    """A transformer over the frames at one place; its norm sees single frames, in 32 groups."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(width)])

    def forward(self, x: Tensor) -> Tensor:
        batch, _, frames, height, width = x.shape
        if frames == 1:
            return x
        y = frame_by_frame(self.norm, x).permute(0, 3, 4, 2, 1).flatten(0, 2)
        y = self.transformer_blocks[0](self.proj_in(y))
        return x + self.proj_out(y).unflatten(0, (batch, height, width)).permute(0, 4, 3, 1, 2)


class Resampler(nn.Module):
    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=stride, padding=1)


class Block(nn.Module):
    """`widths` are the inputs of its residual layers; a block without heads has no spatial attention."""

    def __init__(self, config: dict[str, Any], widths: Sequence[int], out: int, level: int, attends: bool) -> None:
        super().__init__()
        groups, time = config["norm_num_groups"], 4 * config["block_out_channels"][0]
        self.resnets = nn.ModuleList([Resnet(width, out, time, groups) for width in widths])
        self.temporal_attentions = nn.ModuleList([Temporal(out) for _ in widths])
        self.attends = attends
        if attends:
            heads, layers = config["attention_head_dim"][level], config["transformer_layers_per_block"][level]
            self.attentions = nn.ModuleList([Spatial(out, TEXT, heads, layers, groups) for _ in widths])

    def layer(self, index: int, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        x = self.resnets[index](x, time)
        if self.attends:
            x = frame_by_frame(self.attentions[index], x, text)
        return self.temporal_attentions[index](x)


class Middle(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, groups = config["block_out_channels"][-1], config["norm_num_groups"]
        time, heads = 4 * config["block_out_channels"][0], config["attention_head_dim"][-1]
        self.resnets = nn.ModuleList([Resnet(width, width, time, groups) for _ in range(2)])
        layers = config["transformer_layers_per_block"][-1]
        self.attentions = nn.ModuleList([Spatial(width, TEXT, heads, layers, groups)])

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        x = frame_by_frame(self.attentions[0], self.resnets[0](x, time), text)
        return self.resnets[1](x, time)


class Original(nn.Module):
    """The UNet."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        widths, count = config["block_out_channels"], config["layers_per_block"]
        first, levels = widths[0], len(widths)
        self.conv_in = nn.Conv2d(config["in_channels"], first, 3, padding=1)
        self.time_embedding = Embedding(first, 4 * first)
        self.add_embedding = Embedding(config["projection_class_embeddings_input_dim"], 4 * first)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips = [first]
        for level, out in enumerate(widths):
            attends = config["down_block_types"][level].startswith("CrossAttn")
            inputs = [widths[max(level - 1, 0)], *[out] * (count - 1)]
            block = Block(config, inputs, out, level, attends)
            skips += [out] * count
            if level < levels - 1:
                block.downsamplers = nn.ModuleList([Resampler(out, 2)])
                skips.append(out)
            self.down_blocks.append(block)
        self.mid_block = Middle(config)
        before = widths[-1]
        for index, out in enumerate(reversed(widths)):
            attends = config["up_block_types"][index].startswith("CrossAttn")
            inputs = []
            for _ in range(count + 1):
                inputs.append(before + skips.pop())
                before = out
            block = Block(config, inputs, out, levels - 1 - index, attends)
            if index < levels - 1:
                block.upsamplers = nn.ModuleList([Resampler(out, 1)])
            self.up_blocks.append(block)
        self.conv_norm_out = nn.GroupNorm(config["norm_num_groups"], first, eps=1e-5)
        self.conv_out = nn.Conv2d(first, config["out_channels"], 3, padding=1)

    def forward(
        self, clips: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor, time_ids: Tensor,
        down_residuals: Sequence[Tensor] = (), middle_residual: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The noise in `clips` (batch, channels, frames, height, width). Residuals are (batch · frames, …)."""
        frames = clips.shape[2]
        ids = sinusoid(time_ids.flatten(), ID_WIDTH).reshape(len(time_ids), -1)
        time = self.time_embedding(sinusoid(timestep.expand(len(clips)), self.conv_in.out_channels))
        time = time + self.add_embedding(torch.cat([pooled, ids], dim=1))
        text = text.repeat_interleave(frames, dim=0)
        x = frame_by_frame(self.conv_in, clips)
        kept = [x]
        for block in self.down_blocks:
            for index in range(len(block.resnets)):
                kept.append(x := block.layer(index, x, time, text))
            if hasattr(block, "downsamplers"):
                kept.append(x := frame_by_frame(block.downsamplers[0].conv, x))
        for index, residual in enumerate(down_residuals):
            kept[index] = kept[index] + residual.unflatten(0, (-1, frames)).transpose(1, 2)
        x = self.mid_block(x, time, text)
        if middle_residual is not None:
            x = x + middle_residual.unflatten(0, (-1, frames)).transpose(1, 2)
        for block in self.up_blocks:
            for index in range(len(block.resnets)):
                x = block.layer(index, torch.cat([x, kept.pop()], dim=1), time, text)
            if hasattr(block, "upsamplers"):
                x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
                x = frame_by_frame(block.upsamplers[0].conv, x)
        return frame_by_frame(self.conv_out, F.silu(self.conv_norm_out(x)))


def original(seed: int = 0, **changes: Any) -> Original:
    """A random UNet. Every norm scales and shifts, so that one that is mistaken for another shows."""
    torch.manual_seed(seed)
    model = Original({**CONFIG, **changes}).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.add_(0.3 * torch.randn_like(module.weight))
            module.bias.add_(0.3 * torch.randn_like(module.bias))
    return model


def checkpoint(folder: Path, unet: Original, **changes: Any) -> Path:
    """Write a whole checkpoint in the hub's layout, with `unet` in it."""
    from diffusers import AutoencoderKL, DDIMScheduler

    torch.manual_seed(1)
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    save_file(unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.13025,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder / "vae")  # fmt: skip
    clip_text_encoder().save_pretrained(folder / "text_encoder")
    _projecting_text_encoder().save_pretrained(folder / "text_encoder_2")
    for name in ("tokenizer", "tokenizer_2"):
        clip_tokenizer().save_pretrained(folder / name)
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    components = {
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["hotshot_xl.models.unet", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    index = {"_class_name": "HotshotXLPipeline", "_diffusers_version": "0.21.4", "force_zeros_for_empty_prompt": True}
    (folder / "model_index.json").write_text(json.dumps({**index, **components}))
    return folder


def sdxl_base(folder: Path, seed: int = 7, **changes: Any) -> Path:
    """A random SDXL model of the same sizes, as diffusers saves it."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        **{
            "act_fn": "silu",
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": ID_WIDTH,
            "attention_head_dim": (2, 4),
            "block_out_channels": (32, 64),
            "cross_attention_dim": TEXT,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "layers_per_block": 1,
            "projection_class_embeddings_input_dim": POOLED + TIME_IDS * ID_WIDTH,
            "sample_size": 16,
            "transformer_layers_per_block": (1, 2),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "use_linear_projection": True,
            **changes,
        }
    )
    StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.13025,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=clip_text_encoder(),
        text_encoder_2=_projecting_text_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _projecting_text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=CLIP_VOCABULARY,
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=POOLED,
            bos_token_id=512,
            eos_token_id=513,
            pad_token_id=513,
        )
    )
