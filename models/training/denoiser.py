"""Train the embedded denoiser: a small `LTXVideoTransformer3DModel` and its text encoder, jointly, by flow
matching.

Paths are straight, x_s = (1 - s) x + s noise (Lipman et al., 2023), with the noise levels shifted as in Esser et
al. (2024). The network predicts the clean clip, not the velocity: a narrow network need not carry the noise of
every channel through (Li & He, "Back to basics: let denoising generative models denoise", 2025). A share of the
batches keeps the first latent frame clean and gives every token its own timestep, which is how LTX continues a
given image. Matrices of the blocks are trained by Muon (Jordan et al., 2024), everything else by AdamW.
"""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from models.training.captions import caption
from models.training.drawing import FPS, MOTIONS
from models.training.ema import Average
from models.training.latents import SHARES, Encoded, LatentPool
from models.training.reading import teach
from models.training.text import build_text_encoder, build_tokenizer
from models.training.vae import rate_share

TRAIN_TIMESTEPS = 1000


class DenoiserConfig(BaseModel):
    """Sizes and schedule of one denoiser training; the defaults are the shipped recipe."""

    model_config = ConfigDict(frozen=True)

    layers: int = 4
    heads: int = 4
    head_dim: int = 48
    text_dim: int = 96
    reading_steps: int = 1200
    """Of the text encoder alone, before the denoiser begins (`reading.py`)."""
    reading_batch: int = 32
    steps: int = 4654
    minutes: float | None = None
    """Wall-clock budget: the schedule then ends when the time does, whatever the steps."""
    batch: int = 16
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 0.02
    warmup_steps: int = 100
    shift: float = 2.0
    prompt_drop: float = 0.1
    first_frame_share: float = 0.08
    pairs: float = 0.0
    shares: tuple[float, float, float] = SHARES
    motions: tuple[str, ...] = MOTIONS
    speeds: tuple[str, ...] = ("medium", "medium", "slow", "fast")
    pool: int = 24_000
    pool_start: int = 3_000
    pool_add_every: int = 2
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


def flow_loss(
    model: Denoiser, latents: Tensor, prompts: list[str], shift: float, *, keep_first: bool, max_length: int
) -> Tensor:
    """Weighted square error of the predicted clip, over normalised latents (batch, channels, frames, height, width).

    The weight, 1 / (s² + 0.05), is that of a velocity error, held back near s = 0.
    """
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
    error = (made.float() - clean).pow(2) / (sigma[..., None].pow(2) + 0.05)
    return error[:, first:].mean() if keep_first else error.mean()


def optimisers(model: Denoiser, config: DenoiserConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer's blocks, AdamW for all else; `peak` of a group is its full rate."""
    matrices = [
        p for n, p in model.transformer.transformer_blocks.named_parameters() if p.ndim == 2 and "table" not in n
    ]
    taken = {id(p) for p in matrices}
    rest = [p for p in model.transformer.parameters() if id(p) not in taken]
    slower = 0.3 * config.learning_rate  # the text encoder knows a lot already
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": list(model.text_encoder.parameters()), "lr": slower}]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
        torch.optim.Muon(matrices, lr=config.matrix_learning_rate, weight_decay=0.0, adjust_lr_fn="original"),
    ]
    for optimiser in made:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return made


def attention_for(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the fused attention is three times slower to train through than the plain one."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


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
    restored = resume and (out / "state.pt").exists()
    log = (out / "log.jsonl").open("a")
    if not restored:
        known = teach(
            model.text_encoder,
            model.tokenizer,
            steps=config.reading_steps,
            batch=config.reading_batch,
            seed=config.seed,
        )
        log.write(json.dumps({"read": {name: round(share, 4) for name, share in known.items()}}) + "\n")
    averages = (Average(model.transformer), Average(model.text_encoder))
    trainers = optimisers(model, config)
    first, spent = 0, 0.0
    if restored:
        state = torch.load(out / "state.pt", map_location=device, weights_only=True)
        model.transformer.load_state_dict(state["transformer"])
        model.text_encoder.load_state_dict(state["text_encoder"])
        for average, weights in zip(averages, state["averages"], strict=True):
            average.load(weights)
        for trainer, kept in zip(trainers, state["optimisers"], strict=True):
            trainer.load_state_dict(kept)
        first, spent = int(state["step"]), float(state["elapsed_s"])
    rng = np.random.default_rng([config.seed, first])
    torch.manual_seed(config.seed * 1_000_003 + first)
    pool = LatentPool(
        vae, rng, config.pool, config.pairs, shares=config.shares, motions=config.motions, speeds=config.speeds
    )
    pool.fill(config.pool_start)
    started = saved = time.monotonic()
    total = 0.0
    step, last = first, False
    while not last:
        elapsed = spent + time.monotonic() - started
        done = step / config.steps if config.minutes is None else max(elapsed / 60 / config.minutes, 1e-9)
        last = step + 1 >= config.steps if config.minutes is None else done >= 1
        share = rate_share(step, min(1.0, done), config.warmup_steps)
        for trainer in trainers:
            for group in trainer.param_groups:
                group["lr"] = share * group["peak"]
        if step % config.pool_add_every == 0:
            pool.add(config.pool_add)
        clips = pool.batch(config.batch)
        latents = torch.stack([clip.latents for clip in clips]).to(device).float()
        keep_first = bool(rng.random() < config.first_frame_share)
        max_length = int(rng.choice([32, 64, 128], p=[0.6, 0.3, 0.1]))
        prompts = prompts_for(rng, clips, config.prompt_drop)
        with torch.autocast(device.type, dtype=torch.bfloat16), attention_for(device):
            loss = flow_loss(model, latents, prompts, config.shift, keep_first=keep_first, max_length=max_length)
        for trainer in trainers:
            trainer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters, 1.0)
        for trainer in trainers:
            trainer.step()
        averages[0].update(model.transformer, step)
        averages[1].update(model.text_encoder, step)
        total += float(loss.detach())
        step += 1
        if step % 50 == 0 or last:
            line = {"step": step, "loss": round(total / 50, 5), "clips": len(pool), "elapsed_s": round(elapsed, 1)}
            log.write(json.dumps(line) + "\n")
            log.flush()
            total = 0.0
        if time.monotonic() - saved > config.checkpoint_every_s or last:
            saved = time.monotonic()
            state = {
                "transformer": model.transformer.state_dict(),
                "text_encoder": model.text_encoder.state_dict(),
                "averages": [average.weights for average in averages],
                "optimisers": [trainer.state_dict() for trainer in trainers],
                "step": step,
                "elapsed_s": elapsed,
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
