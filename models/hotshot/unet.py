"""Hotshot-XL's UNet: diffusers' `UNetMotionModel` with the three things that Hotshot-XL does differently.

| | AnimateDiff | Hotshot-XL |
| --- | --- | --- |
| norms of the residual blocks, and the last norm | statistics of each frame | statistics over all frames of a clip |
| norm of a temporal layer | statistics over all frames | statistics of each frame |
| temporal layers of a single frame | run | are skipped |

Weights have the names of `UNetMotionModel`. A converted folder names this class in its `model_index.json`, so whoever
loads it with `from_pretrained` has imported this module (no code comes from the folder), or is told to: with the plain
class the clips would be others. Source: hotshotco/Hotshot-XL, `hotshot_xl/models/`.
"""

import functools
from typing import Any

# `from_pretrained` of a pipeline looks in the module of a component for its base class, to know how to load it.
from diffusers import ModelMixin as ModelMixin
from diffusers import UNetMotionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn

TEMPORAL_HEADS = 8
TEMPORAL_NORM_GROUPS = 32
"""Of every temporal layer, whatever the configuration says of the other layers."""


class ClipGroupNorm(nn.GroupNorm):
    """A group norm over (batch · frames, channels, height, width) whose statistics are those of whole clips."""

    frames = 1

    def forward(self, input: Tensor) -> Tensor:
        if self.frames == 1:
            return super().forward(input)
        clips = input.unflatten(0, (-1, self.frames)).transpose(1, 2)
        return super().forward(clips).transpose(1, 2).flatten(0, 1)


class FrameGroupNorm(nn.GroupNorm):
    """A group norm over (batch, channels, frames, height, width) whose statistics are those of single frames."""

    def forward(self, input: Tensor) -> Tensor:
        frames = super().forward(input.transpose(1, 2).flatten(0, 1))
        return frames.unflatten(0, (len(input), -1)).transpose(1, 2)


class TemporalTransformer(AnimateDiffTransformer3D):
    """A temporal layer that leaves a single frame as it is."""

    def forward(self, hidden_states: Tensor, *args: Any, num_frames: int = 1, **kwargs: Any) -> Tensor:
        if num_frames == 1:
            return hidden_states
        made: Tensor = super().forward(hidden_states, *args, num_frames=num_frames, **kwargs)
        return made


class HotshotUNet(UNetMotionModel):
    """Hotshot-XL's denoiser. Its configuration is that of `UNetMotionModel`."""

    # diffusers reads the configuration's keys off the signature, which `wraps` hands through.
    @functools.wraps(UNetMotionModel.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Other classes over the same parameters: made anew, they would have to be given the same sizes and device.
        for module in list(self.modules()):
            if isinstance(module, ResnetBlock2D):
                module.norm1.__class__ = module.norm2.__class__ = ClipGroupNorm
            elif isinstance(module, AnimateDiffTransformer3D):
                module.__class__ = TemporalTransformer
                module.norm.__class__ = FrameGroupNorm
                module.norm.num_groups = TEMPORAL_NORM_GROUPS
        if self.conv_norm_out is not None:
            self.conv_norm_out.__class__ = ClipGroupNorm

    def forward(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Predict the noise in `sample` (batch, channels, frames, height, width).

        `encoder_hidden_states` (batch or batch · frames, tokens, width) is the text of each clip or of each frame.
        Raises ValueError for more frames than the position table has.
        """
        frames = sample.shape[2]
        if frames > self.config.motion_max_seq_length:
            raise ValueError(f"{frames} frames; Hotshot-XL's position table has {self.config.motion_max_seq_length}")
        if len(encoder_hidden_states) == len(sample):
            encoder_hidden_states = encoder_hidden_states.repeat_interleave(frames, dim=0)
        for module in self.modules():
            if isinstance(module, ClipGroupNorm):
                module.frames = frames
        return super().forward(sample, timestep, encoder_hidden_states, *args, **kwargs)
