"""Train the embedded VAE: an `AutoencoderKLLTXVideo` that divides time by four and the plane by sixteen.

It starts as the best linear code (`blocks.py`). The encoder stays that; the decoder is trained to do better
than a linear one can, and to forgive the denoiser's small errors, by noise on the latents. Since the latents
are settled from the start, decoder and denoiser can be trained side by side. Loss: L1 and mean square,
weighted towards the moving region, + L1 of gradients.
"""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLLTXVideo
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from models.training import blocks
from models.training.drawing import CANVASES, draw, sample
from models.training.ema import Average
from models.training.numerics import CELL_FRAMES, CELL_PX

LARGEST = 4.0  # deviation of a block's value, in units of a pixel's in [-1, 1] times the pixels of a block
SCALE = 1.5  # what that is divided by, for latents of a deviation of about one


class VaeConfig(BaseModel):
    """Sizes and schedule of one VAE training; the defaults are the shipped recipe."""

    model_config = ConfigDict(frozen=True)

    width: int = 136
    encoder_width: int = 72
    latent_channels: int = 32
    patch_values: int = 16
    cube_values: int = 66
    fitted_clips: int = 400
    steps: int = 0
    """Of decoder training, which is to sharpen the edges. With none, the decoder is the linear one, as shipped."""
    minutes: float | None = None
    """Wall-clock budget: the schedule then ends when the time does, whatever the steps."""
    batch: int = 4
    learning_rate: float = 4e-4
    warmup_steps: int = 100
    moving_weight: float = 3.0
    edge_weight: float = 1.0
    latent_noise: float = 0.25
    pairs: float = 0.15
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    checkpoint_every_s: float = 120.0


def build(config: VaeConfig) -> AutoencoderKLLTXVideo:
    """The untrained model, seeded: random weights, not yet the linear code."""
    torch.manual_seed(config.seed)
    return AutoencoderKLLTXVideo(
        latent_channels=config.latent_channels,
        block_out_channels=(config.encoder_width, config.encoder_width),
        down_block_types=("LTXVideoDownBlock3D", "LTXVideoDownBlock3D"),
        decoder_block_out_channels=(config.width // 2, config.width),
        layers_per_block=(0, 0, 0),
        decoder_layers_per_block=(1, 1, 0),
        spatio_temporal_scaling=(True, True),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False, False, False),
        downsample_type=("conv", "conv"),
        upsample_residual=(False, False),
        upsample_factor=(2, 2),
        patch_size=blocks.PATCH,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
        spatial_compression_ratio=CELL_PX,
        temporal_compression_ratio=CELL_FRAMES,
    )


def start(config: VaeConfig) -> AutoencoderKLLTXVideo:
    """The model as the linear code of freshly drawn clips, its latents normalised."""
    vae = build(config)
    rng = np.random.default_rng([config.seed, 3])
    clips = [draw(sample(rng, pairs=config.pairs)) for _ in range(config.fitted_clips)]
    code = blocks.fit(to_model_range(np.stack(clips)), config.patch_values, config.cube_values, config.latent_channels)
    blocks.write(code, vae)
    mean, std = measure_latents(vae)
    # Not whitened: coarse values stay large, so that they come first out of the noise, and place and motion with
    # them. Only the few that carry the background, the same in every token, are held down to `LARGEST`.
    vae.latents_mean.copy_(mean)
    vae.latents_std.copy_(std * SCALE / code.blocks.deviation.clamp_max(LARGEST))
    return vae


def to_model_range(frames: np.ndarray) -> Tensor:
    """(batch, frames, height, width, 3) uint8 → (batch, 3, frames, height, width) float in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1.0)


def batches(rng: np.random.Generator, batch: int, pairs: float) -> Iterator[Tensor]:
    """Endless batches of fresh clips, three of four on the square canvas."""
    while True:
        canvas = CANVASES[int(rng.choice(3, p=[0.76, 0.12, 0.12]))]
        clips = [draw(sample(rng, width=canvas[0], height=canvas[1], pairs=pairs)) for _ in range(batch)]
        yield to_model_range(np.stack(clips))


def rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    return peak * rate_share(step, min(1.0, step / max(1, steps)), warmup)


def rate_share(step: int, done: float, warmup: int) -> float:
    """The same as a share of the peak, `done` being the share of the training that is over."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def psnr_db(target: Tensor, made: Tensor) -> float:
    """Peak signal to noise of clips in [-1, 1], averaged over clips, in dB."""
    error = (target - made.clamp(-1, 1)).pow(2).flatten(1).mean(1)
    return float((10 * torch.log10(4 / error.clamp_min(1e-10))).mean())


