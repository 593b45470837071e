"""Distil guidance and most of the steps into a LoRA: the turbo variant.

Piecewise rectified flow (Yan et al., "PeRFlow", 2024): the path from noise to clip is cut where the few-step
sampler will stand. From a noised clip at the start of a piece the guided teacher walks to its end in small
steps; the student learns to get there in one, without guidance (as in Meng et al., "On distillation of guided
diffusion models", 2023).
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import LTXPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from models.training.denoiser import (
    TRAIN_TIMESTEPS,
    Denoiser,
    encode_prompts,
    prompts_for,
    shifted,
)
from models.training.latents import LatentPool
from models.training.numerics import rope_scale
from models.training.vae import rate

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")


class DistilConfig(BaseModel):
    """The schedule of one distillation; the defaults are the shipped recipe."""

    model_config = ConfigDict(frozen=True)

    student_steps: int = 4
    substeps: int = 4
    guidance: float = 3.0
    shift: float = 3.0
    rank: int = 32
    steps: int = 400
    batch: int = 8
    learning_rate: float = 5e-4
    warmup_steps: int = 20
    pool: int = 600
    seed: int = 0
    threads: int = 1
    device: str = "cpu"


def knots(steps: int, shift: float) -> list[float]:
    """The noise levels where an Euler sampler of that many steps stands, from 1 to 0."""
    return [*shifted(torch.linspace(1, 1 / steps, steps), shift).tolist(), 0.0]


@torch.no_grad()
def teach(predict: "Predictor", start: Tensor, high: Tensor, low: Tensor, guidance: float, substeps: int) -> Tensor:
    """The mean velocity (batch, tokens, channels) of the guided teacher's walk from level `high` to `low` (batch,)."""
    x = start
    for i in range(substeps):
        here = high + (low - high) * i / substeps
        told, untold = predict(torch.cat([x, x]), torch.cat([here, here]), guided=True).chunk(2)
        x = x + ((low - high) / substeps)[:, None, None] * (untold + guidance * (told - untold))
    return (start - x) / (high - low)[:, None, None]


class Predictor:
    """The denoiser with one batch's prompts and shape bound to it."""

    def __init__(self, model: Denoiser, prompts: list[str], size: tuple[int, int, int]) -> None:
        with torch.no_grad():
            self._told = encode_prompts(model, prompts, 48)
            self._untold = encode_prompts(model, [""] * len(prompts), 48)
        self._model = model
        self._size = size

    def __call__(self, x: Tensor, level: Tensor, *, guided: bool) -> Tensor:
        """Velocity at `x` (batch, tokens, channels); with `guided`, the second half of the batch has no prompt."""
        embeds, mask = self._told
        if guided:
            embeds = torch.cat([embeds, self._untold[0]])
            mask = torch.cat([mask, self._untold[1]])
        frames, height, width = self._size
        made: Tensor = self._model.transformer(
            x, embeds, level * TRAIN_TIMESTEPS, mask, num_frames=frames, height=height, width=width,
            rope_interpolation_scale=rope_scale(), return_dict=False,
        )[0]  # fmt: skip
        return (x - made) / level[:, None, None]  # it predicts the clean clip, which lies at level 0 of the same line


def distil(config: DistilConfig, pipeline: LTXPipeline, out: Path, log_path: Path) -> None:
    """Train a LoRA over `pipeline` and save it in `out` for `load_lora_weights`; the pipeline keeps the adapter."""
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    model = Denoiser(pipeline.transformer.to(device), pipeline.text_encoder.to(device), pipeline.tokenizer)
    vae = pipeline.vae.to(device)
    for module in (model.transformer, model.text_encoder, vae):
        module.requires_grad_(False)
    torch.manual_seed(config.seed)
    model.transformer.add_adapter(
        LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=list(TARGETS), init_lora_weights=True),
        "turbo",
    )
    trained = [p for p in model.transformer.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    rng = np.random.default_rng([config.seed, 9])
    pool = LatentPool(vae, rng, config.pool, 0.03)
    pool.fill(config.pool)
    levels = torch.tensor(knots(config.student_steps, config.shift), device=device)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    started, total = time.monotonic(), 0.0
    with log_path.open("w") as log:
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = rate(step, config.steps, config.learning_rate, config.warmup_steps)
            clips = pool.batch(config.batch)
            latents = torch.stack([clip.latents for clip in clips]).to(device).float()
            size = (latents.shape[2], latents.shape[3], latents.shape[4])
            clean = latents.flatten(2).transpose(1, 2)
            piece = torch.arange(config.batch, device=device) % config.student_steps
            high, low = levels[piece], levels[piece + 1]
            noisy = (1 - high)[:, None, None] * clean + high[:, None, None] * torch.randn_like(clean)
            predict = Predictor(model, prompts_for(rng, clips, 0.0), size)
            model.transformer.disable_adapters()
            target = teach(predict, noisy, high, low, config.guidance, config.substeps)
            model.transformer.enable_adapters()
            loss = (predict(noisy, high, guided=False) - target).pow(2).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            total += float(loss.detach())
            if (step + 1) % 20 == 0:
                line = {
                    "step": step + 1,
                    "loss": round(total / 20, 5),
                    "elapsed_s": round(time.monotonic() - started, 1),
                }
                log.write(json.dumps(line) + "\n")
                log.flush()
                total = 0.0
                save_lora(pipeline, out)
    save_lora(pipeline, out)


def save_lora(pipeline: LTXPipeline, out: Path) -> None:
    """The adapter's weights in half precision, in the layout of `load_lora_weights`."""
    layers = {
        k: v.half().cpu().contiguous()
        for k, v in get_peft_model_state_dict(pipeline.transformer, adapter_name="turbo").items()
    }
    LTXPipeline.save_lora_weights(out, transformer_lora_layers=layers)
