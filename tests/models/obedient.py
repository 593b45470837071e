"""Real Wan pipelines whose weights are set by hand, so that what they are told can be seen in their clips.

The autoencoder's code is the mean colour of a cell of 8×8 pixels and four frames; the first frame has its own cells.
The transformer says that the clean clip is what its condition shows: `WanVACEPipeline` renders its control video, kept
or not, times the conditioning scale; `WanImageToVideoPipeline` the frames of its condition, and gray where it has none;
`LucyEditPipeline` its source.
Attention, where it is on, is even over all tokens: a reference then colours the whole clip.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    LucyEditPipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResidualBlock
from torch import nn

from training import tiny_dit
from training.directed.codec import CodecConfig, Stage, _write, build

Z = 16  # latents of a cell, of which three are used
_HEADS, _HEAD_DIM = 2, 48
_LOUD = 1000.0  # of two constants that make a norm a mere scale


@torch.no_grad()
def autoencoder() -> AutoencoderKLWan:
    """The mean colour of every cell, and back."""
    vae = build(CodecConfig())
    halves = []
    for given, in_time in ((3, False), (3, True), (4, True)):
        means = torch.zeros(3, given, 4)
        means[range(3), range(3)] = 0.25
        halves.append(Stage(means.reshape(3, -1), torch.zeros(int(in_time), 3)))
    _write(vae, halves, torch.eye(Z, 4), 1.0)
    _write_decoder(vae)
    return vae.eval()


def _write_decoder(vae: AutoencoderKLWan) -> None:
    decoder, small = vae.decoder, 0.004
    _zero(decoder.conv_in)
    decoder.conv_in.weight[range(3), range(3), 2, 1, 1] = small
    decoder.conv_in.bias[-1] = 1.0
    for resnet in decoder.mid_block.resnets:
        _zero(resnet.conv2)
    _zero(decoder.mid_block.attentions[0].proj)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            _pass(resnet)
        for up in block.upsamplers or ():
            plane = up.resample[1]
            _zero(plane)
            _copy(plane.weight[:, :, 1, 1])
            if up.mode == "upsample3d":
                _zero(up.time_conv)
                for half in up.time_conv.weight.chunk(2):
                    half[:, :, 2, 0, 0] = torch.eye(half.shape[1])
    _zero(decoder.conv_out)
    width = decoder.conv_out.in_channels
    # The norm makes the constant √width, and all else in proportion; the SiLU halves it.
    decoder.conv_out.weight[range(3), range(3), 2, 1, 1] = 2 / (small * width**0.5)


def _pass(resnet: WanResidualBlock) -> None:
    _zero(resnet.conv2)
    if isinstance(resnet.conv_shortcut, nn.Identity):
        return
    _zero(resnet.conv_shortcut)
    _copy(resnet.conv_shortcut.weight[:, :, 0, 0, 0])


def _copy(weight: torch.Tensor) -> None:
    """The three colours, and the constant, which is the last channel on both sides."""
    weight[range(3), range(3)] = 1.0
    weight[-1, -1] = 1.0


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()


def _quiet(transformer: nn.Module) -> None:
    """Everything off: what is set afterwards is all that there is."""
    for name, parameter in transformer.named_parameters():
        if "norm_q" not in name and "norm_k" not in name and "norm2" not in name:
            parameter.zero_()


def _say(transformer: WanTransformer3DModel | WanVACETransformer3DModel) -> None:
    """The first 4 Z numbers of a token are what is said of its four cells."""
    dim = transformer.proj_out.in_features
    transformer.patch_embedding.bias[-2:] = torch.tensor([_LOUD, -_LOUD])
    # Of a row with two large constants, the norm divides by their root mean square.
    scale = _LOUD * (2 / dim) ** 0.5
    said = torch.zeros(4, Z, dim)
    for cell in range(4):
        said[cell, range(Z), torch.arange(Z) * 4 + cell] = scale
    transformer.proj_out.weight.copy_(said.flatten(0, 1))


def _hear(embedding: nn.Conv3d, first: int) -> None:
    """The four cells of latent `first` + i go to places 4 i … of a token."""
    for cell, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        embedding.weight[torch.arange(Z) * 4 + cell, torch.arange(first, first + Z), 0, row, column] = 1.0


def _parts(transformer: nn.Module) -> dict[str, object]:
    text = tiny_dit.wan().components
    told_clean = UniPCMultistepScheduler(prediction_type="sample", use_flow_sigmas=True, flow_shift=2.0)
    return {
        "tokenizer": text["tokenizer"],
        "text_encoder": text["text_encoder"],
        "vae": autoencoder(),
        "scheduler": told_clean,
        "transformer": transformer.eval(),
    }


@torch.no_grad()
def vace(folder: Path, mean_share: float = 0.0) -> Path:
    """A WanVACEPipeline that renders its control video, and adds the mean of all that it sees times `mean_share`."""
    torch.manual_seed(0)
    transformer = WanVACETransformer3DModel(
        **_sizes(in_channels=Z), vace_layers=[0], vace_in_channels=2 * Z + 64, cross_attn_norm=True
    )
    _quiet(transformer)
    _say(transformer)
    _hear(transformer.vace_patch_embedding, 0)
    _hear(transformer.vace_patch_embedding, Z)
    (block,) = transformer.vace_blocks
    dim = transformer.proj_out.in_features
    block.proj_in.weight.copy_(torch.eye(dim))
    told = torch.eye(dim)
    told[-2:] = 0
    block.proj_out.weight.copy_(told)
    # Without queries attention is even; the norm's scale is taken back.
    block.attn1.to_v.weight.copy_(told * _LOUD * (2 / dim) ** 0.5)
    block.attn1.to_out[0].weight.copy_(torch.eye(dim))
    block.scale_shift_table[:, 2] = mean_share
    WanVACEPipeline(**_parts(transformer)).save_pretrained(folder)
    return folder


@torch.no_grad()
def image_to_video(folder: Path) -> Path:
    """A WanImageToVideoPipeline (2.1's form) that renders the frames of its condition."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(**_sizes(in_channels=2 * Z + 4), cross_attn_norm=True)
    _quiet(transformer)
    _say(transformer)
    _hear(transformer.patch_embedding, Z + 4)
    WanImageToVideoPipeline(**_parts(transformer), image_encoder=None, image_processor=None).save_pretrained(folder)
    return folder


@torch.no_grad()
def lucy_edit(folder: Path) -> Path:
    """A LucyEditPipeline that renders its source."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(**_sizes(in_channels=2 * Z), cross_attn_norm=True)
    _quiet(transformer)
    _say(transformer)
    _hear(transformer.patch_embedding, Z)
    LucyEditPipeline(**_parts(transformer)).save_pretrained(folder)
    return folder


def _sizes(in_channels: int) -> dict[str, object]:
    return {
        "patch_size": (1, 2, 2),
        "num_attention_heads": _HEADS,
        "attention_head_dim": _HEAD_DIM,
        "in_channels": in_channels,
        "out_channels": Z,
        "text_dim": 32,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 1,
        "rope_max_seq_len": 256,
    }