@torch.no_grad()
def evaluate(vae: AutoencoderKLLTXVideo, clips: int = 16, seed: int = 10_007) -> tuple[float, float]:
    """PSNR in dB on fresh square clips: first frames, whole clips."""
    rng = np.random.default_rng(seed)
    x = to_model_range(np.stack([draw(sample(rng)) for _ in range(clips)])).to(vae.device)
    made = vae.decode(vae.encode(x).latent_dist.mean).sample
    return psnr_db(x[:, :, :1], made[:, :, :1]), psnr_db(x, made)


@torch.no_grad()
def measure_latents(vae: AutoencoderKLLTXVideo, clips: int = 256, seed: int = 20_011) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation of the latents of fresh clips."""
    stream = batches(np.random.default_rng(seed), 16, 0.1)
    means = [blocks.encode(vae, next(stream).to(vae.device)) for _ in range(max(1, clips // 16))]
    flat = torch.cat([m.transpose(0, 1).flatten(1) for m in means], dim=1)
    return flat.mean(1), flat.std(1)


def reconstruction_loss(target: Tensor, made: Tensor, moving_weight: float, edge_weight: float) -> Tensor:
    """L1 and mean square, heavier where a pixel differs from the clip's corners, plus L1 of the image gradients.

    The corners stand for the background: most of a clip is background, and would otherwise be most of the loss.
    """
    height, width = target.shape[-2:]
    corners = target[..., :: height - 1, :: width - 1].flatten(2)
    background = corners.median(dim=2).values[..., None, None, None]
    weight = 1 + moving_weight * ((target - background).abs().amax(dim=1, keepdim=True) > 0.1).to(target.dtype)
    error = target - made
    loss = (weight * (error.abs() + error.pow(2))).sum() / (weight.sum() * target.shape[1])
    for axis in (-1, -2):
        loss = loss + edge_weight * F.l1_loss(made.diff(dim=axis), target.diff(dim=axis))
    return loss


def train(config: VaeConfig, out: Path, *, resume: bool = False) -> AutoencoderKLLTXVideo:
    """Train, save the averaged weights as a diffusers folder in `out/vae`, and return them.

    `out/state.pt` makes it resumable; `out/log.jsonl` gets one line per 50 steps and per checkpoint.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    state_path = out / "state.pt"
    first = 0
    if resume and state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        vae = build(config).to(device)
        vae.load_state_dict(state["model"])
        average = Average(vae)
        average.load(state["average"])
        first, spent = int(state["step"]), float(state["elapsed_s"])
    else:
        state, spent = None, 0.0
        vae = start(config).to(device)
        average = Average(vae)
    vae.encoder.requires_grad_(False)
    optimiser = torch.optim.AdamW(
        vae.decoder.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    if state is not None:
        optimiser.load_state_dict(state["optimiser"])
    # Reseeded by the first step, so that a resumed run does not see the same clips again.
    stream = batches(np.random.default_rng([config.seed, first]), config.batch, config.pairs)
    torch.manual_seed(config.seed * 1_000_003 + first)
    started = saved = time.monotonic()
    total = 0.0
    with (out / "log.jsonl").open("a") as log:
        if first == 0:
            still_db, clip_db = evaluate(vae)
            _note(log, step=0, still_psnr_db=still_db, clip_psnr_db=clip_db)
        step, last = first, config.minutes is None and first >= config.steps
        while not last:
            elapsed = spent + time.monotonic() - started
            done = step / config.steps if config.minutes is None else elapsed / 60 / config.minutes
            last = step + 1 >= config.steps if config.minutes is None else done >= 1
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * rate_share(step, min(1.0, done), config.warmup_steps)
            clips = next(stream).to(device)
            with torch.no_grad():
                mean = blocks.encode(vae, clips)
            noise = config.latent_noise * torch.rand(len(mean), 1, 1, 1, 1, device=device) * torch.randn_like(mean)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                made = vae.decode(mean + noise).sample
            loss = reconstruction_loss(clips, made.float(), config.moving_weight, config.edge_weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
            optimiser.step()
            average.update(vae, step)
            total += float(loss.detach())
            step += 1
            if step % 50 == 0 or last:
                _note(log, step=step, loss=total / 50, elapsed_s=elapsed)
                total = 0.0
            if time.monotonic() - saved > config.checkpoint_every_s or last:
                saved = time.monotonic()
                torch.save({"model": vae.state_dict(), "average": average.weights, "optimiser": optimiser.state_dict(),
                            "step": step, "elapsed_s": elapsed}, out / "state.tmp")  # fmt: skip
                (out / "state.tmp").replace(state_path)
                still_db, clip_db = evaluate(average.applied(build(config).to(device)).eval())
                _note(log, step=step, still_psnr_db=still_db, clip_psnr_db=clip_db)
    final = average.applied(build(config).to(device)).eval()
    final.save_pretrained(out / "vae")
    return final


def _note(log: TextIO, **values: float) -> None:
    log.write(json.dumps({name: round(value, 5) for name, value in values.items()}) + "\n")
    log.flush()
