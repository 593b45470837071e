"""What can be said of any clip from its pixels alone, frame by frame, in the memory of two small frames.

- `brightness`: mean luma (BT.709) in [0, 1]; `contrast`: its standard deviation within a frame (Peli, 1990)
- `saturation`: mean HSV saturation in [0, 1]
- `colourfulness`: Hasler and Süsstrunk, "Measuring colourfulness in natural images", 2003: 0 is grey, above 80 vivid
- `sharpness`: variance of the Laplacian of the luma, in levels of 255, at the clip's own size (Pech-Pacheco, 2000)
- `motion`: mean change of the luma from frame to frame, in levels of 255
- `flicker`: mean second difference of the frames' mean luma, in levels of 255: a steady fade is none
- `frozen`: no part of the picture ever changes
- `black`: half of the frames or more are black (as FFmpeg's `blackdetect`: 98 % of the pixels below a tenth)

None of them knows what a person is: nothing here looks at skin.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

_SMALL_SIDE = 256
"""All but sharpness is measured on frames of at most so many pixels a side, each the mean of what it stands for."""
_CELLS = 32
"""Parts of the picture, a side, that are watched for changes."""
_STIRS = 2.0
"""Levels of 255 by which a part has to change; coding a still picture changes less."""
_BLACK_LUMA, _BLACK_PIXELS, _BLACK_FRAMES = 0.10, 0.98, 0.5
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


class PixelStatistics:
    """Takes a clip's frames in order."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._frames = 0
        self._black = 0
        self._moved = 0.0
        self._stirred = False
        self._before: Floats | None = None
        self._levels: list[float] = []

    def add(self, frame: Image.Image) -> None:
        """One frame, RGB."""
        factor = -(-max(frame.size) // _SMALL_SIDE)
        small = np.asarray(frame.reduce(factor) if factor > 1 else frame, np.float32)
        luma = small @ _LUMA
        high, low = small.max(axis=2), small.min(axis=2)
        self._count("contrast", float(luma.std()) / 255)
        self._count("saturation", float(np.where(high > 0, (high - low) / np.maximum(high, 1), 0).mean()))
        self._count("colourfulness", _colourfulness(small))
        self._count("sharpness", _sharpness(frame))
        self._levels.append(float(luma.mean()))
        self._black += bool((luma < 255 * _BLACK_LUMA).mean() >= _BLACK_PIXELS)
        if self._before is not None and self._before.shape == luma.shape:
            change = luma - self._before
            self._moved += float(np.abs(change).mean())
            self._stirred = self._stirred or float(np.abs(_cells(change)).max()) >= _STIRS
        self._before = luma
        self._frames += 1

    def result(self) -> dict[str, float]:
        """By metric; shares are 0 or 1. One frame alone has no motion, flicker or freezing. ValueError of none."""
        if not self._frames:
            raise ValueError("no frames")
        found = {name: total / self._frames for name, total in self._sums.items()}
        found["brightness"] = float(np.mean(self._levels)) / 255
        found["black"] = float(self._black >= _BLACK_FRAMES * self._frames)
        if self._frames > 1:
            found["motion"] = self._moved / (self._frames - 1)
            found["frozen"] = float(not self._stirred)
        if self._frames > 2:
            found["flicker"] = float(np.abs(np.diff(self._levels, 2)).mean())
        return found

    def _count(self, name: str, value: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value


def _colourfulness(pixels: Floats) -> float:
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def _sharpness(frame: Image.Image) -> float:
    grey = np.asarray(frame.convert("L"), np.float32)
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    return float((grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner).var())


def _cells(change: Floats) -> Floats:
    """The mean of each part of the picture."""
    rows, columns = (np.linspace(0, side, min(side, _CELLS) + 1).astype(int) for side in change.shape)
    sums = np.add.reduceat(np.add.reduceat(change, rows[:-1], axis=0), columns[:-1], axis=1)
    counts = np.diff(rows)[:, None] * np.diff(columns)[None]
    return np.asarray(sums / counts, np.float32)
