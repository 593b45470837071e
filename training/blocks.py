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
import torch.nn.functional as F
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn

PATCH = 4  # pixels of a patch, each side; twice over, two of everything in time, height and width become one
_LOUDEST = 0.08  # of the constant channel: at 0.25 the norm's error costs 2 dB, at this size nothing


@dataclass(frozen=True)
class Basis:
    """Orthonormal directions (count, width), the mean they start from, and the deviations of values along them."""

    mean: Tensor
    directions: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class LinearCode:
    """Patches of one frame → 2×2×2 of them → 2×2×2 of those: four frames of 16×16 pixels as a few numbers."""

    patches: Basis
    cubes: Basis
    blocks: Basis


def to_patches(clips: Tensor) -> Tensor:
    """(batch, 3, frames, height, width) → (batch, 48, frames, height / 4, width / 4), channels in library order."""
    b, c, t, h, w = clips.shape
    x = clips.reshape(b, c, t, 1, h // PATCH, PATCH, w // PATCH, PATCH)
    return x.permute(0, 1, 3, 7, 5, 2, 4, 6).flatten(1, 4)


def _gather(values: Tensor) -> Tensor:
    """(batch, n, frames, h, w) → (batch, frames', h', w', 8 n): 2×2×2 together, the first frame being its own twin.

    Order within a row: value, then frame, row, column: that of the decoder's channel-to-space step.
    """
    x = torch.cat([values[:, :, :1], values], dim=2)
    b, n, t, h, w = x.shape
    x = x.reshape(b, n, t // 2, 2, h // 2, 2, w // 2, 2)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, t // 2, h // 2, w // 2, n * 8)


def _principal(rows: Tensor, count: int) -> Basis:
    """The leading principal components of rows (count, width)."""
    mean = rows.mean(dim=0)
    centred = (rows - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    order = torch.arange(len(values) - 1, len(values) - 1 - count, -1)
    return Basis(mean, vectors[:, order].T.float().contiguous(), values[order].clamp_min(1e-8).sqrt().float())


def _along(basis: Basis, rows: Tensor) -> Tensor:
    """Values along the basis, channels second: (batch, …, width) → (batch, count, …)."""
    return ((rows - basis.mean) @ basis.directions.T).movedim(-1, 1)


def _spanning(parts: Tensor, rows: Tensor, count: int) -> Basis:
    """The `count` directions that carry most of `parts` (…, width), with the statistics of `rows` along them."""
    flat = parts.flatten(0, -2).double()
    directions = torch.linalg.eigh(flat.T @ flat).eigenvectors.flip(1)[:, :count].T.float().contiguous()
    mean = rows.mean(dim=0)
    return Basis(mean, directions, ((rows - mean) @ directions.T).std(dim=0))


def fit(clips: Tensor, patch_values: int, cube_values: int, channels: int) -> LinearCode:
    """Principal components of the blocks of clips (batch, 3, frames, height, width) in [-1, 1]; frames are 4 k + 1.

    The values of patches and of cubes are chosen to serve the blocks' components, not patches and cubes as such:
    fine detail that no block component keeps would only crowd out what they need.
    """
    patch_rows = to_patches(clips).movedim(1, -1)
    width = patch_rows.shape[-1]
    whole = _principal(_gather(_gather(patch_rows.movedim(-1, 1)).movedim(-1, 1)).flatten(0, -2), channels)
    wanted = (whole.directions * whole.deviation[:, None]).view(channels, width, 8, 8)  # patch, its cell, the cube's
    patches = _spanning(wanted.movedim(1, -1), patch_rows.flatten(0, -2), patch_values)
    rows = _gather(_along(patches, patch_rows))
    wanted = torch.einsum("pw,bwij->bjpi", patches.directions, wanted).flatten(2)
    cubes = _spanning(wanted, rows.flatten(0, -2), cube_values)
    rows = _gather(_along(cubes, rows))
    return LinearCode(patches, cubes, _principal(rows.flatten(0, -2), channels))


@torch.no_grad()
def encode(vae: AutoencoderKLLTXVideo, clips: Tensor) -> Tensor:
    """What `vae.encode(clips).latent_dist.mean` gives while the encoder is as `write` left it, many times sooner.

    Only the taps that `write` fills are computed.
    """
    encoder = vae.encoder
    first, last = encoder.conv_in.conv, encoder.conv_out.conv
    x = F.conv3d(to_patches(clips), first.weight[:, :, 2:, 1:2, 1:2], first.bias)
    for block in encoder.down_blocks:
        down = block.downsamplers[0].conv
        x = torch.cat([x[:, :, :1], x], dim=2)  # the first frame is its own predecessor
        x = F.conv3d(x, down.weight[:, :, 1:, 1:, 1:], down.bias, stride=2)
    x = encoder.conv_act(encoder.norm_out(x.movedim(1, -1)).movedim(-1, 1))
    return F.conv3d(x, last.weight[:-1, :, 2:, 1:2, 1:2], last.bias[:-1])


def _zero(conv: nn.Conv3d) -> None:
    conv.weight.zero_()
    if conv.bias is not None:
        conv.bias.zero_()


def silence_residuals(vae: AutoencoderKLLTXVideo) -> None:
    """Zero the last convolution of every residual block: each then returns its input."""
    with torch.no_grad():
        for name, module in vae.named_modules():
            if name.endswith("conv2.conv") and isinstance(module, nn.Conv3d):
                _zero(module)


def write(code: LinearCode, vae: AutoencoderKLLTXVideo) -> None:
    """Make `vae` compute `code`. Latents come out with mean 0 and deviation 1 on the fitted data."""
    patch_values, cube_values, channels = (len(b.directions) for b in (code.patches, code.cubes, code.blocks))
    encoder, decoder = vae.encoder, vae.decoder
    width, inner = encoder.conv_in.conv.out_channels, decoder.conv_out.conv.in_channels
    between = decoder.up_blocks[0].upsamplers[0].conv.conv.out_channels // 8
    if width < max(2 * channels + 1, cube_values) or between < cube_values or inner < 2 * patch_values + 1:
        raise ValueError(
            f"{width}, {between} and {inner} channels cannot carry {channels} latents, {cube_values} values of cubes "
            f"and {patch_values} of patches"
        )
    silence_residuals(vae)
    with torch.no_grad():
        # Encoder: patches → values of patches → of cubes → both signs of the blocks' values, and a constant.
        conv = encoder.conv_in.conv
        _zero(conv)
        conv.weight[:patch_values, :, 2, 1, 1] = code.patches.directions
        conv.bias[:patch_values] = -code.patches.directions @ code.patches.mean
        # Causal in time, padded by one in the plane: a cube's own cells are the last two taps of each axis.
        conv = encoder.down_blocks[0].downsamplers[0].conv
        _zero(conv)
        conv.weight[:cube_values, :patch_values, 1:, 1:, 1:] = code.cubes.directions.view(cube_values, -1, 2, 2, 2)
        conv.bias[:cube_values] = -code.cubes.directions @ code.cubes.mean
        conv = encoder.down_blocks[1].downsamplers[0].conv
        _zero(conv)
        loud = _LOUDEST / float(code.blocks.deviation.norm())
        for sign, at in ((loud, 0), (-loud, channels)):
            taps = code.blocks.directions.view(channels, -1, 2, 2, 2)
            conv.weight[at : at + channels, :cube_values, 1:, 1:, 1:] = sign * taps
            conv.bias[at : at + channels] = -sign * (code.blocks.directions @ code.blocks.mean)
        conv.bias[-1] = 1.0
        _read_both_signs(encoder.conv_out.conv, torch.eye(channels) / (loud * code.blocks.deviation[:, None]), 2, width)
        encoder.conv_out.conv.bias[channels] = -6.0  # the log-variance that all latents share

        # Decoder: latents → values of cubes → both signs of the patches' values, and a constant → pixels.
        conv = decoder.conv_in.conv
        _zero(conv)
        conv.weight[:channels, :, 1, 1, 1] = torch.eye(channels)
        conv = decoder.up_blocks[0].upsamplers[0].conv.conv
        _zero(conv)
        spread = (code.blocks.directions * code.blocks.deviation[:, None]).T.reshape(cube_values, 8, channels)
        _by_cell(conv.weight)[:cube_values, :, :channels, 1, 1, 1] = spread
        _by_cell(conv.bias)[:cube_values] = code.blocks.mean.view(cube_values, 8)
        conv = decoder.up_blocks[1].upsamplers[0].conv.conv
        _zero(conv)
        loud = _LOUDEST / float(code.patches.deviation.norm())
        spread = code.cubes.directions.T.reshape(patch_values, 8, cube_values)
        for sign, at in ((loud, 0), (-loud, patch_values)):
            _by_cell(conv.weight)[at : at + patch_values, :, :cube_values, 1, 1, 1] = sign * spread
            _by_cell(conv.bias)[at : at + patch_values] = sign * code.cubes.mean.view(patch_values, 8)
        _by_cell(conv.bias)[-1] = 1.0
        _read_both_signs(decoder.conv_out.conv, code.patches.directions.T / loud, 1, inner)
        decoder.conv_out.conv.bias.copy_(code.patches.mean)


def _by_cell(parameter: Tensor) -> Tensor:
    """(8 n, …) → (n, 8, …): the eight cells that a channel-to-space step makes of a channel."""
    return parameter.view(parameter.shape[0] // 8, 8, *parameter.shape[1:])


def _read_both_signs(conv: nn.Conv3d, matrix: Tensor, tap: int, width: int) -> None:
    """Apply `matrix` (out, values) to values that arrive normed, with both signs, through a SiLU."""
    values = matrix.shape[1]
    _zero(conv)
    scale = matrix / width**0.5  # the norm divides by the root mean square, which is that of the constant
    conv.weight[: len(matrix), :values, tap, 1, 1] = scale
    conv.weight[: len(matrix), values : 2 * values, tap, 1, 1] = -scale
