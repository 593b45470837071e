"""What every call of the transformer in training has in common with the pipeline's."""

from contextlib import AbstractContextManager, nullcontext

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.blocks import PATCH
from training.drawing import FPS

CELL_PX = 4 * PATCH
CELL_FRAMES = 4


Size = tuple[int, int, int]
"""Frames, height and width of a clip in tokens."""


def predict(
    transformer: LTXVideoTransformer3DModel, noisy: Tensor, text: Tensor, timestep: Tensor, mask: Tensor, size: Size
) -> Tensor:
    """What the transformer says of tokens (batch, tokens, channels), placed in time and plane as `LTXPipeline` does:
    in seconds a latent frame, and pixels a latent cell."""
    frames, height, width = size
    said: Tensor = transformer(
        noisy,
        text,
        timestep,
        mask,
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=(CELL_FRAMES / FPS, float(CELL_PX), float(CELL_PX)),
        return_dict=False,
    )[0]
    return said


def attention_for(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the fused attention is three times slower to train through than the plain one."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
