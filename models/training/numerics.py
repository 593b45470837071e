"""What every call of the transformer in training has in common with the pipeline's."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.training.blocks import PATCH
from models.training.drawing import FPS

CELL_PX = 4 * PATCH
CELL_FRAMES = 4


def rope_scale() -> tuple[float, float, float]:
    """What `LTXPipeline` multiplies latent positions by: seconds a latent frame, pixels a latent cell."""
    return CELL_FRAMES / FPS, float(CELL_PX), float(CELL_PX)


def attention_for(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the fused attention is three times slower to train through than the plain one."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
