"""Bodies of the creates: Runway's fields, and ours beside them (`Own`, `Shot`)."""

from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from schemas.inputs import FRAMES, Role
from schemas.request import Mode
from schemas.shape import LINES, MAX_SIDE, parse_ratio
from serve.wire.base import Refusal
from serve.wire.inputs import GenerateImage, GenerateReference, Images, Media, NamedInput, References, all_named
from serve.wire.own import Name, Own
from serve.wire.shot import UNSUPPORTED, Prompt, Shot

MAX_PROPORTION = 16


def _ratio(text: str) -> str:
    wrong = _wrong_ratio(text)
    if wrong is not None:
        raise Refusal(wrong, "invalid_format")
    return text


def _wrong_ratio(text: str) -> str | None:
    try:
        size = parse_ratio(text)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        return str(error)
    sides = size if isinstance(size, tuple) else (max(size, 1 / size),)
    if max(sides) > (MAX_SIDE if isinstance(size, tuple) else MAX_PROPORTION):
        return f"{text!r} is too large; write '16:9' or '1280:720'"
    return None


Ratio = Annotated[str, Field(max_length=40, examples=["1280:720", "16:9"]), AfterValidator(_ratio)]


class Creates(Shot, Own):
    """What the creates have in common."""

    mode: ClassVar[Mode]

    model: Name = Field(description="a variant, one of its aliases, or 'auto'", examples=["embedded", "auto"])
    ratio: Ratio | None = Field(default=None, description="a size or a proportion; the nearest one there is, is used")
    references: References = Field(default_factory=list, description="images of who or what is to be seen")

    def _own_media(self) -> list[NamedInput]:
        return [*super()._own_media(), *all_named("references", self.references)]


class TextToVideo(Creates):
    """`POST /v1/text_to_video`."""

    mode = Mode.TEXT_TO_VIDEO

    prompt_text: Prompt | None = Field(
        default=None, validate_default=True, examples=["a red circle moving left on a blue background"]
    )

    @field_validator("prompt_text")
    @classmethod
    def _a_prompt(cls, prompt_text: str | None, info: ValidationInfo) -> str | None:
        """Of the field and not of the whole: so it is told beside what is wrong with others."""
        if prompt_text is None and info.data.get("prompts") == ():
            raise Refusal("is required (or prompts)", "required")
        return prompt_text


class ImageToVideo(Creates):
    """`POST /v1/image_to_video`. `promptImage` is the first frame, or a list of images with their positions: `first`,
    `last`, or none for a reference."""

    mode = Mode.IMAGE_TO_VIDEO

    prompt_image: Images | None = None

    @model_validator(mode="after")
    def _an_image(self) -> "ImageToVideo":
        if self.prompt_image is None and not self.has(*FRAMES):
            raise Refusal("is required (or a frame among inputs)", "required", within=("promptImage",))
        return self

    def _own_media(self) -> list[NamedInput]:
        images = self.prompt_image or []
        if len(images) == 1 and images[0].position == "first":
            return [NamedInput.of(Role.FIRST_FRAME, images[0].uri, ("promptImage",)), *super()._own_media()]
        return [*all_named("promptImage", images), *super()._own_media()]


class VideoToVideo(Creates):
    """`POST /v1/video_to_video`. The video is `videoUri`, or `promptVideo` as newer models say."""

    mode = Mode.VIDEO_TO_VIDEO

    video_uri: Media | None = None
    prompt_video: Media | None = None
    strength: float | None = Field(default=None, gt=0, le=1, description="how much of the video is made anew")

    @model_validator(mode="after")
    def _one_video(self) -> "VideoToVideo":
        if self.video_uri is None and self.prompt_video is None and self.has(Role.SOURCE):
            if self.strength is not None:
                raise Refusal("say it in the input", "invalid", within=("strength",))
            return self
        if self.video_uri is None and self.prompt_video is None:
            raise Refusal("is required (or promptVideo)", "required", within=("videoUri",))
        if self.video_uri is not None and self.prompt_video is not None:
            raise Refusal("give videoUri or promptVideo, not both", "invalid", within=("promptVideo",))
        return self

    def _own_media(self) -> list[NamedInput]:
        uri = self.video_uri or self.prompt_video
        if uri is None:
            return super()._own_media()
        name = "videoUri" if self.video_uri is not None else "promptVideo"
        return [NamedInput.of(Role.SOURCE, uri, (name,), strength=self.strength), *super()._own_media()]


class GenerateInput(Shot):
    """What is wanted, whichever model renders it."""

    unsupported: ClassVar[dict[str, str]] = {
        **UNSUPPORTED,
        "model": "the router of configId chooses; say allowModels beside input",
        "ratio": "say aspectRatio and resolution",
        "references": "say referenceImages, with the role reference",
        "promptImage": "say referenceImages, with the role first",
        "videoUri": "say referenceVideos, with the role source",
        "promptVideo": "say referenceVideos, with the role source",
        **{str(field.alias): "say it beside input" for field in Own.model_fields.values()},
    }

    aspect_ratio: Literal["16:9", "9:16", "1:1", "4:3", "3:4", "21:9"] | None = None
    resolution: Literal["480p", "720p", "1080p", "4k"] | None = None
    reference_images: tuple[GenerateImage, ...] = Field(default=(), max_length=20)
    reference_videos: tuple[GenerateReference, ...] = Field(default=(), max_length=20)

    @model_validator(mode="after")
    def _asks_for_something(self) -> "GenerateInput":
        if self.prompt_text is None and not self.prompts and not self.named_inputs:
            raise Refusal("is required, or media", "required", within=("promptText",))
        return self

    def _own_media(self) -> list[NamedInput]:
        return [
            *all_named("referenceVideos", self.reference_videos),
            *all_named("referenceImages", self.reference_images),
            *super()._own_media(),
        ]

    @property
    def ratio(self) -> str | None:
        """'16:9' at '720p' is '1280:720'; a proportion alone stays one."""
        if self.resolution is None:
            return self.aspect_ratio
        across, down = (Fraction(part) for part in (self.aspect_ratio or "16:9").split(":"))
        lines = LINES[self.resolution]
        width, height = (lines * across / down, lines) if across >= down else (lines, lines * down / across)
        return f"{round(width / 2) * 2}:{round(height / 2) * 2}"


class GenerateVideo(Own):
    """`POST /v1/generate/video`: routed by a saved router."""

    unsupported: ClassVar[dict[str, str]] = {
        "model": GenerateInput.unsupported["model"],
        **{str(field.alias): "say it in input" for field in GenerateInput.model_fields.values()},
    }

    config_id: str = Field(min_length=1, max_length=200, description="the slug of a router")
    input: GenerateInput
