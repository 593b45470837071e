"""What is done to a clip after it was rendered: smoother, larger, of another size.

A `FinishStep` is what a client says, a `FinishStage` the same resolved: by whom it is done, and what the clip is
afterwards. Stages follow one another; each makes a clip of its own, whose fingerprint follows from the one before it.
Who does them is a `Finisher` of the catalog. The floor is there always: FFmpeg's filters, without weights.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.errors import Issue
from schemas.issues import issues_of
from schemas.motion import Camera, CameraKey, absolute_camera, read_motion
from schemas.reframe import LEAST_SHARE, reframe_wrong, window_share, window_sides
from schemas.shape import LINES, MAX_FPS, MAX_SIDE, Shape

MAX_STEPS = 8
MAX_FACTOR = 8.0
_LEAST_SIDE = 32  # below, '16:9' was meant as a proportion
_SIZE = re.compile(r"\s*(\d{1,6})\s*[:x×]\s*(\d{1,6})\s*")
# Of two proportions that are the same but for whole pixels.
_SAME_PROPORTION = 0.02

FitMode = Literal["pad", "crop", "stretch"]
Method = Literal["lanczos", "blend", "motion", "window", "spandrel", "latent"]


class Operation(StrEnum):
    """What a stage does."""

    INTERPOLATE = "interpolate"  # more frames a second, as long as before
    UPSCALE = "upscale"  # larger, in the same proportion
    FIT = "fit"  # exactly of a size
    REFRAME = "reframe"  # a window that moves through it as a camera would


METHODS: dict[str, tuple[Operation, ...]] = {
    "lanczos": (Operation.UPSCALE, Operation.FIT),
    "blend": (Operation.INTERPOLATE,),
    "motion": (Operation.INTERPOLATE,),
    "window": (Operation.REFRAME,),
    "spandrel": (Operation.UPSCALE,),
    "latent": (Operation.UPSCALE,),
}
# Those whose entry names weights.
NETWORKS = frozenset({"spandrel", "latent"})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Finisher(_Frozen):
    """Who does one kind of stage: an entry [finishers.NAME] of the catalog."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="the NAME of [finishers.NAME]: not written again")
    title: str = Field(default="", description="for people")
    method: Method = Field(
        description="lanczos, blend, motion: FFmpeg's filters; window: moves through the picture; spandrel: a network "
        "for single frames, with the extra; latent: a pipeline of diffusers that makes clips larger in a VAE's latents "
        "(LTX, LTX-2, Kandinsky 6)"
    )
    weights: str | None = Field(
        default=None,
        description="of spandrel: a .safetensors file; of latent: hub id, local folder, or s3:// prefix of a diffusers "
        "pipeline; none of the others",
    )
    steps: int | None = Field(
        default=None, ge=1, description="of a latent one that denoises (Kandinsky 6); its own number when not set"
    )
    s_per_megapixel: float = Field(default=0.02, ge=0, description="seconds for a million pixels that come out")
    price_usd_per_hour: float = Field(default=0.0, ge=0, description="of what it holds while it works")

    @property
    def operations(self) -> tuple[Operation, ...]:
        return METHODS[self.method]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over what decides the pixels."""
        told = json.dumps([self.method, self.weights, *([] if self.steps is None else [self.steps])])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @model_validator(mode="after")
    def _weights_where_they_are_read(self) -> "Finisher":
        if self.steps is not None and self.method != "latent":
            raise ValueError(f"{self.method} takes no steps")
        if (self.method in NETWORKS) != (self.weights is not None):
            raise ValueError(
                f"{self.method} needs weights" if self.weights is None else f"{self.method} takes no weights"
            )
        return self


FLOOR: dict[str, Finisher] = {
    one.name: one
    for one in (
        Finisher(name="lanczos", method="lanczos", title="FFmpeg's scaler, Lanczos", s_per_megapixel=0.02),
        Finisher(name="blend", method="blend", title="neighbouring frames, mixed", s_per_megapixel=0.02),
        Finisher(name="motion", method="motion", title="FFmpeg's motion estimation", s_per_megapixel=0.6),
        Finisher(name="window", method="window", title="a moving window", s_per_megapixel=0.1),
    )
}


class FinishStep(_Frozen):
    """One thing to be done to a clip: `interpolate`, `upscale`, `fit` or `reframe`."""

    interpolate: float | None = Field(default=None, gt=0, le=MAX_FPS, description="to so many frames a second")
    upscale: float | str | None = Field(
        default=None, description="by a factor, or to a size: '1280:720', or lines: '720p', '1080p', '4k'"
    )
    fit: FitMode | None = Field(
        default=None, description="pad: bars; crop: what overhangs is cut off; stretch: out of proportion"
    )
    reframe: Camera = Field(default=(), description="keys of a camera that only turns and zooms, in a larger picture")
    size: str | None = Field(
        default=None, description="of fit and reframe: '1280:720'; without it, the size that was asked for"
    )
    by: str | None = Field(default=None, min_length=1, description="a finisher of the catalog; its own choice without")

    @field_validator("upscale", mode="before")
    @classmethod
    def _number_in_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return float(value.removesuffix("x"))  # "2x" as well as "2"
            except ValueError:
                return value
        return value

    @model_validator(mode="after")
    def _one_thing(self) -> "FinishStep":
        told = self._told
        if len(told) != 1:
            raise ValueError(f"a step is one of {', '.join(Operation)}")
        if self.size is not None and self.fit is None and not self.reframe:
            raise ValueError(f"{told[0]} takes no size: that is of fit and reframe")
        if self.reframe and (wrong := reframe_wrong(self.reframe)) is not None:
            raise ValueError(f"reframe: {wrong}")
        if self.size is not None:
            _pixels(self.size, "size: {!r} is no size in pixels; write '1280:720'")
        if isinstance(self.upscale, str) and self.upscale not in LINES:
            _pixels(
                self.upscale, f"upscale: {{!r}} is no factor and no size; available: 2, 1280:720, {', '.join(LINES)}"
            )
        if isinstance(self.upscale, float) and not 1 < self.upscale <= MAX_FACTOR:
            raise ValueError(f"upscale: a factor is above 1 and at most {MAX_FACTOR:g} (got {self.upscale:g})")
        return self

    @property
    def operation(self) -> Operation:
        return self._told[0]

    @property
    def _told(self) -> list[Operation]:
        """What it says is to be done: one thing, once it is checked."""
        return [one for one in Operation if getattr(self, one.value) not in (None, ())]


class FinishStage(_Frozen):
    """A step as it is done. `width`, `height` (pixels), `frames` and `fps` are the clip's afterwards."""

    operation: Operation
    by: str
    digest: str
    width: int
    height: int
    frames: int
    fps: float
    fit: FitMode | None = None
    camera: tuple[CameraKey, ...] = Field(default=(), description="of reframe, absolute and whole")

    @property
    def shape(self) -> Shape:
        return Shape(width=self.width, height=self.height, frames=self.frames)

    @property
    def told(self) -> str:
        """For people, and for the credentials: 'upscale to 1280x720 by lanczos'."""
        to = f"{self.fps:g} fps" if self.operation is Operation.INTERPOLATE else f"{self.width}x{self.height}"
        how = f" ({self.fit})" if self.fit else ""
        return f"{self.operation}{how} to {to} by {self.by}"


