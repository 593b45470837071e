"""How steady a clip is over some of its steps from frame to frame."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from training.metrics import warp_error


def mean_warp_error(frames: Mapping[int, NDArray[np.uint8]], steps: tuple[int, ...]) -> float | None:
    """Over the steps from frame k to k + 1, of those whose frames are there; None where there is none.

    0 is a still clip; see `training.metrics.warp_error`.
    """
    errors = [warp_error(np.stack([frames[k], frames[k + 1]])) for k in steps if k in frames and k + 1 in frames]
    return float(np.mean(errors)) if errors else None
