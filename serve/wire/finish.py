"""What is to be done to a clip after it was rendered, as a body says it."""

from typing import Literal

from pydantic import Field, model_validator

from schemas.finish import FinishStep, read_steps
from schemas.shape import MAX_FPS
from serve.wire.base import Refusal, Wire
from serve.wire.motion import CameraBody


class OwnStep(Wire):
    """One of `interpolate`, `upscale`, `fit` and `reframe`."""

    interpolate: float | None = Field(default=None, gt=0, le=MAX_FPS, description="to so many frames a second")
    upscale: float | str | None = Field(
        default=None, description="by a factor up to 8, or to '1280:720', '720p', '1080p', '4k'"
    )
    fit: Literal["pad", "crop", "stretch"] | None = Field(default=None, description="how it is brought to `size`")
    reframe: CameraBody = Field(default=(), description="keys of a camera that only turns and zooms")
    size: str | None = Field(default=None, max_length=40, description="of fit and reframe; unless, `ratio` in pixels")
    by: str | None = Field(default=None, min_length=1, max_length=200, description="a finisher of the catalog")

    @model_validator(mode="after")
    def _is_a_step(self) -> "OwnStep":
        _, issues = read_steps([self.model_dump()])
        if issues:
            path = tuple(int(part) if part.isdigit() else part for part in issues[0].path.split(".")[2:])
            raise Refusal(issues[0].message, issues[0].code, issues[0].choices, path)
        return self

    @property
    def step(self) -> FinishStep:
        return FinishStep.model_validate(self.model_dump())
