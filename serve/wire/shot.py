"""What is to be seen, and how it is rendered: the part that all bodies have which ask for a clip that is rendered.

What a body takes beside it is in `serve.wire.creates`. A field stands here unless only one body can heed it.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from schemas.finish import MAX_STEPS
from schemas.inputs import MAX_INPUTS, Role
from schemas.loras import MAX_LORAS, MOST_WEIGHT
from schemas.moderation import PublicFigures
from schemas.motion import Edit
from schemas.request import MAX_PROMPT_CHARS, MAX_SAMPLES, MAX_SEED
from schemas.shape import MAX_FPS, MIN_FPS
from schemas.timed_prompts import TimedPrompt, told
from serve.wire.base import Refusal, Wire
from serve.wire.finish import OwnStep
from serve.wire.inputs import MOST_KEYFRAMES, Keyframe, NamedInput, OwnInput, all_named
from serve.wire.motion import CameraBody, PathsBody
from serve.wire.prompts import PromptBodies, prompts_of

# Fields of some bodies, ours or Runway's, and what to say where there are none.
UNSUPPORTED = {
    "promptImage": "say inputs, with the role first_frame",
    "videoUri": "say inputs, with the role source",
    "promptVideo": "say inputs, with the role source",
    "strength": "say inputs, with the role source and its strength",
    "references": "say inputs, with the role reference",
    "referenceImages": "say references",
    "referenceVideos": "no variant takes reference videos",
    "referenceAudio": "no variant takes sound",
    "providerSettings": "the variants have no provider settings",
    "proresProfile": "clips are not stored as ProRes",
    "targetAspectRatio": "no variant extends a picture beyond its edges",
    "targetFramerate": "say finish, with interpolate",
    "aspectRatio": "say ratio",
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


Prompt = Annotated[str, Field(min_length=1), AfterValidator(_prompt)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
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


class OwnLora(Wire):
    """A LoRA that a request brings."""

    source: str = Field(min_length=1, max_length=1000)
    weight: float = Field(default=1.0, ge=-MOST_WEIGHT, le=MOST_WEIGHT, description="how strongly it acts")


class Shot(Templated):
    """A clip that is to be rendered."""

    unsupported: ClassVar[dict[str, str]] = UNSUPPORTED

    prompts: PromptBodies = Field(
        default=(), description="several, each from its instant on; promptText then goes before each"
    )
    prompt_text: Prompt | None = None
    negative_prompt: Annotated[str, AfterValidator(_prompt)] = ""
    duration: Seconds | None = Field(default=None, description="seconds; the nearest length there is, is used")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    output_format: Format = "mp4"
    audio: bool | None = Field(default=None, description="with sound or without; not said: with, where there is any")
    content_moderation: ContentModeration | None = None
    num_frames: int | None = Field(default=None, ge=1, le=100_000, description="instead of duration")
    fps: float | None = Field(default=None, ge=MIN_FPS, le=MAX_FPS)
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    scheduler: str | None = Field(default=None, max_length=100, description="a diffusers class")
    keyframes: tuple[Keyframe, ...] = Field(default=(), max_length=MOST_KEYFRAMES, description="images at instants")
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
    def _one_length(self) -> "Shot":
        if self.num_frames is not None and self.duration is not None:
            raise Refusal("give duration or numFrames, not both", "invalid", within=("numFrames",))
        return self

    @model_validator(mode="after")
    def _prompts_follow(self, info: ValidationInfo) -> "Shot":
        for number, one in enumerate(told(self.prompt_text or "", self.timed_prompts).texts if self.prompts else ()):
            try:
                _prompt(one, info)
            except Refusal as refusal:
                said = f"with promptText before it, it {refusal}" if self.prompt_text else str(refusal)
                raise Refusal(said, refusal.code, within=("prompts", number, "text")) from None
        return self

    @property
    def timed_prompts(self) -> tuple[TimedPrompt, ...]:
        """As everything behind the body has them."""
        return prompts_of(self.prompts, self.prompt_text or "")

    @property
    def named_inputs(self) -> tuple[NamedInput, ...]:
        """Every image and video, with where it stands in here. `inputs` come first, so that they keep their numbers."""
        return (*all_named("inputs", self.inputs), *self._own_media())

    def _own_media(self) -> list[NamedInput]:
        """Those that are not in `inputs`."""
        return all_named("keyframes", self.keyframes)

    def has(self, *roles: Role) -> bool:
        """Whether anything that goes in has one of the roles."""
        return any(one.input.role in roles for one in self.named_inputs)