def chained(fingerprint: str, stages: Iterable[FinishStage]) -> str:
    """The fingerprint of the clip that `stages` make of the clip `fingerprint`: link by link."""
    for stage in stages:
        # Stages without a camera are what they were before there were others.
        told = stage.model_dump_json(exclude={"by"} if stage.camera else {"by", "camera"})
        fingerprint = hashlib.sha256(f"{fingerprint}{told}".encode()).hexdigest()[:32]
    return fingerprint


def asks_for_size(steps: Sequence[FinishStep]) -> bool:
    """Whether some step brings the clip to the size that the request asks for, so that a variant need not have it."""
    return any(step.operation in (Operation.FIT, Operation.REFRAME) and step.size is None for step in steps)


def larger_by(steps: Sequence[FinishStep], asked: tuple[int, int], frames: int, fps: float) -> float:
    """By what a clip should be rendered larger than the size that is asked for, so that what a window shows of it has
    that size; 1 where no window moves. Of one that leaves the picture, too."""
    step = next((one for one in steps if one.reframe), None)
    if step is None or step.size is not None:
        return 1.0
    shape = Shape(width=asked[0], height=asked[1], frames=frames)
    share = window_share(step.reframe, shape, fps, asked[0] / asked[1])
    return 1 / share if share >= LEAST_SHARE else 1.0


