"""What a client asks for: one line of a manifest, or one call of the endpoint."""

from enum import StrEnum
from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from schemas.finish import MAX_STEPS, FinishStep
from schemas.inputs import GivenInput, Input, InputSpec, inputs_of
from schemas.loras import MAX_LORAS, Lora
from schemas.motion import Camera, EditField, Paths
from schemas.shape import MAX_FPS, MAX_SIDE, MIN_FPS, parse_ratio
from schemas.timed_prompts import TimedPrompt, Told, order_issues, told

MAX_PROMPT_CHARS = 4000
MAX_SEED = 2**32 - 1
MAX_SAMPLES = 64

Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]


class Mode(StrEnum):
    """What goes in beside the prompt."""

    TEXT_TO_VIDEO = "text_to_video"
    IMAGE_TO_VIDEO = "image_to_video"
    VIDEO_TO_VIDEO = "video_to_video"


class Settings(BaseModel):
    """The part of a request that decides which group it joins: everything but its own content.

    A manifest of a million rows has few distinct settings, so the planner validates each only once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: Mode | None = None
    variant: str = "auto"
    width: int | None = Field(default=None, ge=1, le=MAX_SIDE)
    height: int | None = Field(default=None, ge=1, le=MAX_SIDE)
    ratio: str | None = None
    num_frames: int | None = Field(default=None, ge=1, le=100_000)
    duration_s: float | None = Field(default=None, gt=0, le=3600)
    fps: float | None = Field(default=None, ge=MIN_FPS, le=MAX_FPS)
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    scheduler: str | None = None
    strength: float | None = Field(default=None, gt=0, le=1, description="short form: of `video`, else of `image`")
    camera: Camera = Field(default=(), description="keys of the camera's motion")
    paths: Paths = Field(default=(), description="where things go")
    edit: EditField | None = Field(default=None, description="speed, direction and region of a source")
    loras: tuple[Lora, ...] = Field(default=(), max_length=MAX_LORAS, description="LoRAs beside the variant's own")
    finish: tuple[FinishStep, ...] = Field(default=(), max_length=MAX_STEPS, description="what is done to the clip")
    audio: bool | None = Field(default=None, description="with sound or without; unsaid: with, where there is any")

    @field_validator("ratio")
    @classmethod
    def _ratio_reads(cls, ratio: str | None) -> str | None:
        if ratio is not None:
            parse_ratio(ratio)
        return ratio

    @model_validator(mode="after")
    def _one_way_to_say_each(self) -> "Settings":
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together")
        if self.width is not None and self.ratio is not None:
            raise ValueError("give width and height, or ratio, not both")
        if self.num_frames is not None and self.duration_s is not None:
            raise ValueError("give num_frames or duration_s, not both")
        return self

    @property
    def size(self) -> tuple[int, int] | Fraction | None:
        """Pixels when they were given, a proportion when only that was, None when neither."""
        if self.width is not None and self.height is not None:
            return self.width, self.height
        return parse_ratio(self.ratio) if self.ratio is not None else None


class Request(Settings):
    """One clip that somebody wants. Only a prompt, or media, is required."""

    id: str | None = Field(default=None, min_length=1, max_length=512)
    prompt: Prompt = ""
    prompts: tuple[TimedPrompt, ...] = Field(
        default=(), description="several, each from its instant on; `prompt` then goes before each"
    )
    negative_prompt: Prompt = ""
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    inputs: tuple[Input, ...] = ()
    image: str | None = Field(default=None, min_length=1, description="short form of an input: the first frame")
    video: str | None = Field(default=None, min_length=1, description="short form of an input: the source")
    priority: int = Field(default=0, ge=-100, le=100)
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    samples: int = Field(default=1, ge=1, le=MAX_SAMPLES, description="clips of it, each with a seed of its own")

    @field_validator("prompts")
    @classmethod
    def _prompts_in_order(cls, prompts: tuple[TimedPrompt, ...]) -> tuple[TimedPrompt, ...]:
        for issue in order_issues(prompts):
            raise ValueError(f"{issue.path}: {issue.message}")
        return prompts

    @property
    def told(self) -> Told:
        """The prompts as they are rendered, and when."""
        return told(self.prompt, self.prompts)

    @property
    def words(self) -> str:
        """All prompts as one text, as people are told of what was asked."""
        return "\n".join(self.told.texts)

    @property
    def all_inputs(self) -> tuple[GivenInput, ...]:
        """Images and videos, whichever way they were given."""
        return inputs_of(self.inputs, self.image, self.video, self.strength)

    @property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """All inputs without their media."""
        return tuple(given.spec for given in self.all_inputs)

    @property
    def settings(self) -> Settings:
        """This request without its own content."""
        return Settings.model_validate({name: getattr(self, name) for name in Settings.model_fields})


SETTINGS_FIELDS: tuple[str, ...] = tuple(Settings.model_fields)
# A row of several samples is as many rows before anything else is asked of it.
CONTENT_FIELDS: tuple[str, ...] = tuple(
    name for name in Request.model_fields if name not in Settings.model_fields and name != "samples"
)
