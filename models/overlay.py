"""What a mask spares of a source is the source's own pixels, as in diffusers' inpainting (`apply_overlay`): a model
decodes them from its latents, and would change each a little. No torch."""

import numpy as np

from models.guide import Given, spared_of
from models.model import Frames
from schemas.task import Group


def overlaid(clip: Frames, group: Group, given: Given) -> Frames:
    """`clip` (frames, height, width, 3) with the source's pixels where the mask is black; itself without a mask."""
    spared = spared_of(group, given)
    if spared is None:
        return clip
    anew = np.stack([np.asarray(frame) for frame in spared.mask]) > 127
    source = np.stack([np.asarray(frame.convert("RGB")) for frame in spared.video])
    return np.where(anew[..., None], clip, source)
