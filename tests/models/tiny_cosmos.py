"""A tiny random Cosmos Transfer 2.5, its ControlNet, and what stands for packages that are not installed for tests."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.controlnets import controlnet_cosmos
from diffusers.models.transformers import transformer_cosmos
from torch.nn.functional import interpolate

from training.tiny import save
from training.tiny_text import byte_tokenizer

BLURRED = 2  # rows of every frame, as if there were a face
_SIZES: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "mlp_ratio": 1,
    "text_embed_dim": 32,
    "adaln_lora_dim": 4,
    "patch_size": (1, 2, 2),
    "max_size": (64, 32, 32),
    "rope_scale": (2.0, 1.0, 1.0),
    "extra_pos_embed_type": None,
}


class CosmosSafetyChecker:
    """The package's class, by what diffusers calls of it. It finds prompts unsafe that say "unsafe", and clips of which
    the last prompt said so ("a clip that turns out bad")."""

    def __init__(self) -> None:
        self._turns_out_bad = False

    def to(self, device: Any, dtype: Any = None) -> None:
        pass

    def check_text_safety(self, prompt: str) -> bool:
        self._turns_out_bad = "turns out bad" in prompt
        return "unsafe" not in prompt

    def check_video_safety(self, frames: np.ndarray) -> np.ndarray | None:
        assert frames.dtype == np.uint8
        if self._turns_out_bad:
            return None
        seen = frames.copy()
        seen[:, :BLURRED] = 0
        return seen


def installed(patch: pytest.MonkeyPatch) -> None:
    """As if `cosmos_guardrail` were there, and of torchvision, which it brings, the one function that is called."""
    package = ModuleType("cosmos_guardrail")
    package.CosmosSafetyChecker = CosmosSafetyChecker  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "cosmos_guardrail", package)
    resize = SimpleNamespace(resize=lambda picture, size, interpolation: interpolate(picture, size, mode=interpolation))
    transforms = SimpleNamespace(functional=resize, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    for network in (controlnet_cosmos, transformer_cosmos):
        if not hasattr(network, "transforms"):
            patch.setattr(network, "transforms", transforms, raising=False)


def controlnet(folder: Path, **changes: Any) -> Path:
    """Nothing of it begins at nothing, and what it is shown is louder than the noise."""
    from diffusers import CosmosControlNetModel

    torch.manual_seed(1)
    sizes = {"n_controlnet_blocks": 2, "in_channels": 18, "latent_channels": 18, "model_channels": 32}
    net = CosmosControlNetModel(**_SIZES | sizes | changes)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.abs().sum():
                torch.nn.init.normal_(parameter, std=0.1)
        net.patch_embed.proj.weight.mul_(100)
    net.save_pretrained(folder)
    return folder


def transfer(folder: Path, controlnet_block_every_n: int | None = 1) -> Path:
    """A Cosmos2_5_TransferPipeline in whose folder there is no ControlNet of ours."""
    from diffusers import (
        AutoencoderKLWan,
        Cosmos2_5_TransferPipeline,
        CosmosControlNetModel,
        CosmosTransformer3DModel,
        UniPCMultistepScheduler,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(128)
    tokenizer.chat_template = "{% for one in messages %}{{ one['content'][0]['text'] }}{% endfor %}"
    text = {
        "vocab_size": 259,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1000000.0},
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    eyes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    small = {"n_controlnet_blocks": 2, "in_channels": 18, "latent_channels": 18, "model_channels": 32}
    pipe = Cosmos2_5_TransferPipeline(
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=eyes)).eval(),
        tokenizer=tokenizer,
        transformer=CosmosTransformer3DModel(
            in_channels=17, out_channels=16, num_layers=2, controlnet_block_every_n=controlnet_block_every_n, **_SIZES
        ),
        vae=AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
        controlnet=CosmosControlNetModel(**_SIZES | small),
        safety_checker=CosmosSafetyChecker(),
    )
    return save(pipe, folder)
