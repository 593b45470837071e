"""Train the decoder of the directed model's VAE on windows of drawn clips; the encoder stays as it was fitted.

A convolution does not care where it stands in the plane, so windows of half the canvas teach as much as whole frames.
In time it does: what was decoded before is remembered, and a decoder that never saw more than nine frames leaves ghosts
in later ones. The latents get a little noise, since a denoiser leaves some.
"""

import json
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanDecoder3d
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from training.checkpoints import Checkpoints
from training.directed.codec import FastEncoder, decode
from training.directed.conditions import structure
from training.directed.drawing import draw
from training.directed.muon import Muons
from training.directed.networks import broad
from training.directed.scenes import CANVASES, FRAMES, kind, sample
from training.directed.shots import SHARES
from training.ema import Average
from training.optimisers import rate_share


class DecodingConfig(BaseModel):
    """Schedule of the decoder's training; the defaults are the recipe."""

    model_config = ConfigDict(frozen=True)

    steps: int = 6000
    minutes: float | None = None
    """Wall-clock budget: the schedule then ends when the time does, whatever the steps."""
    batch: int = 6
    window_px: int = 64
    window_frames: int = FRAMES
    noise: float = 0.12
    """Largest deviation of the noise on latents, in the transformer's units; a third of the windows get none."""
    pool: int = 500
    pool_start: int = 64
    add: int = 2
    """Clips drawn afresh each step."""
    matrix_rate: float = 0.02
    rate: float = 2e-3
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    checkpoint_every_s: float = 120.0


def psnr(made: Tensor, true: Tensor) -> float:
    """In dB, of clips in [-1, 1]."""
    return float(10 * torch.log10(4 / F.mse_loss(made.clamp(-1, 1), true)))


def clips_for(rng: np.random.Generator, count: int, device: torch.device) -> Tensor:
    """Clips (count, 3, frames, height, width) in [-1, 1] that a VAE of shots has to know: shots of all kinds on one of
    the canvases, and, one time in eight, the drawings that control them."""
    width, height = CANVASES[int(rng.choice(len(CANVASES), p=SHARES))]
    shots = [sample(rng, kind(rng), width=width, height=height) for _ in range(count)]
    clips = draw([shot.scene for shot in shots], device)
    for i, shot in enumerate(shots):
        if rng.random() < 0.125:
            clips[i] = structure(shot.scene, bool(rng.random() < 0.3), device)
    return clips


def window(rng: np.random.Generator, clip: Tensor, config: DecodingConfig) -> Tensor:
    """A random window of a clip (3, frames, height, width), the livelier of two."""
    best, most = clip, -1.0
    for _ in range(2):
        t = int(rng.integers(0, clip.shape[1] - config.window_frames + 1))
        y, x = (int(rng.integers(0, side - config.window_px + 1)) for side in clip.shape[2:])
        part = clip[:, t : t + config.window_frames, y : y + config.window_px, x : x + config.window_px]
        lively = float(part[:, ::4, ::4, ::4].float().std())
        if lively > most:
            best, most = part, lively
    return best


def channels_last(module: nn.Module) -> None:
    """Lay the weights of convolutions over time and plane out by channels: with few of them, twice as fast on a CPU."""
    for parameter in module.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def loss_of(error: Tensor) -> Tensor:
    """Of a decoded window, in [-1, 1]."""
    return error.abs().mean() + 2 * error.pow(2).mean()


def opened(vae: AutoencoderKLWan) -> WanDecoder3d:
    """The decoder, ready to be trained on windows."""
    vae.requires_grad_(False)
    decoder = vae.decoder.train()
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_("attentions" not in name)  # a window is not a canvas: what looks everywhere stays out
    with torch.no_grad():
        for block in decoder.mid_block.attentions:
            block.proj.weight.zero_()
            block.proj.bias.zero_()
    return decoder


def train(config: DecodingConfig, vae: AutoencoderKLWan, out: Path) -> AutoencoderKLWan:
    """Train `vae.decoder` in place, and return it with the averaged weights; `out/state.pt` resumes, `out/log.jsonl`
    logs."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    decoder = opened(vae.to(device))
    channels_last(decoder)
    trainers = Muons(decoder, rate=config.rate, matrix_rate=config.matrix_rate)
    average = Average(decoder)
    encode = FastEncoder(vae)
    step, spent = 0, 0.0
    checkpoints = Checkpoints(out, config.checkpoint_every_s)
    if (state := checkpoints.read(device)) is not None:
        decoder.load_state_dict(state["decoder"])
        average.load(state["average"])
        trainers.load_state_dict(state["optimisers"])
        step, spent = int(state["step"]), float(state["elapsed_s"])
    rng = np.random.default_rng([config.seed, step])
    torch.manual_seed(config.seed + step)
    pool: deque[Tensor] = deque(maxlen=config.pool)

    def add(count: int) -> None:
        pool.extend(((clips_for(rng, count, device) + 1) * 127.5).round().byte())

    while len(pool) < config.pool_start:
        add(4)
    started = time.monotonic()
    total, seen, last = 0.0, 0, False
    log = (out / "log.jsonl").open("a")
    while not last:
        elapsed = spent + time.monotonic() - started
        done = step / config.steps if config.minutes is None else max(elapsed / 60 / config.minutes, 1e-9)
        last = step + 1 >= config.steps if config.minutes is None else done >= 1
        done = min(1.0, done)
        add(config.add)
        parts = [window(rng, pool[int(rng.integers(0, len(pool)))], config) for _ in range(config.batch)]
        true = torch.stack(parts).float() / 127.5 - 1
        latents = encode.normalised(true)
        noise = config.noise * broad(torch.rand(config.batch, device=device) * 1.5 - 0.5).clamp_min(0)
        made = decode(vae, encode.restored(latents + noise * torch.randn_like(latents)))
        loss = loss_of(made - true)
        trainers.step(loss, rate_share(step, done, 30))
        average.update(decoder, step)
        total, seen, step = total + float(loss.detach()), seen + 1, step + 1
        if step % 25 == 0 or last:
            line = {"step": step, "loss": round(total / seen, 5), "psnr": round(psnr(made.detach(), true), 2)}
            log.write(json.dumps(line | {"elapsed_s": round(elapsed)}) + "\n")
            log.flush()
            total, seen = 0.0, 0
        if checkpoints.due or last:
            checkpoints.keep(
                {
                    "decoder": decoder.state_dict(),
                    "average": average.weights,
                    "optimisers": trainers.state_dict(),
                    "step": step,
                    "elapsed_s": elapsed,
                }
            )
    log.close()
    return averaged(vae, checkpoints.path)


def averaged(vae: AutoencoderKLWan, state: Path) -> AutoencoderKLWan:
    """`vae` with the averaged decoder of a checkpoint, ready for use."""
    vae.decoder.load_state_dict(torch.load(state, map_location="cpu", weights_only=True)["average"])
    return vae.eval()
