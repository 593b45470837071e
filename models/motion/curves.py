"""Values between keys."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.motion import Bezier, CameraKey, PathKey

Floats = npt.NDArray[np.float64]

# Halvings of the curve's parameter: 2⁻⁴⁵ is below what a double keeps of a share.
_HALVINGS = 45


def eased(shares: npt.ArrayLike, ease: Bezier) -> Floats:
    """How much of the way is done when `shares` (0 to 1) of the time are over, by the cubic Bézier curve from (0, 0) to
    (1, 1) with the inner points (x1, y1) and (x2, y2), as in CSS. x1 and x2 in 0…1, so that time never runs back;
    0 is 0 and 1 is 1, in between it may leave 0…1."""
    share = np.asarray(shares, np.float64)
    x1, y1, x2, y2 = ease
    low, high = np.zeros_like(share), np.ones_like(share)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_late = _bezier(middle, x1, x2) > share
        low, high = np.where(is_late, low, middle), np.where(is_late, middle, high)
    done = _bezier((low + high) / 2, y1, y2)
    return np.where(share <= 0, 0.0, np.where(share >= 1, 1.0, done))


def _bezier(t: Floats, first: float, second: float) -> Floats:
    rest = 1 - t
    return 3 * rest * rest * t * first + 3 * rest * t * t * second + t**3


def instants(frames: int, fps: float) -> Floats:
    """(frames,): when each frame is shown, in seconds."""
    return np.arange(frames, dtype=np.float64) / fps


def between(
    keys: Sequence[CameraKey] | Sequence[PathKey], names: Sequence[str], geometric: str, times_s: Floats
) -> dict[str, Floats]:
    """By name, the values at `times_s`, (len(times_s),), of absolute keys that say everything. Before the first key and
    after the last they stand still. The one called `geometric`, a factor, passes equal ratios in equal shares of the
    way, so that a zoom looks even."""
    out: dict[str, Floats] = {}
    for name in (*names, geometric):
        said = [float(getattr(key, name)) for key in keys]
        values = np.log(said) if name == geometric else np.array(said)
        track = np.full(len(times_s), values[0])
        for before, (key, value) in enumerate(zip(keys[1:], values[1:], strict=True)):
            start = keys[before].at_s
            done = eased(np.clip((times_s - start) / (key.at_s - start), 0, 1), key.ease)
            track = np.where(times_s > start, values[before] + done * (value - values[before]), track)
        out[name] = np.exp(track) if name == geometric else track
    return out
