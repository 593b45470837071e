"""Bodies of the creates: Runway's fields, and ours beside them (`Own`)."""

import math
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from cluster.terms import Preference
from schemas.request import MAX_PROMPT_CHARS, MAX_SEED
from schemas.shape import parse_ratio
from serve.wire.base import Refusal, Wire

MAX_URI_CHARS = 24 << 20  # data: URIs; the bytes inside have limits of their own
MAX_SIDE = 16384
MAX_PROPORTION = 16
_FAR_S = 4_102_444_800.0  # 2100: nobody means a later instant

UNSUPPORTED = {
    "keyframes": "no variant takes guidance images inside a video",
    "references": "no variant takes reference images",
    "referenceImages": "no variant takes reference images",
    "referenceVideos": "no variant takes reference videos",
    "referenceAudio": "no variant takes sound",
    "providerSettings": "the variants have no provider settings",
    "proresProfile": "clips are not stored as ProRes",
    "targetAspectRatio": "no variant extends a picture beyond its edges",
    "resolution": "say ratio",
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


def _silent(audio: bool | None) -> bool | None:
    if audio:
        raise Refusal("no variant here makes sound", "unsupported", ("false",))
    return audio


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


class Image(Wire):
    """An image that goes in."""

    uri: str = Field(min_length=1, max_length=MAX_URI_CHARS, description="https://, runway:// or data:")
    position: Literal["first"] = "first"

    @model_validator(mode="before")
    @classmethod
    def _only_the_first(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("position") == "last":
            raise Refusal("no variant here takes a last frame", "unsupported", ("first",), ("position",))
        return value


def _images(value: object) -> object:
    return [{"uri": value}] if isinstance(value, str) else value


Prompt = Annotated[str, Field(min_length=1), AfterValidator(_prompt)]
Ratio = Annotated[str, Field(max_length=40, examples=["1280:720", "16:9"]), AfterValidator(_ratio)]
Images = Annotated[
    list[Image],
    Field(
        min_length=1,
        max_length=1,
        json_schema_extra={
            "anyOf": [
                {"type": "string", "description": "https://, runway:// or data:"},
                {"type": "array", "minItems": 1, "maxItems": 1, "items": {"$ref": "#/components/schemas/Image"}},
            ]
        },
    ),
    BeforeValidator(_images),
]
Media = Annotated[str, Field(min_length=1, max_length=MAX_URI_CHARS, description="https://, runway:// or data:")]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Format = Literal["mp4", "webm", "gif", "png_sequence"]


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


class Creates(Own):
    """What the creates have in common."""

    unsupported: ClassVar[dict[str, str]] = UNSUPPORTED

    model: Name = Field(description="a variant, one of its aliases, or 'auto'", examples=["embedded", "auto"])
    ratio: Ratio | None = Field(default=None, description="a size or a proportion; the nearest one there is, is used")
    duration: Seconds | None = Field(default=None, description="seconds; the nearest length there is, is used")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    negative_prompt: Annotated[str, AfterValidator(_prompt)] = ""
    output_format: Format = "mp4"
    audio: Annotated[bool | None, AfterValidator(_silent)] = None
    content_moderation: dict[str, Any] | None = Field(default=None, description="taken, and without effect")
    num_frames: int | None = Field(default=None, ge=1, le=100_000, description="instead of duration")
    fps: float | None = Field(default=None, gt=0, le=240)
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    scheduler: str | None = Field(default=None, max_length=100, description="a diffusers class")

    @model_validator(mode="after")
    def _one_length(self) -> "Creates":
        if self.num_frames is not None and self.duration is not None:
            raise Refusal("give duration or numFrames, not both", "invalid", within=("numFrames",))
        return self


class TextToVideo(Creates):
    """`POST /v1/text_to_video`."""

    prompt_text: Prompt = Field(examples=["a red circle moving left on a blue background"])


class ImageToVideo(Creates):
    """`POST /v1/image_to_video`."""

    prompt_text: Prompt | None = None
    prompt_image: Images


class VideoToVideo(Creates):
    """`POST /v1/video_to_video`. The video is `videoUri`, or `promptVideo` as newer models say."""

    prompt_text: Prompt | None = None
    video_uri: Media | None = None
    prompt_video: Media | None = None
    strength: float | None = Field(default=None, gt=0, le=1, description="how much of the video is made anew")

    @model_validator(mode="after")
    def _one_video(self) -> "VideoToVideo":
        if self.video_uri is None and self.prompt_video is None:
            raise Refusal("is required (or promptVideo)", "required", within=("videoUri",))
        if self.video_uri is not None and self.prompt_video is not None:
            raise Refusal("give videoUri or promptVideo, not both", "invalid", within=("promptVideo",))
        return self


class GenerateImage(Wire):
    """An image of `generate/video`."""

    role: Literal["first", "last", "reference"]
    uri: Media


class GenerateReference(Wire):
    """A video of `generate/video`."""

    role: Literal["source", "reference"]
    uri: Media


class GenerateInput(Wire):
    """What is wanted, whichever model renders it."""

    unsupported: ClassVar[dict[str, str]] = {name: UNSUPPORTED[name] for name in ("keyframes", "referenceAudio")}

    prompt_text: Prompt | None = None
    negative_prompt: Annotated[str, AfterValidator(_prompt)] = ""
    aspect_ratio: Literal["16:9", "9:16", "1:1", "4:3", "3:4", "21:9"] | None = None
    resolution: Literal["480p", "720p", "1080p", "4k"] | None = None
    duration: Seconds | None = None
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    audio: Annotated[bool | None, AfterValidator(_silent)] = None
    content_moderation: dict[str, Any] | None = None
    reference_images: tuple[GenerateImage, ...] = Field(default=(), max_length=20)
    reference_videos: tuple[GenerateReference, ...] = Field(default=(), max_length=20)

    @model_validator(mode="after")
    def _media_fit(self) -> "GenerateInput":
        for number, image in enumerate(self.reference_images):
            if image.role != "first" or number:
                raise Refusal(
                    "no variant here takes more than one image, the first frame",
                    "unsupported",
                    ("first",),
                    ("referenceImages", number, "role"),
                )
        for number, video in enumerate(self.reference_videos):
            if video.role != "source" or number:
                raise Refusal(
                    "no variant here takes more than one video, the source",
                    "unsupported",
                    ("source",),
                    ("referenceVideos", number, "role"),
                )
        if self.reference_images and self.reference_videos:
            raise Refusal("no variant here takes both an image and a video", "unsupported", within=("referenceVideos",))
        if self.prompt_text is None and not self.reference_images and not self.reference_videos:
            raise Refusal("is required, or media", "required", within=("promptText",))
        return self


class GenerateVideo(Own):
    """`POST /v1/generate/video`: routed by a saved router."""

    config_id: str = Field(min_length=1, max_length=200, description="the slug of a router")
    input: GenerateInput
