"""The VAE of the directed model: an `AutoencoderKLWan` whose encoder is fitted and whose decoder is trained.

The encoder is a linear code of blocks of 8×8 pixels and four frames: principal components, written exactly into the
network's weights. It is right from the start and never changes, so that the transformer can be trained while the
decoder still learns. The decoder is not linear: out of sixteen numbers a block and those of its neighbours it draws
edges that no linear code of that size can.

What has to be got round to write a linear code into a Wan encoder: residual blocks whose last convolution is zero pass
everything; a large constant channel makes the last norm a mere scale; and values that are small against one go through
the SiLU nearly as through a factor of one half. The first frame passes no convolution over time, so a pair of frames
is coded as its mean, in the channels of a single frame, and its difference, in channels that a single frame leaves at
zero: a first frame is coded as a clip that stands still.

`WanVACEPipeline` takes a cell to be two to the number of halvings: a VAE that cuts frames into patches is not for it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, WanResidualBlock
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

CELL_PX = 8
"""Pixels of a latent, each side."""
CELL_FRAMES = 4
_WIDTHS = (1, 2, 4, 4)
_IN_TIME = (False, True, True)
_LOUDEST = 0.004  # of the constant channel: the SiLU bends values of this size by half a percent


class CodecConfig(BaseModel):
    """Sizes of the VAE; the defaults are the recipe."""

    model_config = ConfigDict(frozen=True)

    latent_channels: int = 16
    width: int = 8
    """Channels at full size, where they cost most; twice and four times as many further in."""
    still: tuple[int, int, int] = (7, 10, 18)
    """Values that 2×2 cells are coded in at each halving; the rest of the width codes differences between frames."""
    seed: int = 0


@dataclass(frozen=True)
class Stage:
    """One halving of time and plane: directions of 2×2 cells (still, 4 n) and of differences (changing, still)."""

    still: Tensor
    changing: Tensor


def build(config: CodecConfig) -> AutoencoderKLWan:
    """The model with random weights, seeded; ÷8 in the plane, ÷4 in time."""
    torch.manual_seed(config.seed)
    return AutoencoderKLWan(
        base_dim=config.width,
        z_dim=config.latent_channels,
        dim_mult=list(_WIDTHS),
        num_res_blocks=1,
        temperal_downsample=list(_IN_TIME),
        latents_mean=[0.0] * config.latent_channels,
        latents_std=[1.0] * config.latent_channels,
    )


def _components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The leading principal directions (count, width), not centred, and the deviations along them."""
    values, vectors = torch.linalg.eigh((rows.T @ rows / len(rows)).double())
    order = torch.arange(len(values) - 1, len(values) - 1 - count, -1)
    return vectors[:, order].T.float().contiguous(), values[order].clamp_min(1e-12).sqrt().float()


