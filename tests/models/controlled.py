"""Real AnimateDiff pipelines whose weights are set by hand, so that what a ControlNet is shown can be seen in the clip.

A latent is a pixel: the autoencoder passes three colours through. The UNet says that the clean clip is what its
ControlNet adds to its first layer, times the scale; with nothing added, gray. The ControlNet adds the picture that it
is shown, dark below gray and bright above; the sparse one at its frames only.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AnimateDiffControlNetPipeline,
    AnimateDiffPipeline,
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    MotionAdapter,
    SparseControlNetModel,
    UNetMotionModel,
)
from torch import nn

from training.tiny_text import clip_text_encoder, clip_tokenizer

WIDTH = 8  # channels: three colours, their negatives, so that no norm sees a mean, and two constants
_SMALL = 0.01  # of what passes a SiLU, which halves it as long as it is small
_LOUD = 100.0


@torch.no_grad()
def parts() -> dict[str, Any]:
    """The components of an AnimateDiffPipeline that renders gray unless something is added."""
    torch.manual_seed(0)
    told_clean = DDIMScheduler(prediction_type="sample", clip_sample=False, set_alpha_to_one=True, steps_offset=1)
    return {
        "vae": _autoencoder(),
        "text_encoder": clip_text_encoder(hidden=8),
        "tokenizer": clip_tokenizer(),
        "unet": _unet(),
        "motion_adapter": MotionAdapter(
            block_out_channels=(WIDTH,),
            motion_layers_per_block=1,
            motion_norm_num_groups=1,
            motion_num_attention_heads=1,
        ),
        "scheduler": told_clean,
    }


def plain(folder: Path) -> Path:
    """An AnimateDiffPipeline that renders gray."""
    AnimateDiffPipeline(**parts()).save_pretrained(folder)
    return folder


def whole(folder: Path) -> Path:
    """An AnimateDiffControlNetPipeline in one folder."""
    AnimateDiffControlNetPipeline(**parts(), controlnet=_controlnet()).save_pretrained(folder)
    return folder


def controlnet(folder: Path, **changes: Any) -> Path:
    """A ControlNetModel that adds the picture which it is shown."""
    _controlnet(**changes).save_pretrained(folder)
    return folder


def random_controlnet(folder: Path) -> Path:
    """A ControlNetModel of the sizes of the tiny AnimateDiff; nothing of it begins at nothing."""
    torch.manual_seed(3)
    net = ControlNetModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        block_out_channels=(8, 8),
        layers_per_block=2,
        norm_num_groups=2,
        cross_attention_dim=8,
        conditioning_embedding_out_channels=(4,) * 4,
    )
    for parameter in net.parameters():
        if not parameter.abs().sum():
            nn.init.normal_(parameter, std=0.1)
    net.save_pretrained(folder)
    return folder


def sparse_controlnet(folder: Path) -> Path:
    """A SparseControlNetModel that adds the pictures which it is shown, at their frames."""
    with torch.no_grad():
        net = SparseControlNetModel(
            conditioning_channels=3,
            down_block_types=("DownBlockMotion",),
            block_out_channels=(WIDTH,),
            layers_per_block=1,
            norm_num_groups=1,
            cross_attention_dim=8,
            attention_head_dim=1,
            motion_num_attention_heads=1,
            conditioning_embedding_out_channels=(4,),
            use_simplified_condition_embedding=False,
        )
        _add_picture(net, net.controlnet_cond_embedding)
    net.save_pretrained(folder)
    return folder


@torch.no_grad()
def _controlnet(**changes: Any) -> ControlNetModel:
    sizes = {
        "down_block_types": ("DownBlock2D",),
        "block_out_channels": (WIDTH,),
        "layers_per_block": 1,
        "norm_num_groups": 1,
        "cross_attention_dim": 8,
        "attention_head_dim": 1,
        "conditioning_embedding_out_channels": (4,),
    }
    net = ControlNetModel(**sizes | changes)
    _add_picture(net, net.controlnet_cond_embedding)
    return net


def _add_picture(net: Any, embedding: Any) -> None:
    """All that the network adds to the first layer is the picture, from −1 to 1."""
    for parameter in net.parameters():
        parameter.zero_()
    colours = range(3)
    embedding.conv_in.weight[colours, colours, 1, 1] = _SMALL
    # The mask of a sparse network is its last channel; to the other one every frame counts.
    if embedding.conv_in.in_channels > 3:
        embedding.conv_in.weight[3, 3, 1, 1] = _SMALL
    else:
        embedding.conv_in.bias[3] = _SMALL
    embedding.conv_out.weight[colours, colours, 1, 1] = 2 * 2 / _SMALL
    embedding.conv_out.weight[colours, 3, 1, 1] = -2 / _SMALL
    _both_signs(net.controlnet_down_blocks[0].weight[:, :, 0, 0])


def _unet() -> UNetMotionModel:
    unet = UNetMotionModel(
        sample_size=32,
        down_block_types=("DownBlockMotion",),
        up_block_types=("UpBlockMotion",),
        block_out_channels=(WIDTH,),
        layers_per_block=1,
        norm_num_groups=1,
        cross_attention_dim=8,
        num_attention_heads=1,
        motion_num_attention_heads=1,
        use_motion_mid_block=False,
    )
    for name, parameter in unet.named_parameters():
        # Nothing of the noise, the text or the time gets anywhere.
        if "motion_modules" not in name or "proj_out" in name:
            parameter.zero_()
    unet.conv_in.bias[-2:] = torch.tensor([_LOUD, -_LOUD])
    (last,) = (block.resnets[-1] for block in unet.up_blocks)
    # Of what comes from below nothing, of the first layer's own all.
    last.conv_shortcut.weight[range(WIDTH), range(WIDTH, 2 * WIDTH), 0, 0] = 1.0
    _say(unet.conv_norm_out, unet.conv_out)
    return unet


def _autoencoder() -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(WIDTH,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        latent_channels=4,
        norm_num_groups=1,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    for name, parameter in vae.named_parameters():
        if "conv_shortcut" not in name:
            parameter.zero_()
    colours = range(3)
    for coder, first, last in ((vae.encoder, vae.quant_conv, None), (vae.decoder, None, vae.post_quant_conv)):
        _both_signs(coder.conv_in.weight[:, :, 1, 1])
        coder.conv_in.bias[-2:] = torch.tensor([_LOUD, -_LOUD])
        _say(coder.conv_norm_out, coder.conv_out)
        for one in (first, last):
            if one is not None:
                one.weight[colours, colours] = 1.0
    vae.quant_conv.bias[4:] = -30.0  # the logarithm of a variance: none
    return vae.eval()


def _both_signs(weight: torch.Tensor) -> None:
    weight[range(3), range(3)] = 1.0
    weight[range(3, 6), range(3)] = -1.0


def _say(norm: nn.GroupNorm, out: nn.Conv2d) -> None:
    """What comes in, whatever the norm of a picture: the constants are so loud that they are most of it."""
    norm.weight.fill_(1.0)
    width = norm.num_channels
    norm.bias.zero_()
    # Norm, then SiLU: x · √(width / 2) / loud, halved.
    out.weight[range(3), range(3), 1, 1] = 2 * _LOUD * (2 / width) ** 0.5
