"""What a clip of one moving shape shows, measured from its pixels: colour, shape and motion.

This shares no code and no numbers with what trains the model: colour is the hue of the foreground against the palette
below, motion the path of its centroid, shape the Fourier series of its contour's radius with its solidity.
What fits nothing is called "unknown" rather than forced into the nearest answer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]

HUES_DEG: dict[str, float] = {
    "red": 0.0,
    "orange": 31.0,
    "yellow": 54.0,
    "lime": 84.0,
    "green": 130.0,
    "cyan": 184.0,
    "blue": 227.0,
    "purple": 276.0,
    "pink": 328.0,
}
"""The palette by hue. A measured hue belongs to the nearest one, if it is at most `MAX_HUE_ERROR_DEG` away."""

GROUNDS_RGB: dict[str, tuple[int, int, int]] = {
    "black": (15, 15, 15),
    "white": (240, 240, 240),
    "gray": (120, 120, 120),
    "navy": (20, 30, 90),
    "brown": (100, 65, 40),
    "teal": (20, 90, 90),
    "beige": (225, 210, 170),
    "maroon": (90, 20, 40),
    "olive": (85, 90, 30),
    "lavender": (190, 180, 220),
}
"""Backgrounds by colour. A measured one belongs to the nearest, if it is at most `MAX_GROUND_ERROR` away."""

MAX_HUE_ERROR_DEG = 28.0
MAX_GROUND_ERROR = 45.0
MIN_SATURATION = 0.25
MIN_CONTRAST = 45.0
"""RGB distance from the background below which there is no foreground."""

MIN_TRAVEL_PX = 5.0
MIN_GROWTH = 1.45
"""Ratio of areas, last frames to first, that counts as growing."""

MIN_SPIN_DEG = 35.0
UNKNOWN = "unknown"
_RAYS = 144
_SECTORS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
_SYMMETRY = {"triangle": 3, "square": 4, "star": 5, "cross": 4}


@dataclass(frozen=True)
class Measured:
    """What was seen. `travel_px` is the centroid's displacement (right, down); `growth` a ratio of areas."""

    colour: str
    hue_deg: float
    shape: str
    motion: str
    travel_px: tuple[float, float]
    growth: float
    spin_deg: float
    background_rgb: tuple[int, int, int]
    visible_frames: int


@dataclass(frozen=True)
class Verdict:
    """Which parts of a request a clip obeyed."""

    colour: bool
    shape: bool
    motion: bool

    @property
    def everything(self) -> bool:
        """All three."""
        return self.colour and self.shape and self.motion


def judge(measured: Measured, colour: str, shape: str, motion: str) -> Verdict:
    """Compare with what was asked for."""
    return Verdict(measured.colour == colour, measured.shape == shape, measured.motion == motion)


def hue_deg(rgb: Floats) -> tuple[float, float]:
    """Hue in degrees and saturation in [0, 1] of one 8-bit colour."""
    r, g, b = (float(c) for c in rgb)
    high, low = max(r, g, b), min(r, g, b)
    spread = high - low
    if spread <= 0:
        return 0.0, 0.0
    if high == r:
        hue = ((g - b) / spread) % 6
    elif high == g:
        hue = (b - r) / spread + 2
    else:
        hue = (r - g) / spread + 4
    return 60 * hue, spread / high


def colour_name(rgb: Floats) -> tuple[str, float]:
    """The palette's name for a colour, and its hue."""
    hue, saturation = hue_deg(rgb)
    if saturation < MIN_SATURATION:
        return UNKNOWN, hue
    errors = {name: abs((hue - true + 180) % 360 - 180) for name, true in HUES_DEG.items()}
    best = min(errors, key=lambda name: errors[name])
    return (best if errors[best] <= MAX_HUE_ERROR_DEG else UNKNOWN), hue


def ground_name(rgb: tuple[int, int, int]) -> str:
    """The palette's name for a background."""
    errors = {name: float(np.linalg.norm(np.subtract(rgb, true))) for name, true in GROUNDS_RGB.items()}
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] <= MAX_GROUND_ERROR else UNKNOWN