def resolved_finish(
    steps: Sequence[FinishStep],
    shape: Shape,
    fps: float,
    finishers: Mapping[str, Finisher],
    asked: tuple[int, int] | None = None,
) -> tuple[tuple[FinishStage, ...], tuple[Issue, ...]]:
    """What `steps` do to a clip of this shape, and what is wrong with them. `asked` is the request's own size."""
    stages: list[FinishStage] = []
    issues: list[Issue] = []
    if len(steps) > MAX_STEPS:
        issues.append(Issue("finish", f"{len(steps)} of them, at most {MAX_STEPS}", "too_many"))
    width, height, frames = shape.width, shape.height, shape.frames
    for number, step in enumerate(steps[:MAX_STEPS]):
        path, operation = f"finish.{number}", step.operation
        able = tuple(name for name, one in finishers.items() if operation in one.operations)
        if step.by is not None and step.by not in able:
            issues.append(Issue(f"{path}.by", f"{step.by!r} does no {operation}", "unknown_finisher", able))
            continue
        if not able:
            issues.append(Issue(path, f"nobody does {operation} here", "unknown_finisher"))
            continue
        by = finishers[step.by or able[0]]
        if step.interpolate is not None:
            if step.interpolate <= fps:
                text = f"{step.interpolate:g} fps is no more than the {fps:g} that the clip has"
                issues.append(Issue(f"{path}.interpolate", text, "range", (f"{2 * fps:g}",)))
                continue
            # As long as before, to the nearest frame.
            frames = round(Fraction(frames) * Fraction(step.interpolate) / Fraction(fps))
            fps = step.interpolate
        elif step.upscale is not None:
            size = _larger(step.upscale, width, height)
            if isinstance(size, str):
                near = _larger(2.0, width, height)
                choices = (f"{near[0]}:{near[1]}",) if isinstance(near, tuple) else ()
                issues.append(Issue(f"{path}.upscale", size, "range", choices))
                continue
            width, height = size
        elif step.reframe:
            size = _window(step, Shape(width=width, height=height, frames=frames), fps, asked)
            if isinstance(size, str):
                issues.append(Issue(f"{path}.reframe", size, "range"))
                continue
            width, height = size
        else:
            target = _pixels(step.size) if step.size is not None else asked
            if target is None:
                text = "to which size? give it here, or the request's own in pixels"
                issues.append(Issue(f"{path}.size", text, "missing", ("1280:720",)))
                continue
            width, height = target
        if max(width, height) > MAX_SIDE:
            issues.append(Issue(path, f"{width}x{height}: no side above {MAX_SIDE}", "range"))
            continue
        stages.append(
            FinishStage(
                operation=operation,
                by=by.name,
                digest=by.digest,
                width=width,
                height=height,
                frames=frames,
                fps=fps,
                fit=step.fit,
                camera=absolute_camera(step.reframe),
            )
        )
    return tuple(stages), tuple(issues)


