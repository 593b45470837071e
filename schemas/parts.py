"""Networks beside a variant's weights, which its catalog entry names: they let its class be told more."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from schemas.inputs import Kind


class Part(StrEnum):
    """A field of a catalog entry that holds one."""

    CONTROLNET = "controlnet"


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
