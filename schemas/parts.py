"""Networks beside a variant's weights, which its catalog entry names: they let its class be told more."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.directions import Direction
from schemas.inputs import Kind


class Part(StrEnum):
    """A field of a catalog entry that holds one."""

    CONTROLNET = "controlnet"
    IP_ADAPTER = "ip_adapter"
    MOTION_LORAS = "motion_loras"


class ControlNet(BaseModel):
    """What draws clips over a structure, or over pictures at frames, of one kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(description="what it was trained to follow; `raw`: pictures as cameras make them")
    source: str | None = Field(
        default=None,
        min_length=1,
        description="hub id, local folder, or s3:// prefix, in diffusers' format; not set: it is in `weights`",
    )
    revision: str | None = Field(default=None, description="commit, branch or tag, of a hub id")


class IpAdapter(BaseModel):
    """What shows the UNet pictures of how the clip is to look, by cross-attention layers of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1, description="hub id, local folder, or s3:// prefix")
    weight_file: str = Field(
        min_length=1, description="the file inside `source`, e.g. './models/ip-adapter_sd15.safetensors'"
    )
    image_encoder: str | None = Field(
        default=None,
        min_length=1,
        description="the folder inside `source` of the CLIP that reads pictures; `image_encoder` beside the file when "
        "not set; not read where `weights` have one",
    )
    revision: str | None = Field(default=None, description="commit, branch or tag, of a hub id")


class MotionLora(BaseModel):
    """A LoRA of the layers between frames, which moves the camera in one direction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str = Field(min_length=1, description="hub id, local folder or file, or s3:// prefix")
    weight: float = Field(
        default=1.0, gt=0, description="how strongly it acts on a clip whose camera goes its way, whatever the amount"
    )
    revision: str | None = Field(default=None, description="commit, branch or tag, of a hub id")
    weight_file: str | None = Field(default=None, description="the file inside `source`, when it has several")


class MotionLoras(BaseModel):
    """Those that a variant has, by the way in which the camera goes: the picture goes the other way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zoom_in: MotionLora | None = Field(default=None, description="zoom above 1")
    zoom_out: MotionLora | None = Field(default=None, description="zoom below 1")
    pan_left: MotionLora | None = Field(default=None, description="pan below 0: what is seen moves to the right")
    pan_right: MotionLora | None = Field(default=None, description="pan above 0: what is seen moves to the left")
    tilt_up: MotionLora | None = Field(default=None, description="tilt above 0: what is seen moves down")
    tilt_down: MotionLora | None = Field(default=None, description="tilt below 0: what is seen moves up")
    roll_clockwise: MotionLora | None = Field(
        default=None, description="roll above 0: what is seen turns anticlockwise"
    )
    roll_anticlockwise: MotionLora | None = Field(
        default=None, description="roll below 0: what is seen turns clockwise"
    )

    @model_validator(mode="after")
    def _has_one(self) -> "MotionLoras":
        if not self.by_direction:
            raise ValueError(f"names none; available: {', '.join(Direction)}")
        return self

    @property
    def by_direction(self) -> dict[Direction, MotionLora]:
        """Those that there are."""
        found = {way: getattr(self, way.value) for way in Direction}
        return {way: lora for way, lora in found.items() if lora is not None}