def finish_s(stages: Iterable[FinishStage], finishers: Mapping[str, Finisher]) -> tuple[float, float]:
    """(seconds, USD) that the stages of one clip are expected to take."""
    seconds = usd = 0.0
    for stage in stages:
        by = finishers.get(stage.by)
        if by is not None:
            own_s = by.s_per_megapixel * stage.width * stage.height * stage.frames / 1e6
            seconds += own_s
            usd += own_s * by.price_usd_per_hour / 3600
    return seconds, usd


def read_steps(value: Any, path: str = "finish") -> tuple[tuple[FinishStep, ...], tuple[Issue, ...]]:
    """Steps from JSON, or what is wrong with them, with the choices."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list | tuple):
        return (), (Issue(path, f"must be a list of steps (got {repr(value)[:60]})", "type"),)
    steps: list[FinishStep] = []
    issues: list[Issue] = []
    for number, one in enumerate(value):
        where = f"{path}.{number}"
        if isinstance(one, FinishStep):
            steps.append(one)
            continue
        if not isinstance(one, dict):
            issues.append(Issue(where, f"must be an object with one of {', '.join(Operation)}", "type"))
            continue
        told = _said(one)
        if "reframe" in told:
            told["reframe"], wrong = read_motion("camera", told["reframe"])
            if wrong:
                issues += [
                    dataclasses.replace(found, path=found.path.replace("camera", f"{where}.reframe", 1))
                    for found in wrong
                ]
                continue
        try:
            steps.append(FinishStep.model_validate(told))
        except ValidationError as error:
            issues += issues_of(error, where, "a step", FinishStep.model_fields, {"fit": get_args(FitMode)})
    return tuple(steps), tuple(issues)


def _said(value: Any) -> Any:
    """Without what tables write as null because a row does not have it."""
    if isinstance(value, dict):
        return {str(name): _said(one) for name, one in value.items() if one is not None}
    return [_said(one) for one in value] if isinstance(value, list) else value


def _pixels(text: str, otherwise: str = "") -> tuple[int, int]:
    """(Width, height) of '1280:720'. Raises ValueError with `otherwise`, in which the text is put."""
    found = _SIZE.fullmatch(text)
    if found is None or min(int(found[1]), int(found[2])) < _LEAST_SIDE:
        raise ValueError(otherwise.format(text[:40]))
    return int(found[1]), int(found[2])


def _window(step: FinishStep, shape: Shape, fps: float, asked: tuple[int, int] | None) -> tuple[int, int] | str:
    """The size of what a window shows; in words, why it cannot. Without a size it is that of the window itself."""
    target = _pixels(step.size) if step.size is not None else asked
    proportion = shape.width / shape.height if target is None else target[0] / target[1]
    share = window_share(step.reframe, shape, fps, proportion)
    if share < LEAST_SHARE:
        return f"the window would leave the picture, or be less than {LEAST_SHARE:.0%} of it: turn less"
    wide, high = window_sides(shape, proportion)
    return target or (_even(wide * share), _even(high * share))


def _larger(wanted: float | str, width: int, height: int) -> tuple[int, int] | str:
    """The size that an upscale comes to; in words, why it cannot."""
    if isinstance(wanted, str) and wanted in LINES:
        lines = LINES[wanted]
        scale = lines / min(width, height)
        size = (_even(width * scale), lines) if width >= height else (lines, _even(height * scale))
    elif isinstance(wanted, str):
        size = _pixels(wanted)
        if abs(math.log(size[0] / size[1] * height / width)) > _SAME_PROPORTION:
            return f"{size[0]}x{size[1]} is of another proportion than {width}x{height}: upscale, then fit"
    else:
        size = (_even(width * wanted), _even(height * wanted))
    if size[0] <= width or size[1] <= height:
        return f"{size[0]}x{size[1]} is not larger than {width}x{height}"
    return size


def _even(side: float) -> int:
    """Players want sides of whole pairs of pixels."""
    return max(2, round(side / 2) * 2)
