"""IP-Adapters with random weights, in the layout in which they are shared."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.tiny_text import clip_vision_encoder

FILE = "models/ip-adapter_tiny.safetensors"
TOKENS = 4


def ip_adapter(folder: Path, unet: Any, *, cross_attention_dim: int | None = None, encoder: bool = True) -> Path:
    """One for `unet`, with a tiny CLIP beside it that reads pictures."""
    torch.manual_seed(5)
    width = cross_attention_dim or unet.config.cross_attention_dim
    clip = clip_vision_encoder()
    tensors = {
        "image_proj.proj.weight": torch.randn(TOKENS * width, clip.config.projection_dim),
        "image_proj.proj.bias": torch.zeros(TOKENS * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    layers = [name for name in unet.attn_processors if name.endswith("attn2.processor") and "motion" not in name]
    for number, name in enumerate(layers):
        inner = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for key in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{key}.weight"] = torch.randn(inner, width)
    (folder / "models").mkdir(parents=True)
    save_file(tensors, folder / FILE)
    if encoder:
        clip.save_pretrained(folder / "models" / "image_encoder")
    return folder


def motion_lora(file: Path, unet: Any, seed: int, *, layers: str = "motion_modules", wide: int = 0) -> Path:
    """A LoRA of `unet`'s layers between frames, its tensors named as in AnimateDiff's published ones."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in unet.named_modules():
        if layers not in name or not name.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")):
            continue
        block, _, last = name.removesuffix(".0").rpartition(".")
        key = f"unet.{block}.processor.{last}_lora"
        tensors[f"{key}.down.weight"] = torch.randn(2, module.in_features + wide, generator=generator)
        tensors[f"{key}.up.weight"] = torch.randn(module.out_features, 2, generator=generator)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return file.parent