def foreground(clip: Frames) -> tuple[Floats, Floats, Floats]:
    """Share of each pixel that the foreground covers (frames, height, width), its colour, the background's colour.

    The background is the median of the border. The foreground colour is the median over the pixels farthest from it.
    """
    pixels = clip.astype(np.float64)
    border = np.concatenate(
        [
            pixels[:, :2].reshape(-1, 3),
            pixels[:, -2:].reshape(-1, 3),
            pixels[:, :, :2].reshape(-1, 3),
            pixels[:, :, -2:].reshape(-1, 3),
        ]
    )
    ground = np.median(border, axis=0)
    distance = np.linalg.norm(pixels - ground, axis=-1)
    level = float(np.percentile(distance, 99.0))
    if level < MIN_CONTRAST:
        return np.zeros(distance.shape), ground, ground
    colour = np.median(pixels[distance > 0.75 * level], axis=0)
    axis = colour - ground
    share = np.clip((pixels - ground) @ axis / (axis @ axis), 0, 1)
    return share, colour, ground


def largest(share: Floats) -> Floats:
    """One frame's coverage with all but the largest connected piece set to zero."""
    labels, count = ndimage.label(share > 0.5)
    if count == 0:
        return np.zeros_like(share)
    sizes = ndimage.sum_labels(np.ones_like(share), labels, np.arange(1, count + 1))
    keep = ndimage.binary_dilation(labels == 1 + int(np.argmax(sizes)))
    return np.where(keep, share, 0.0)


