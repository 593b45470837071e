"""Conditions as `WanVACEPipeline` hands them to its transformer: latents of what stays and of what is to be made, the
mask beside them, and the reference as a first latent frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.directed.codec import CELL_PX, FastEncoder
from training.directed.conditions import Conditions

MASK_CHANNELS = CELL_PX**2


def masks(mask: Tensor, frames: int) -> Tensor:
    """(batch, 1, frames, height, width) → (batch, 64, latent frames, height / 8, width / 8): each cell's pixels as
    channels, and of the frames those that fall nearest."""
    b, _, t, h, w = mask.shape
    cells = mask.reshape(b, t, h // CELL_PX, CELL_PX, w // CELL_PX, CELL_PX).permute(0, 3, 5, 1, 2, 4).flatten(1, 2)
    return F.interpolate(cells, size=(frames, h // CELL_PX, w // CELL_PX), mode="nearest-exact")


def control(encode: FastEncoder, given: Conditions) -> Tensor:
    """What the pipeline calls conditioning latents, (batch, 2 z + 64, latent frames, height / 8, width / 8)."""
    made = torch.where(given.mask > 0.5, 1.0, 0.0)
    kept, changed = encode.normalised(given.video * (1 - made)), encode.normalised(given.video * made)
    mask = masks(made, kept.shape[2])
    if given.reference is not None:
        shown = encode.normalised(given.reference)
        kept, changed = torch.cat([shown, kept], dim=2), torch.cat([torch.zeros_like(shown), changed], dim=2)
        mask = torch.cat([torch.zeros_like(mask[:, :, :1]), mask], dim=2)
    return torch.cat([kept, changed, mask], dim=1)


def wanted(encode: FastEncoder, clips: Tensor, given: Conditions) -> Tensor:
    """The latents that the transformer is to arrive at: the reference's, where there is one, and then the clip's."""
    latents = encode.normalised(clips)
    return latents if given.reference is None else torch.cat([encode.normalised(given.reference), latents], dim=2)
