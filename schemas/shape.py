"""Shapes (width × height × frames) and the rules that a model family puts on them."""

import math
import re
from fractions import Fraction
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import Issue

MAX_SIDE = 16384
# Containers count in whole ticks: below, a frame lasts longer than they can say.
MIN_FPS, MAX_FPS = 0.1, 240.0
# The shorter side of what players call so.
LINES = {"480p": 480, "720p": 720, "1080p": 1080, "4k": 2160}

_RATIO = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*[:x×]\s*(\d+(?:\.\d+)?)\s*$")

# Runway writes sizes as ratios ("1280:720"). A side above this is a size, at or below it a ratio.
_LARGEST_RATIO_SIDE = 64


class Shape(BaseModel):
    """Width and height in pixels, length in frames."""

    model_config = ConfigDict(frozen=True)

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    frames: int = Field(ge=1)

    @property
    def pixels(self) -> int:
        """Pixels of one frame."""
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}"


class ShapeRule(BaseModel):
    """What shapes a variant can render.

    Sides divide by `divisor`; frames are `frame_step·k + frame_offset`, k ≥ 1 (one frame is never asked for
    unless `min_frames` is 1). `native` shapes are what the model was trained on, best first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    divisor: int = Field(ge=1, description="of width and height")
    frame_step: int = Field(default=1, ge=1, description="k frames more are a valid length again")
    frame_offset: int = Field(default=0, ge=0, description="frames beyond a multiple of `frame_step`")
    min_frames: int = Field(default=1, ge=1, description="the shortest clip")
    max_frames: int = Field(ge=1, description="the longest clip")
    min_side: int = Field(default=16, ge=1, description="of width and height")
    max_pixels: int = Field(ge=1, description="pixels of one frame")
    native: tuple[tuple[int, int, int], ...] = Field(
        min_length=1, description="(width, height, frames); the first is the default"
    )

    def default(self) -> Shape:
        """The first native shape."""
        width, height, frames = self.native[0]
        return Shape(width=width, height=height, frames=frames)

    def issues(self, shape: Shape, longest: int = 0) -> tuple[Issue, ...]:
        """Everything that is wrong with `shape`, each with the nearest valid values. Empty when it fits.

        `longest`: of a clip that is made of several calls; beyond one call's, any number of frames up to it is
        valid.
        """
        found: list[Issue] = []
        near = self.nearest(shape, longest)
        for name, side, valid in (("width", shape.width, near.width), ("height", shape.height, near.height)):
            if side % self.divisor or side < self.min_side:
                found.append(
                    Issue(
                        path=name,
                        message=f"{side} must be a multiple of {self.divisor}, at least {self._least_side()}",
                        code="shape",
                        choices=tuple(map(str, dict.fromkeys((valid, *self._neighbours(side))))),
                    )
                )
        if shape.pixels > self.max_pixels and not found:
            found.append(
                Issue(
                    path="width",
                    message=f"{shape.width}x{shape.height} is more than {self.max_pixels} pixels a frame",
                    code="shape",
                    choices=(f"{near.width}x{near.height}",),
                )
            )
        if not self._frames_fit(shape.frames, longest):
            found.append(
                Issue(
                    path="num_frames",
                    message=f"{shape.frames} must be {self._frames_rule(longest)}",
                    code="shape",
                    choices=tuple(map(str, self._frames_near(shape.frames, longest))),
                )
            )
        return tuple(found)

    def nearest(self, shape: Shape, longest: int = 0) -> Shape:
        """The nearest valid shape: same proportions where the pixel limit forces it smaller. `longest` as in
        `issues`."""
        width, height = self._round_side(shape.width), self._round_side(shape.height)
        if width * height > self.max_pixels:
            scale = math.sqrt(self.max_pixels / (shape.width * shape.height))
            width = max(self._least_side(), int(shape.width * scale) // self.divisor * self.divisor)
            height = max(self._least_side(), int(shape.height * scale) // self.divisor * self.divisor)
            # A side that cannot be smaller leaves the other less than its proportion.
            most = max(self._least_side(), self.max_pixels // min(width, height) // self.divisor * self.divisor)
            width, height = min(width, most), min(height, most)
        frames = min(self._frames_near(shape.frames, longest), key=lambda n: (abs(n - shape.frames), n))
        return Shape(width=width, height=height, frames=frames)

    def for_ratio(self, ratio: Fraction) -> tuple[int, int]:
        """(width, height) for a width/height ratio: the closest native one, else the native area re-cut."""
        closest = min(self.native, key=lambda n: abs(math.log(n[0] / n[1] / float(ratio))))
        if abs(math.log(closest[0] / closest[1] / float(ratio))) < 0.05:
            return closest[0], closest[1]
        area = self.native[0][0] * self.native[0][1]
        cut = self.nearest(
            Shape(
                width=max(1, round(math.sqrt(area * float(ratio)))),
                height=max(1, round(math.sqrt(area / float(ratio)))),
                frames=self.native[0][2],
            )
        )
        return cut.width, cut.height

    def frames_for(self, duration_s: float, fps: float, longest: int = 0) -> int:
        """The valid frame count closest to `duration_s` seconds at `fps`. `longest` as in `issues`."""
        wanted = max(1, round(duration_s * fps))
        return min(self._frames_near(wanted, longest), key=lambda n: (abs(n - wanted), n))

    def _frames_rule(self, longest: int) -> str:
        bounds = f"from {self._least_frames()} to {self._most_frames()}"
        if longest > self._most_frames():
            bounds += f", or any number beyond up to {longest}"
        if self.frame_step == 1:
            return bounds
        offset = f"+{self.frame_offset}" if self.frame_offset else ""
        return f"{self.frame_step}k{offset}, {bounds}"

    def _frames_fit(self, frames: int, longest: int) -> bool:
        if self._most_frames() < frames <= longest:
            return True
        on_grid = (frames - self.frame_offset) % self.frame_step == 0
        return on_grid and self._least_frames() <= frames <= self._most_frames()

    def _least_frames(self) -> int:
        steps = max(0, math.ceil((self.min_frames - self.frame_offset) / self.frame_step))
        return max(1, steps * self.frame_step + self.frame_offset)

    def _most_frames(self) -> int:
        return (self.max_frames - self.frame_offset) // self.frame_step * self.frame_step + self.frame_offset

    def _frames_near(self, frames: int, longest: int) -> tuple[int, ...]:
        if min(frames, longest) > self._most_frames():
            return (min(frames, longest),)
        below = (frames - self.frame_offset) // self.frame_step * self.frame_step + self.frame_offset
        both = (below, below + self.frame_step) if below != frames else (frames,)
        least, most = self._least_frames(), self._most_frames()
        return tuple(dict.fromkeys(min(max(n, least), most) for n in both))

    def _least_side(self) -> int:
        return math.ceil(self.min_side / self.divisor) * self.divisor

    def _round_side(self, side: int) -> int:
        return max(self._least_side(), round(side / self.divisor) * self.divisor)

    def _neighbours(self, side: int) -> tuple[int, int]:
        below = max(self._least_side(), side // self.divisor * self.divisor)
        return below, below + self.divisor


@lru_cache(maxsize=1024)
def parse_ratio(text: str) -> tuple[int, int] | Fraction:
    """Read `"16:9"` as a proportion and `"1280:720"` (Runway's form) as a size in pixels.

    Raises ValueError, naming both forms, when it is neither.
    """
    match = _RATIO.match(text)
    if not match:
        raise ValueError(f"{text!r} is no ratio; write '16:9' or '1280:720'")
    left, right = Fraction(match[1]), Fraction(match[2])
    if left <= 0 or right <= 0:
        raise ValueError(f"{text!r}: both sides must be positive")
    if left > _LARGEST_RATIO_SIDE and right > _LARGEST_RATIO_SIDE and left.denominator == right.denominator == 1:
        return int(left), int(right)
    return left / right