def _outline(share: Floats) -> tuple[Floats, float, float] | None:
    """Radius by angle relative to its mean (rays,), solidity, and share of holes; None where there is too little."""
    rows, columns = (np.flatnonzero(share.max(axis=axis) > 0) for axis in (1, 0))
    if not len(rows):
        return None
    inner = np.pad(share[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 2)
    zoomed = ndimage.zoom(inner, 4, order=1, mode="grid-constant", grid_mode=True) > 0.5
    area = float(zoomed.sum())
    if area < 16 * 30:
        return None
    solid = ndimage.binary_fill_holes(zoomed)
    assert solid is not None
    filled = float(solid.sum())
    ys, xs = np.nonzero(solid)
    rim = np.argwhere(solid & ~ndimage.binary_erosion(solid)).astype(float)
    try:
        hull = ConvexHull(rim).volume
    except QhullError:
        return None
    cy, cx = ys.mean(), xs.mean()
    angles = np.arange(_RAYS) * 2 * np.pi / _RAYS
    reach = np.arange(0, np.hypot(*solid.shape), 0.5)
    ray_x = np.rint(cx + np.cos(angles)[:, None] * reach).astype(int)
    ray_y = np.rint(cy + np.sin(angles)[:, None] * reach).astype(int)
    within = (ray_x >= 0) & (ray_x < solid.shape[1]) & (ray_y >= 0) & (ray_y < solid.shape[0])
    hit = within & solid[np.where(within, ray_y, 0), np.where(within, ray_x, 0)]
    radius = np.where(hit, reach, 0).max(axis=1)
    return radius / radius.mean(), filled / hull, 1 - area / filled


def shape_of_frame(share: Floats) -> tuple[str, Floats | None]:
    """The shape in one frame's coverage, and the radius series it was told from."""
    outline = _outline(share)
    if outline is None:
        return UNKNOWN, None
    radius, solidity, holes = outline
    waves = 2 * np.abs(np.fft.rfft(radius))[:9] / _RAYS
    if holes > 0.06:
        return ("ring" if waves[2:7].max() < 0.08 else UNKNOWN), radius
    order = 3 + int(np.argmax(waves[3:7]))
    if solidity < 0.87:
        if order == 5 and waves[5] > 0.12:
            return "star", radius
        return ("cross" if order == 4 and waves[4] > 0.08 else UNKNOWN), radius
    if order == 3 and waves[3] > 0.12:
        return "triangle", radius
    if order == 4 and waves[4] > 0.055 and waves[3] < 0.05:
        return "square", radius
    return ("circle" if waves[2:7].max() < 0.055 and solidity > 0.93 else UNKNOWN), radius


def _touches_border(share: Floats) -> bool:
    return bool(max(share[0].max(), share[-1].max(), share[:, 0].max(), share[:, -1].max()) > 0.5)


def shape_of_clip(pieces: list[Floats]) -> str:
    """The shape that at least half of the judged frames show; frames cut by the border only count if all are."""
    whole = [piece for piece in pieces if not _touches_border(piece)]
    names = [shape_of_frame(piece)[0] for piece in (whole if len(whole) >= 3 else pieces)]
    if not names:
        return UNKNOWN
    best = max(set(names), key=lambda name: (names.count(name), name))
    return best if names.count(best) * 2 >= len(names) else UNKNOWN


def spin_deg(pieces: list[Floats], symmetry: int) -> float:
    """How far the outline turns over the clip, in degrees either way: the summed phase of its main wave."""
    phases = []
    for piece in pieces:
        outline = _outline(piece)
        if outline is not None:
            phases.append(float(np.angle(np.fft.rfft(outline[0])[symmetry])))
    if len(phases) < 2:
        return 0.0
    return float(abs(np.rad2deg(np.unwrap(phases)[-1] - phases[0])) / symmetry)


def motion_of(path: Floats, areas: Floats, spin: float) -> str:
    """The motion that a centroid path (frames, 2), the areas and the turning describe.

    A circle is recognised by its turning heading, a straight line by ending about as far as it went.
    """
    ends = path[-3:].mean(axis=0) - path[:3].mean(axis=0)
    smooth = ndimage.uniform_filter1d(path, 3, axis=0, mode="nearest")
    steps = np.diff(smooth, axis=0)
    length = float(np.linalg.norm(steps, axis=1).sum())
    travel = float(np.linalg.norm(ends))
    moving = steps[np.linalg.norm(steps, axis=1) > 0.4]
    turned = 0.0
    if len(moving) >= 4:
        heading = np.unwrap(np.arctan2(moving[:, 1], moving[:, 0]))
        turned = float(abs(np.rad2deg(heading[-1] - heading[0])))
    if length > 12 and turned > 100:
        return "circling"
    if travel >= MIN_TRAVEL_PX:
        if length > 1.6 * travel + 4:
            return UNKNOWN
        return _SECTORS[round(float(np.rad2deg(np.arctan2(ends[1], ends[0]))) / 45) % 8]
    growth = float(areas[-3:].mean() / max(areas[:3].mean(), 1.0))
    if growth >= MIN_GROWTH:
        return "growing"
    if growth <= 1 / MIN_GROWTH:
        return "shrinking"
    if spin >= MIN_SPIN_DEG:
        return "spinning"
    return "still" if travel < MIN_TRAVEL_PX * 0.6 and length < 14 else UNKNOWN


def measure(clip: Frames) -> Measured:
    """Measure a clip (frames, height, width, 3) of 8-bit RGB that shows one moving shape.

    A clip whose foreground is missing from more than a third of the frames is unknown in everything.
    """
    if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != np.uint8:
        raise ValueError(f"expected uint8 (frames, height, width, 3), got {clip.dtype} {clip.shape}")
    share, colour, ground = foreground(clip)
    pieces = [largest(frame) for frame in share]
    areas = np.array([piece.sum() for piece in pieces])
    seen = np.flatnonzero(areas > 20)
    background = (int(ground[0]), int(ground[1]), int(ground[2]))
    if len(seen) < 3 or len(seen) * 3 < 2 * len(pieces):
        return Measured(UNKNOWN, 0.0, UNKNOWN, UNKNOWN, (0.0, 0.0), 1.0, 0.0, background, len(seen))
    visible = [pieces[i] for i in seen]
    path = np.array([ndimage.center_of_mass(piece)[::-1] for piece in visible])
    name, hue = colour_name(colour)
    shape = shape_of_clip(visible)
    spin = spin_deg(visible, _SYMMETRY[shape]) if shape in _SYMMETRY else 0.0
    ends = path[-3:].mean(axis=0) - path[:3].mean(axis=0)
    growth = float(areas[seen][-3:].mean() / areas[seen][:3].mean())
    motion = motion_of(path, areas[seen], spin)
    return Measured(name, hue, shape, motion, (float(ends[0]), float(ends[1])), growth, spin, background, len(seen))