def _cells(values: Tensor) -> Tensor:
    """(b, n, t, h, w) → (b, t, h/2, w/2, 4 n): 2×2 cells together, in the order of a convolution's (n, row, column)."""
    b, n, t, h, w = values.shape
    return values.reshape(b, n, t, h // 2, 2, w // 2, 2).permute(0, 2, 3, 5, 1, 4, 6).reshape(b, t, h // 2, w // 2, -1)


def _pairs(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(b, 1 + 2 k, …) → the first frame (b, 1, …), then means and half differences of pairs (b, k, …)."""
    first, second = values[:, 1::2], values[:, 2::2]
    return values[:, :1], (first + second) / 2, (second - first) / 2


def _apply(stage: Stage, values: Tensor) -> Tensor:
    """One stage of the code: (b, n, t, h, w) → (b, still + changing, t or 1 + t // 2, h / 2, w / 2)."""
    coded = _cells(values) @ stage.still.T
    if not len(stage.changing):
        return coded.movedim(-1, 1)
    start, mean, change = _pairs(coded)
    change = change @ stage.changing.T
    nothing = change.new_zeros(*start.shape[:-1], change.shape[-1])
    out = torch.cat([torch.cat([start, nothing], -1), torch.cat([mean, change], -1)], dim=1)
    return out.movedim(-1, 1)


def _fit_stage(values: Tensor, still: int, changing: int) -> Stage:
    rows = _cells(values)
    if not changing:
        directions, _ = _components(rows.flatten(0, -2), still)
        return Stage(directions, directions.new_zeros(0, still))
    start, mean, _ = _pairs(rows)
    directions, _ = _components(torch.cat([start.flatten(0, -2), mean.flatten(0, -2)]), still)
    _, _, change = _pairs(rows @ directions.T)
    return Stage(directions, _components(change.flatten(0, -2), changing)[0])


@torch.no_grad()
def fit(vae: AutoencoderKLWan, config: CodecConfig, clips: Tensor) -> None:
    """Write the code of clips (batch, 3, 4 k + 1, height, width), in [-1, 1], into the encoder, and the latents'
    mean and deviation into the configuration. Colours are not centred: gray is zero, as VACE takes it to be.
    """
    stages = []
    values = clips
    for still, width, in_time in zip(config.still, _WIDTHS[:-1], _IN_TIME, strict=True):
        room = width * config.width - 1  # the last channel is the constant
        stages.append(_fit_stage(values, min(still, room), room - still if in_time else 0))
        values = _apply(stages[-1], values)
    directions, deviations = _components(values.movedim(1, -1).flatten(0, -2), config.latent_channels)
    _write(vae, stages, directions, float(values.abs().max()))
    encode = FastEncoder(vae)
    codes = torch.cat([encode(part) for part in clips.split(16)])
    flat = codes.transpose(0, 1).flatten(1)
    # Half-way to white: what is coarse stays larger and comes first out of the noise, but not by a factor of fifty.
    scale = (deviations * deviations.mean()).sqrt()
    vae.register_to_config(
        latents_mean=[round(float(m), 5) for m in flat.mean(1)], latents_std=[round(float(s), 5) for s in scale]
    )


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()


def _write(vae: AutoencoderKLWan, stages: list[Stage], directions: Tensor, largest: float) -> None:
    encoder = vae.encoder
    loud = _LOUDEST / largest
    _zero(encoder.conv_in)
    encoder.conv_in.weight[:3, :, 2, 1, 1] = torch.eye(3) * loud
    encoder.conv_in.bias[-1] = 1.0
    given, left = 3, iter(stages)
    for block in encoder.down_blocks:
        if isinstance(block, WanResidualBlock):
            _zero(block.conv2)
            if block.in_dim != block.out_dim:  # the same values in a wider row, the constant last again
                _zero(block.conv_shortcut)
                block.conv_shortcut.weight[:given, :given, 0, 0, 0] = torch.eye(given)
                block.conv_shortcut.weight[-1, -1, 0, 0, 0] = 1.0
            continue
        _zero(block)
        stage = next(left)
        still, changing = len(stage.still), len(stage.changing)
        plane = block.resample[1]
        plane.weight[:still, :given, :2, :2] = stage.still.reshape(still, given, 2, 2)
        plane.weight[-1, -1, 0, 0] = 1.0
        if changing:
            taps = block.time_conv.weight[:, :, 1:, 0, 0]  # the frame before is out of it: pairs are coded on their own
            taps[:still, :still] = torch.eye(still)[..., None] / 2
            taps[still : still + changing, :still, 0] = -stage.changing / 2
            taps[still : still + changing, :still, 1] = stage.changing / 2
            taps[-1, -1, 1] = 1.0
        given = still + changing
    width = encoder.conv_out.in_channels
    for resnet in encoder.mid_block.resnets:
        _zero(resnet.conv2)
    _zero(encoder.mid_block.attentions[0].proj)
    _zero(encoder.conv_out)
    count = len(directions)
    # The norm makes the constant √width, and all else in proportion; the SiLU halves it.
    encoder.conv_out.weight[:count, :given, 2, 1, 1] = directions * 2 / (loud * width**0.5)
    encoder.conv_out.bias[count:] = -10.0
    _zero(vae.quant_conv)
    vae.quant_conv.weight[:, :, 0, 0, 0] = torch.eye(2 * count)
    _zero(vae.post_quant_conv)
    vae.post_quant_conv.weight[:, :, 0, 0, 0] = torch.eye(count)


class FastEncoder:
    """What `vae.encode(clips).latent_dist.mean` gives, as one product with a matrix: many times sooner.

    Right while the encoder is as `fit` left it.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self._vae = vae
        self.channels = int(vae.config.z_dim)
        """Of the latents."""
        self._mean, self._std = (_per_channel(v, vae.device) for v in (vae.config.latents_mean, vae.config.latents_std))
        nothing = torch.zeros(1, 3, 1, CELL_PX, CELL_PX, device=vae.device)
        width = nothing.numel()
        still = torch.eye(width, device=vae.device).view(width, *nothing.shape[1:])
        moving = torch.eye(width * CELL_FRAMES, device=vae.device).view(-1, 3, CELL_FRAMES, CELL_PX, CELL_PX)
        moving = torch.cat([nothing.expand(len(moving), -1, -1, -1, -1), moving], dim=2)
        self._bias = self._taps(nothing)[0, :, 0, 0, 0]
        self._still = self._taps(still)[:, :, 0, 0, 0] - self._bias
        self._moving = self._taps(moving)[:, :, 1, 0, 0] - self._bias

    @torch.no_grad()
    def _taps(self, clips: Tensor) -> Tensor:
        """The values before the last norm, over the few taps that `fit` writes."""
        encoder = self._vae.encoder
        first = encoder.conv_in
        x = F.conv3d(clips, first.weight[:, :, 2:, 1:2, 1:2], first.bias)
        for block in encoder.down_blocks:
            if not isinstance(block, WanResample):
                x = block.conv_shortcut(x)
                continue
            b, c, t, h, w = x.shape
            plane = block.resample[1]
            x = F.conv2d(x.transpose(1, 2).flatten(0, 1), plane.weight[:, :, :2, :2], plane.bias, stride=2)
            x = x.view(b, t, c, h // 2, w // 2).transpose(1, 2)
            if t > 1 and block.mode == "downsample3d":
                over_time = block.time_conv
                rest = F.conv3d(x[:, :, 1:], over_time.weight[:, :, 1:], over_time.bias, stride=(2, 1, 1))
                x = torch.cat([x[:, :, :1], rest], dim=2)
        return x

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Clips (batch, 3, 4 k + 1, height, width) in [-1, 1] → latents (batch, z, 1 + k, height / 8, width / 8)."""
        b, c, t, h, w = clips.shape
        cells = clips.reshape(b, c, t, h // CELL_PX, CELL_PX, w // CELL_PX, CELL_PX)
        start = cells[:, :, :1].permute(0, 2, 3, 5, 1, 4, 6).flatten(4) @ self._still
        rest = cells[:, :, 1:].unflatten(2, (-1, CELL_FRAMES)).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4) @ self._moving
        encoder = self._vae.encoder
        x = (torch.cat([start, rest], dim=1) + self._bias).movedim(-1, 1)
        x = F.silu(encoder.norm_out(x))
        last = encoder.conv_out
        count = last.out_channels // 2
        return F.conv3d(x, last.weight[:count, :, 2:, 1:2, 1:2], last.bias[:count])

    def normalised(self, clips: Tensor) -> Tensor:
        """The same in the transformer's units, as the pipelines make them."""
        return (self(clips) - self._mean) / self._std

    def restored(self, latents: Tensor) -> Tensor:
        """Latents in the decoder's units, out of the transformer's."""
        return latents * self._std + self._mean


def _per_channel(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1, 1)


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """As `vae.decode`, in the decoder's units, but without the clamp, which would stop gradients."""
    vae.clear_cache()
    x = vae.post_quant_conv(latents)
    out = []
    for i in range(x.shape[2]):
        vae._conv_idx = [0]
        out.append(
            vae.decoder(x[:, :, i : i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0)
        )
    vae.clear_cache()
    return torch.cat(out, dim=2)
