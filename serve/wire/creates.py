"""Bodies of the creates: Runway's fields, and ours beside them (`Own`)."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from cluster.routing.terms import Preference
from schemas.finish import MAX_STEPS
from schemas.inputs import FRAMES, MAX_INPUTS, Role
from schemas.loras import MAX_LORAS, MOST_WEIGHT
from schemas.moderation import PublicFigures
from schemas.motion import Edit
from schemas.request import MAX_PROMPT_CHARS, MAX_SAMPLES, MAX_SEED, Mode
from schemas.shape import LINES, MAX_FPS, MAX_SIDE, MIN_FPS, parse_ratio
from schemas.timed_prompts import TimedPrompt, told
from serve.wire.base import Refusal, Wire
from serve.wire.finish import OwnStep
from serve.wire.inputs import (
    MOST_KEYFRAMES,
    GenerateImage,
    GenerateReference,
    Images,
    Keyframe,
    Media,
    NamedInput,
    OwnInput,
    References,
    all_named,
)
from serve.wire.motion import CameraBody, PathsBody
from serve.wire.prompts import PromptBodies, prompts_of

MAX_PROPORTION = 16
_FAR_S = 4_102_444_800.0  # 2100: nobody means a later instant

UNSUPPORTED = {
    "keyframes": "say inputs, with the role keyframe",
    "referenceImages": "say references",
    "referenceVideos": "no variant takes reference videos",
    "referenceAudio": "no variant takes sound",
    "providerSettings": "the variants have no provider settings",
    "proresProfile": "clips are not stored as ProRes",
    "targetAspectRatio": "no variant extends a picture beyond its edges",
    "resolution": "say ratio",
}

# Fields of `schemas.request.Request` and of constraints, as the creates call them.
WIRE_NAMES: Mapping[str, str] = {
    "variant": "model",
    "mode": "model",
    "prompt": "promptText",
    "negative_prompt": "negativePrompt",
    "image": "promptImage",
    "video": "videoUri",
    "strength": "strength",
    "width": "ratio",
    "height": "ratio",
    "num_frames": "duration",
    "duration_s": "duration",
    "num_inference_steps": "numInferenceSteps",
    "guidance_scale": "guidanceScale",
    "at_s": "atSeconds",  # of keys
    "from_s": "fromSeconds",  # of prompts
    "max_credits": "maxCredits",
    "min_quality": "minQuality",
    "allow": "allowModels",
    "deny": "denyModels",
}
# As `generate/video` calls them: a dot leads into an object.
GENERATE_NAMES: Mapping[str, str] = {
    **WIRE_NAMES,
    "variant": "configId",
    "mode": "configId",
    "allow": "configId",
    "prompt": "input.promptText",
    "negative_prompt": "input.negativePrompt",
    "image": "input.referenceImages",
    "video": "input.referenceVideos",
    "width": "input.resolution",
    "height": "input.resolution",
    "num_frames": "input.duration",
    "duration_s": "input.duration",
}


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _prompt(text: str, info: ValidationInfo) -> str:
    most = min(int((info.context or {}).get("max_prompt_chars", 1000)), MAX_PROMPT_CHARS)
    units = utf16_units(text)
    if units > most:
        raise Refusal(f"must have at most {most} UTF-16 code units; it has {units}", "too_big")
    if "\x00" in text:
        raise Refusal("must not contain the character U+0000")
    return text


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


def _deadline(value: object, info: ValidationInfo) -> float:
    """Seconds since the epoch, from an ISO instant or from seconds to go."""
    now = float((info.context or {}).get("now", 0.0))
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refusal("must be seconds from now, or an instant like 2030-01-31T12:00:00Z", "invalid_type")
    if isinstance(value, str):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            raise Refusal(
                "must be seconds from now, or an instant like 2030-01-31T12:00:00Z", "invalid_format"
            ) from None
        at = (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    else:
        at = now + value
    if not math.isfinite(at) or at <= now or at > _FAR_S:
        raise Refusal("must be an instant that is to come", "too_small" if at <= now else "too_big")
    return at


def _webhook(url: str) -> str:
    if not url.startswith(("https://", "http://")) or any(char.isspace() or ord(char) < 33 for char in url):
        raise Refusal("must be an https:// URL", "invalid_format")
    return url


Prompt = Annotated[str, Field(min_length=1), AfterValidator(_prompt)]
Ratio = Annotated[str, Field(max_length=40, examples=["1280:720", "16:9"]), AfterValidator(_ratio)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Format = Literal["mp4", "webm", "gif", "png_sequence"]


class ContentModeration(Wire):
    """How strict moderation is with this task."""

    public_figure_threshold: PublicFigures = Field(
        default="auto", description="low: less strict about recognizable public figures"
    )


class Templated(Wire):
    """A prompt by template. `serve.admission.templating` has put it in place before a body is read."""

    template: Annotated[str | None, Field(max_length=200)] = Field(
        default=None, description="makes promptText of slots (GET /v1/templates); instead of promptText"
    )
    slots: dict[str, str | float] | None = Field(default=None, description="values for the template's slots")


class Own(Wire):
    """What Runway does not have: every field is optional."""

    priority: int = Field(default=0, ge=-100, le=100, description="higher is rendered earlier")
    deadline: Annotated[float | None, BeforeValidator(_deadline)] = Field(
        default=None,
        description="seconds from now, or an ISO instant; refused at once when it cannot be kept",
        json_schema_extra={"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]},
    )
    max_credits: float | None = Field(default=None, ge=0, le=1e9, description="refused when it would cost more")
    fallback: bool = Field(default=True, description="another variant may render it when the named one cannot")
    optimize_for: Preference | None = Field(default=None, description="between variants that would all do")
    allow_models: tuple[Name, ...] | None = Field(default=None, max_length=100)
    deny_models: tuple[Name, ...] = Field(default=(), max_length=100)
    min_quality: float = Field(default=0.0, ge=0, le=1)
    skip_busy: bool = Field(default=False, description="pass over a variant that cannot start now")
    webhook_url: Annotated[str, Field(max_length=2000), AfterValidator(_webhook)] | None = None


class OwnLora(Wire):
    """A LoRA that a request brings."""

    source: str = Field(min_length=1, max_length=1000)
    weight: float = Field(default=1.0, ge=-MOST_WEIGHT, le=MOST_WEIGHT, description="how strongly it acts")


class Creates(Own, Templated):
    """What the creates have in common."""

    unsupported: ClassVar[dict[str, str]] = UNSUPPORTED
    mode: ClassVar[Mode]

    model: Name = Field(description="a variant, one of its aliases, or 'auto'", examples=["embedded", "auto"])
    ratio: Ratio | None = Field(default=None, description="a size or a proportion; the nearest one there is, is used")
    duration: Seconds | None = Field(default=None, description="seconds; the nearest length there is, is used")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    negative_prompt: Annotated[str, AfterValidator(_prompt)] = ""
    output_format: Format = "mp4"
    audio: bool | None = Field(default=None, description="with sound or without; not said: with, where there is any")
    content_moderation: ContentModeration | None = None
    prompts: PromptBodies = Field(
        default=(), description="several, each from its instant on; promptText then goes before each"
    )
    num_frames: int | None = Field(default=None, ge=1, le=100_000, description="instead of duration")
    fps: float | None = Field(default=None, ge=MIN_FPS, le=MAX_FPS)
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    scheduler: str | None = Field(default=None, max_length=100, description="a diffusers class")
    references: References = Field(default_factory=list, description="images of who or what is to be seen")
    inputs: tuple[OwnInput, ...] = Field(default=(), max_length=MAX_INPUTS, description="images and videos by role")
    camera: CameraBody = Field(default=(), description="keys of the camera's motion")
    paths: PathsBody = Field(default=(), description="where things go")
    edit: Edit | None = Field(default=None, description="of a source: speed, reverse, region")
    finish: tuple[OwnStep, ...] = Field(
        default=(), max_length=MAX_STEPS, description="what is done to the clip after it was rendered, in this order"
    )

    loras: tuple[OwnLora, ...] = Field(
        default=(), max_length=MAX_LORAS, description="beside the variant's own, from where this endpoint takes them"
    )
    samples: int = Field(default=1, ge=1, le=MAX_SAMPLES, description="as many tasks, each with a seed of its own")

    @model_validator(mode="after")
    def _one_length(self) -> "Creates":
        if self.num_frames is not None and self.duration is not None:
            raise Refusal("give duration or numFrames, not both", "invalid", within=("numFrames",))
        return self

    @model_validator(mode="after")
    def _prompts_follow(self, info: ValidationInfo) -> "Creates":
        for number, one in enumerate(told(self._prompt_text, self.timed_prompts).texts if self.prompts else ()):
            try:
                _prompt(one, info)
            except Refusal as refusal:
                said = f"with promptText before it, it {refusal}" if self._prompt_text else str(refusal)
                raise Refusal(said, refusal.code, within=("prompts", number, "text")) from None
        return self

    @property
    def timed_prompts(self) -> tuple[TimedPrompt, ...]:
        """As everything behind the body has them."""
        return prompts_of(self.prompts, self._prompt_text)

    @property
    def _prompt_text(self) -> str:
        return getattr(self, "prompt_text", None) or ""

    @property
    def named_inputs(self) -> tuple[NamedInput, ...]:
        """Every image and video of the body. `inputs` come first, so that they keep their numbers."""
        return (*all_named("inputs", self.inputs), *self._own_media(), *all_named("references", self.references))

    def _own_media(self) -> list[NamedInput]:
        return []

    def _has(self, *roles: Role) -> bool:
        return any(one.role in roles for one in self.inputs)


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

    prompt_text: Prompt | None = None
    prompt_image: Images | None = None

    @model_validator(mode="after")
    def _an_image(self) -> "ImageToVideo":
        if self.prompt_image is None and not self._has(*FRAMES):
            raise Refusal("is required (or a frame among inputs)", "required", within=("promptImage",))
        return self

    def _own_media(self) -> list[NamedInput]:
        images = self.prompt_image or []
        if len(images) == 1 and images[0].position == "first":
            return [NamedInput.of(Role.FIRST_FRAME, images[0].uri, ("promptImage",))]
        return all_named("promptImage", images)


class VideoToVideo(Creates):
    """`POST /v1/video_to_video`. The video is `videoUri`, or `promptVideo` as newer models say."""

    mode = Mode.VIDEO_TO_VIDEO

    prompt_text: Prompt | None = None
    video_uri: Media | None = None
    prompt_video: Media | None = None
    strength: float | None = Field(default=None, gt=0, le=1, description="how much of the video is made anew")
    keyframes: tuple[Keyframe, ...] = Field(default=(), max_length=MOST_KEYFRAMES, description="images at instants")

    @model_validator(mode="after")
    def _one_video(self) -> "VideoToVideo":
        if self.video_uri is None and self.prompt_video is None and self._has(Role.SOURCE):
            if self.strength is not None:
                raise Refusal("say it in the input", "invalid", within=("strength",))
            return self
        if self.video_uri is None and self.prompt_video is None:
            raise Refusal("is required (or promptVideo)", "required", within=("videoUri",))
        if self.video_uri is not None and self.prompt_video is not None:
            raise Refusal("give videoUri or promptVideo, not both", "invalid", within=("promptVideo",))
        return self

    def _own_media(self) -> list[NamedInput]:
        frames = all_named("keyframes", self.keyframes)
        uri = self.video_uri or self.prompt_video
        if uri is None:
            return frames
        name = "videoUri" if self.video_uri is not None else "promptVideo"
        return [NamedInput.of(Role.SOURCE, uri, (name,), strength=self.strength), *frames]


class GenerateInput(Templated):
    """What is wanted, whichever model renders it."""

    unsupported: ClassVar[dict[str, str]] = {name: UNSUPPORTED[name] for name in ("referenceAudio",)}

    prompt_text: Prompt | None = None
    negative_prompt: Annotated[str, AfterValidator(_prompt)] = ""
    aspect_ratio: Literal["16:9", "9:16", "1:1", "4:3", "3:4", "21:9"] | None = None
    resolution: Literal["480p", "720p", "1080p", "4k"] | None = None
    duration: Seconds | None = None
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    audio: bool | None = Field(default=None, description="with sound or without; not said: with, where there is any")
    content_moderation: ContentModeration | None = None
    reference_images: tuple[GenerateImage, ...] = Field(default=(), max_length=20)
    reference_videos: tuple[GenerateReference, ...] = Field(default=(), max_length=20)
    keyframes: tuple[Keyframe, ...] = Field(default=(), max_length=MOST_KEYFRAMES)

    @model_validator(mode="after")
    def _asks_for_something(self) -> "GenerateInput":
        if self.prompt_text is None and not self.named_inputs:
            raise Refusal("is required, or media", "required", within=("promptText",))
        return self

    @property
    def named_inputs(self) -> tuple[NamedInput, ...]:
        """Every image and video of the body."""
        return (
            *all_named("referenceVideos", self.reference_videos, ("input",)),
            *all_named("referenceImages", self.reference_images, ("input",)),
            *all_named("keyframes", self.keyframes, ("input",)),
        )

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

    config_id: str = Field(min_length=1, max_length=200, description="the slug of a router")
    input: GenerateInput
