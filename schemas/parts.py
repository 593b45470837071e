"""Networks beside a variant's weights, which its catalog entry names: they let its class be told more."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from schemas.inputs import Kind


class Part(StrEnum):
    """A field of a catalog entry that holds one."""

    CONTROLNET = "controlnet"
    IP_ADAPTER = "ip_adapter"


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
