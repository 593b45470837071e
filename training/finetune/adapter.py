"""What is trained and how it is saved: a LoRA in the layout of `load_lora_weights`, or whole components."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import nn

from training.finetune.config import FinetuneConfig
from training.finetune.families import Family

ADAPTER = "finetune"


def prepare(config: FinetuneConfig, pipeline: Any, family: Family, denoiser: nn.Module) -> list[nn.Parameter]:
    """Freeze everything, add the adapter or thaw the denoiser; returns what is to be trained, in single precision."""
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            component.requires_grad_(False)
    torch.manual_seed(config.seed)
    if config.lora_rank is None:
        chosen = family.target_modules(config.layers)
        for name, parameter in denoiser.named_parameters():
            owner = name.rpartition(".")[0]
            parameter.requires_grad_(config.layers == "all" or any(owner.endswith(target) for target in chosen))
    else:
        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_rank,
            target_modules=family.target_modules(config.layers),
            init_lora_weights="gaussian",
        )
        denoiser.add_adapter(lora, ADAPTER)  # type: ignore[operator]  # diffusers' PeftAdapterMixin
    if config.text_encoder:
        pipeline.text_encoder.requires_grad_(True)
    trained = [p for module in (denoiser, pipeline.text_encoder) for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    return trained


def save(config: FinetuneConfig, pipeline: Any, denoiser: nn.Module, folder: Path) -> Path:
    """Write the adapter (or, with no LoRA, the whole pipeline) and return what loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    if config.lora_rank is None:
        pipeline.save_pretrained(folder, safe_serialization=True)
        return folder
    state = get_peft_model_state_dict(denoiser, adapter_name=ADAPTER)
    layers = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in state.items()}
    part = "unet_lora_layers" if hasattr(pipeline, "unet") else "transformer_lora_layers"
    type(pipeline).save_lora_weights(folder, **{part: layers})
    if config.text_encoder:
        pipeline.text_encoder.save_pretrained(folder / "text_encoder")
    return folder
