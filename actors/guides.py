"""What a model would be shown of one directed shot, from its media: as it will be shown it, before it is rendered."""

import numpy as np

from actors.media_reader import MediaReader
from models.conditions import told
from models.guide import Guide, guide_of
from models.model import Frames
from schemas.catalog import Variant
from schemas.errors import RushesError
from schemas.task import Group, Task


def guide_for(variant: Variant, group: Group, task: Task, reader: MediaReader) -> Guide | None:
    """What the model of `variant` is shown of a task, as it will be shown it. Raises what reading its media does."""
    (media,) = reader.read(group, [task])
    if isinstance(media, RushesError):
        raise media
    return guide_of(variant.pipeline_for(group.mode), group, told(group, task, media), variant.path_guide)


def side_by_side(guide: Guide) -> Frames:
    """(frames, height, 2 · width, 3): what is shown, and beside it the mask."""
    pairs = zip(guide.video, guide.mask, strict=True)
    return np.stack([np.hstack([np.asarray(shown.convert("RGB")), np.asarray(mask)]) for shown, mask in pairs])
