"""The best linear code of space-time blocks, and the exact way to write it into `AutoencoderKLLTXVideo`.

Training such an autoencoder from random weights takes a CPU hours to get where principal components are at
once: 28 dB on the drawn clips. So the network starts as that linear code, and training only adds what is not
linear.

The network is not linear in two places, before the last convolution of each half: a norm over channels and a
SiLU. A large constant channel makes the norm a mere scale, and since silu(a) - silu(-a) = a, every value
carried with both signs passes the SiLU unchanged. Residual blocks whose last convolution is zero pass
everything.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn

PATCH = 8  # pixels of a patch, each side; two patches and two frames make a block
_LOUDEST = 0.25  # of the constant channel: at this size the norm is off by 3 %


@dataclass(frozen=True)
class LinearCode:
    """Orthonormal bases: `patches` (count, 192) of single-frame patches, `blocks` (channels, 8 × count) over their
    coefficients in two frames and 2×2 patches, each with the mean it is taken from and the deviations of its values."""

    patch_mean: Tensor
    patches: Tensor
    patch_deviation: Tensor
    block_mean: Tensor
    blocks: Tensor
    block_deviation: Tensor


def to_patches(clips: Tensor) -> Tensor:
    """(batch, 3, frames, height, width) → (batch, 192, frames, height / 8, width / 8), channels in library order."""
    b, c, t, h, w = clips.shape
    x = clips.reshape(b, c, t, 1, h // PATCH, PATCH, w // PATCH, PATCH)
    return x.permute(0, 1, 3, 7, 5, 2, 4, 6).flatten(1, 4)


def _gather(coefficients: Tensor) -> Tensor:
    """(batch, n, frames, h, w) → (blocks, 8 n): frames paired with their successor from the second on, patches 2×2.

    Order within a row: coefficient, then frame, row, column: that of the decoder's channel-to-space step.
    """
    b, n, t, h, w = coefficients.shape
    x = coefficients[:, :, 1:].reshape(b, n, (t - 1) // 2, 2, h // 2, 2, w // 2, 2)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, n * 8)


def _components(rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, leading principal directions (count, width) and the deviations along them."""
    mean = rows.mean(dim=0)
    centred = (rows - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    order = torch.arange(len(values) - 1, len(values) - 1 - count, -1)
    return mean, vectors[:, order].T.float().contiguous(), values[order].clamp_min(1e-8).sqrt().float()


def fit(clips: Tensor, patch_components: int, channels: int) -> LinearCode:
    """Principal components of clips (batch, 3, frames, height, width) in [-1, 1]; frames odd."""
    patches = to_patches(clips)
    rows = patches.permute(0, 2, 3, 4, 1).reshape(-1, patches.shape[1])
    patch_mean, basis, deviation = _components(rows, patch_components)
    coefficients = torch.einsum("kc,bcthw->bkthw", basis, patches - patch_mean[:, None, None, None])
    block_mean, blocks, block_deviation = _components(_gather(coefficients), channels)
    return LinearCode(patch_mean, basis, deviation, block_mean, blocks, block_deviation)


def silence_residuals(vae: AutoencoderKLLTXVideo) -> None:
    """Zero the last convolution of every residual block: each then returns its input."""
    with torch.no_grad():
        for name, module in vae.named_modules():
            if name.endswith("conv2.conv") and isinstance(module, nn.Conv3d):
                module.weight.zero_()
                module.bias.zero_()


def write(code: LinearCode, vae: AutoencoderKLLTXVideo) -> None:
    """Make `vae` compute `code`; small random weights stay where the code needs none, so that they can learn.

    Latents come out with deviation 1 and mean 0 on the fitted data.
    """
    n, channels = len(code.patches), len(code.blocks)
    encoder, decoder = vae.encoder, vae.decoder
    width = encoder.conv_in.conv.out_channels
    inner = decoder.conv_out.conv.in_channels
    if width < 2 * channels + 1 or width < n or inner < 2 * n + 1:
        raise ValueError(f"{width} and {inner} channels cannot carry {channels} latents and {n} coefficients")
    silence_residuals(vae)
    with torch.no_grad():
        # Encoder: patches → n coefficients → (strided) both signs of the block's coefficients, and a constant.
        conv = encoder.conv_in.conv
        conv.weight.zero_()
        conv.bias.zero_()
        conv.weight[:n, :, 2, 1, 1] = code.patches
        conv.bias[:n] = -code.patches @ code.patch_mean
        down = encoder.down_blocks[0].downsamplers[0].conv
        down.weight.zero_()
        down.bias.zero_()
        loud = _LOUDEST / float(code.block_deviation.norm())
        taps = code.blocks.view(channels, n, 2, 2, 2) * loud
        start = -(code.blocks @ code.block_mean) * loud
        for sign, at in ((1, 0), (-1, channels)):
            # Causal in time, padded by one in the plane: a block's own cells are the last two taps of each axis.
            down.weight[at : at + channels, :n, 1:, 1:, 1:] = sign * taps
            down.bias[at : at + channels] = sign * start
        down.bias[-1] = 1.0
        _read_both_signs(encoder.conv_out.conv, torch.eye(channels) / (loud * code.block_deviation[:, None]), 2, width)
        encoder.conv_out.conv.bias[channels] = -6.0  # the log-variance that all latents share

        # Decoder: latents → block coefficients → both signs of the patches' coefficients, and a constant → pixels.
        conv = decoder.conv_in.conv
        conv.weight[:channels].zero_()
        conv.bias.zero_()
        conv.weight[:channels, :, 1, 1, 1] = torch.eye(channels)
        up = decoder.up_blocks[0].upsamplers[0].conv.conv
        up.weight[:, :].mul_(0.02)
        up.bias.zero_()
        loud = _LOUDEST / float(code.patch_deviation.norm())
        spread = (code.blocks * code.block_deviation[:, None]).T.reshape(n, 8, channels) * loud
        offset = code.block_mean.view(n, 8) * loud
        weight = up.weight.view(inner, 8, *up.weight.shape[1:])
        bias = up.bias.view(inner, 8)
        weight[: 2 * n].zero_()
        weight[-1].zero_()
        for sign, at in ((1, 0), (-1, n)):
            weight[at : at + n, :, :channels, 1, 1, 1] = sign * spread
            bias[at : at + n] = sign * offset
        bias[-1] = 1.0
        _read_both_signs(decoder.conv_out.conv, code.patches.T / loud, 1, inner)
        decoder.conv_out.conv.bias.copy_(code.patch_mean)


def _read_both_signs(conv: nn.Conv3d, matrix: Tensor, tap: int, width: int) -> None:
    """Apply `matrix` (out, values) to values that arrive normed, with both signs, through a SiLU."""
    values = matrix.shape[1]
    conv.weight.zero_()
    conv.bias.zero_()
    scale = matrix / width**0.5  # the norm divides by the root mean square, which is that of the constant
    conv.weight[: len(matrix), :values, tap, 1, 1] = scale
    conv.weight[: len(matrix), values : 2 * values, tap, 1, 1] = -scale
