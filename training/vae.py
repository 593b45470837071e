"""The embedded VAE: an `AutoencoderKLLTXVideo` that divides time by four and the plane by sixteen.

It is the best linear code of drawn clips (`blocks.py`), written into the network's weights, and nothing is trained.
Training its decoder further was tried for 1,100 steps (L1, mean square and L1 of gradients, on latents with noise): the
loss fell from 0.17 to 0.14, and 51 of 60 drawn clips kept their shape instead of 58. Points of stars went first.
"""

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from training import blocks
from training.drawing import CANVASES, draw, sample
from training.numerics import CELL_FRAMES, CELL_PX

LARGEST = 4.0  # deviation of a block's value, in units of a pixel's in [-1, 1] times the pixels of a block
SCALE = 1.5  # what that is divided by, for latents of a deviation of about one


class VaeConfig(BaseModel):
    """Sizes of the VAE and of what it is fitted to; the defaults are the shipped recipe."""

    model_config = ConfigDict(frozen=True)

    width: int = 136
    encoder_width: int = 72
    latent_channels: int = 32
    patch_values: int = 16
    cube_values: int = 66
    fitted_clips: int = 400
    pairs: float = 0.15
    seed: int = 0


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


def make(config: VaeConfig) -> AutoencoderKLLTXVideo:
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


def _drawn(rng: np.random.Generator, count: int) -> Tensor:
    """Fresh clips of one canvas, three times in four the square one."""
    width, height = CANVASES[int(rng.choice(3, p=[0.76, 0.12, 0.12]))]
    return to_model_range(np.stack([draw(sample(rng, width=width, height=height, pairs=0.1)) for _ in range(count)]))


@torch.no_grad()
def measure_latents(vae: AutoencoderKLLTXVideo, clips: int = 256, seed: int = 20_011) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation of the latents of fresh clips."""
    rng = np.random.default_rng(seed)
    means = [blocks.encode(vae, _drawn(rng, 16)) for _ in range(max(1, clips // 16))]
    flat = torch.cat([m.transpose(0, 1).flatten(1) for m in means], dim=1)
    return flat.mean(1), flat.std(1)
