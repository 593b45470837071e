"""Train the embedded denoiser: a small `LTXVideoTransformer3DModel` and its text encoder, jointly, by flow
matching.

The loss is the velocity regression of Lipman et al. (2023) on straight paths x_s = (1 - s) x + s noise, with
the noise levels shifted as in Esser et al. (2024). A share of the batches keeps the first latent frame clean
and gives every token its own timestep, which is how LTX continues a given image.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from models.training.captions import caption
from models.training.drawing import FPS, MOTIONS
from models.training.ema import Average
from models.training.latents import SHARES, Encoded, LatentPool
from models.training.text import build_text_encoder, build_tokenizer
from models.training.vae import rate

TRAIN_TIMESTEPS = 1000


class DenoiserConfig(BaseModel):
    """Sizes and schedule of one denoiser training; the defaults are the shipped recipe."""

    model_config = ConfigDict(frozen=True)

    layers: int = 6
    heads: int = 4
    head_dim: int = 48
    text_dim: int = 96
    steps: int = 5200
    batch: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    shift: float = 3.0
    prompt_drop: float = 0.1
    first_frame_share: float = 0.12
    pairs: float = 0.0
    shares: tuple[float, float, float] = SHARES
    motions: tuple[str, ...] = MOTIONS
    speeds: tuple[str, ...] = ("medium", "medium", "slow", "fast")
    pool: int = 4_000
    pool_start: int = 1_000
    pool_add_every: int = 1
    pool_add: int = 8
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    checkpoint_every_s: float = 240.0


@dataclass(frozen=True)
class Denoiser:
    """What is trained together, and the tokenizer that both stand on."""

    transformer: LTXVideoTransformer3DModel
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerFast

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """All trained parameters."""
        return [*self.transformer.parameters(), *self.text_encoder.parameters()]


def build(config: DenoiserConfig, latent_channels: int) -> Denoiser:
    """The untrained model, seeded."""
    tokenizer = build_tokenizer()
    text_encoder = build_text_encoder(len(tokenizer), config.seed, config.text_dim)
    torch.manual_seed(config.seed + 1)
    width = config.heads * config.head_dim
    transformer = LTXVideoTransformer3DModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        cross_attention_dim=width,
        num_layers=config.layers,
        caption_channels=config.text_dim,
    )
    return Denoiser(transformer, text_encoder, tokenizer)


def shifted(uniform: Tensor, shift: float) -> Tensor:
    """Noise levels in (0, 1), moved towards noise by `shift` (Esser et al., 2024, eq. 23)."""
    return shift * uniform / (1 + (shift - 1) * uniform)


def rope_scale(vae_ratio: tuple[int, int], fps: float) -> tuple[float, float, float]:
    """What `LTXPipeline` multiplies latent positions by: seconds a latent frame, pixels a latent cell."""
    return vae_ratio[0] / fps, float(vae_ratio[1]), float(vae_ratio[1])


def encode_prompts(model: Denoiser, prompts: list[str], max_length: int) -> tuple[Tensor, Tensor]:
    """Embeddings (batch, max_length, width) and mask, as `LTXPipeline` makes them: its encoder sees the padding."""
    tokens = model.tokenizer(prompts, padding="max_length", truncation=True, max_length=max_length, return_tensors="pt")
    device = model.text_encoder.device
    return model.text_encoder(tokens.input_ids.to(device))[0], tokens.attention_mask.to(device)


def shape_weight(clean: Tensor) -> Tensor:
    """Loss weights (batch, tokens, 1) of mean 1: tokens with detail in them, hence with a shape, count thrice.

    Four tokens of five are bare background, which is learned in no time.
    """
    detail = clean[..., clean.shape[-1] // 8 :].pow(2).mean(dim=-1, keepdim=True)
    weight = 1 + 2 * (detail > 0.1).to(clean.dtype)
    return weight / weight.mean()


def flow_loss(
    model: Denoiser, latents: Tensor, prompts: list[str], shift: float, *, keep_first: bool, max_length: int
) -> Tensor:
    """Mean squared velocity error over a batch of normalised latents (batch, channels, frames, height, width)."""
    embeds, mask = encode_prompts(model, prompts, max_length)
    batch, _, frames, height, width = latents.shape
    clean = latents.flatten(2).transpose(1, 2)
    noise = torch.randn_like(clean)
    sigma = shifted(torch.rand(batch, 1, device=latents.device), shift)
    first = height * width
    level = sigma
    if keep_first:
        level = sigma.repeat(1, frames * first)
        level[:, :first] = 0
    made = model.transformer(
        (1 - level[..., None]) * clean + level[..., None] * noise,
        embeds,
        level * TRAIN_TIMESTEPS if keep_first else sigma[:, 0] * TRAIN_TIMESTEPS,
        mask,
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=rope_scale((4, 16), FPS),
        return_dict=False,
    )[0]
    error = (made.float() - (noise - clean)).pow(2) * shape_weight(clean)
    return error[:, first:].mean() if keep_first else error.mean()


def prompts_for(rng: np.random.Generator, clips: list[Encoded], drop: float) -> list[str]:
    """A fresh sentence for each clip, and the empty one for a share of them (classifier-free guidance)."""
    return ["" if rng.random() < drop else caption(rng, clip.scene) for clip in clips]


def train(config: DenoiserConfig, vae: AutoencoderKLLTXVideo, out: Path, *, resume: bool = False) -> Denoiser:
    """Train on drawn clips; returns the averaged weights. `out/state.pt` resumes, `out/log.jsonl` logs."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    vae = vae.to(device).eval()
    model = build(config, vae.config.latent_channels)
    model.transformer.to(device).train()
    model.text_encoder.to(device).train()
    averages = (Average(model.transformer), Average(model.text_encoder))
    optimiser = torch.optim.AdamW(model.parameters, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    first = 0
    if resume and (out / "state.pt").exists():
        state = torch.load(out / "state.pt", map_location=device, weights_only=True)
        model.transformer.load_state_dict(state["transformer"])
        model.text_encoder.load_state_dict(state["text_encoder"])
        for average, weights in zip(averages, state["averages"], strict=True):
            average.load(weights)
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["step"])
    rng = np.random.default_rng([config.seed, first])
    torch.manual_seed(config.seed * 1_000_003 + first)
    pool = LatentPool(
        vae, rng, config.pool, config.pairs, shares=config.shares, motions=config.motions, speeds=config.speeds
    )
    pool.fill(config.pool_start)
    log = (out / "log.jsonl").open("a")
    started = saved = time.monotonic()
    total = 0.0
    for step in range(first, config.steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, config.steps, config.learning_rate, config.warmup_steps)
        if step % config.pool_add_every == 0:
            pool.add(config.pool_add)
        clips = pool.batch(config.batch)
        latents = torch.stack([clip.latents for clip in clips]).to(device).float()
        keep_first = bool(rng.random() < config.first_frame_share)
        max_length = int(rng.choice([32, 48, 64, 128], p=[0.3, 0.3, 0.2, 0.2]))
        prompts = prompts_for(rng, clips, config.prompt_drop)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = flow_loss(model, latents, prompts, config.shift, keep_first=keep_first, max_length=max_length)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters, 1.0)
        optimiser.step()
        averages[0].update(model.transformer, step)
        averages[1].update(model.text_encoder, step)
        total += float(loss.detach())
        last = step + 1 == config.steps
        if (step + 1) % 50 == 0 or last:
            line = {"step": step + 1, "loss": round(total / 50, 5), "clips": len(pool),
                    "elapsed_s": round(time.monotonic() - started, 1)}  # fmt: skip
            log.write(json.dumps(line) + "\n")
            log.flush()
            total = 0.0
        if time.monotonic() - saved > config.checkpoint_every_s or last:
            saved = time.monotonic()
            state = {
                "transformer": model.transformer.state_dict(),
                "text_encoder": model.text_encoder.state_dict(),
                "averages": [average.weights for average in averages],
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
            }
            torch.save(state, out / "state.tmp")
            (out / "state.tmp").replace(out / "state.pt")
    return averaged(config, vae.config.latent_channels, out / "state.pt")


def averaged(config: DenoiserConfig, latent_channels: int, state_path: Path) -> Denoiser:
    """The averaged weights of a checkpoint, ready for inference."""
    state = torch.load(state_path, map_location="cpu", weights_only=True)
    model = build(config, latent_channels)
    model.transformer.load_state_dict(state["averages"][0])
    model.text_encoder.load_state_dict(state["averages"][1])
    model.transformer.eval()
    model.text_encoder.eval()
    return model
