"""The body of `POST /v1/video_upscale`: Runway's upscaler, and its frame rate, by `model`."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from schemas.finish import MAX_STEPS, FinishStep
from schemas.inputs import Role
from serve.wire.base import Refusal
from serve.wire.creates import GenerateInput, ImageToVideo, VideoToVideo
from serve.wire.finish import OwnStep
from serve.wire.inputs import Media, NamedInput
from serve.wire.own import Own
from serve.wire.shot import ContentModeration, Format

UPSCALER, FRAME_RATE = "magnific_video_upscaler_creative", "enhance_frame_rate"
# Runway's lines: of the shorter side.
LINES = {"720p": 720, "1k": 1080, "2k": 1440, "4k": 2160}
_RENDERED = "the video is not rendered anew; say it to video_to_video"
_INVENTED = "nothing is invented here: the video is only enlarged"
_RATES = {"23_98": 23.976, "29_97": 29.97, "59_94": 59.94}


class VideoUpscale(Own):
    """A video that is made larger, or smoother."""

    unsupported: ClassVar[dict[str, str]] = {
        **{
            str(field.alias): _RENDERED
            for body in (ImageToVideo, VideoToVideo, GenerateInput)
            for field in body.model_fields.values()
        },
        "creativity": _INVENTED,
        "flavor": _INVENTED,
        "sharpen": _INVENTED,
        "smartGrain": _INVENTED,
        "fpsBoost": f"say model {FRAME_RATE!r}",
    }

    model: Literal["magnific_video_upscaler_creative", "enhance_frame_rate"]
    video_uri: Media
    resolution: Literal["720p", "1k", "2k", "4k"] | None = Field(default=None, description="of the upscaler: 2k unless")
    target_framerate: Literal["24", "25", "30", "48", "50", "60", "120", "23_98", "29_97", "59_94"] | None = Field(
        default=None, description="of enhance_frame_rate"
    )
    output_format: Format = "mp4"
    content_moderation: ContentModeration | None = None
    finish: tuple[OwnStep, ...] = Field(
        default=(), max_length=MAX_STEPS - 1, description="what is done to the clip after that, in this order"
    )

    @model_validator(mode="after")
    def _of_its_model(self) -> "VideoUpscale":
        if self.model == FRAME_RATE and self.target_framerate is None:
            raise Refusal("is required", "required", within=("targetFramerate",))
        if self.model == FRAME_RATE and self.resolution is not None:
            raise Refusal(f"is of {UPSCALER}", "unsupported", within=("resolution",))
        if self.model == UPSCALER and self.target_framerate is not None:
            raise Refusal(f"is of {FRAME_RATE}", "unsupported", within=("targetFramerate",))
        return self

    @property
    def named_input(self) -> NamedInput:
        return NamedInput.of(Role.SOURCE, self.video_uri, ("videoUri",))

    def step(self, width: int, height: int) -> FinishStep:
        """What is to be done to a video of so many pixels."""
        if self.target_framerate is not None:
            return FinishStep(interpolate=_RATES.get(self.target_framerate) or float(self.target_framerate))
        scale = LINES[self.resolution or "2k"] / min(width, height)
        return FinishStep(upscale=f"{_even(width * scale)}:{_even(height * scale)}")


def _even(side: float) -> int:
    return max(32, round(side / 2) * 2)
