"""Structures that are found in pictures as cameras make them: edges, depth, poses.

An input that says `extract` brings a plain picture or video, and an `Extractor` of the catalog makes a structure of it.
The floor is there always: `canny` finds edges, without weights. How it is found is part of the condition
(`schemas.conditions`), as an `Extraction`: so it is in the group, and in every fingerprint.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.inputs import Kind

Method = Literal["canny", "depth", "pose"]
_FINDS: dict[Method, Kind] = {"canny": Kind.EDGES, "depth": Kind.DEPTH, "pose": Kind.POSE}
_THRESHOLDS = ("low", "high")


class _How(BaseModel):
    """What decides the pixels of a structure, beside the picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = Field(
        description="canny: edges, by OpenCV (extra `structure`); depth, pose: models of transformers, of poses ViTPose"
    )
    weights: str | None = Field(
        default=None, min_length=1, description="of depth and pose: hub id, local folder, or s3:// prefix; safetensors"
    )
    revision: str | None = Field(default=None, description="commit, branch or tag, of a hub id")
    low: int = Field(default=100, ge=0, le=1000, description="of canny: weaker edges are none")
    high: int = Field(default=200, ge=0, le=1000, description="of canny: from here on an edge is one by itself")


class Extraction(_How):
    """An extractor as a condition has it. `content` stands for its weights; it says nothing of names."""

    content: str = ""

    @property
    def finds(self) -> Kind:
        return _FINDS[self.method]


class Extractor(_How):
    """Who finds one kind of structure: an entry [extractors.NAME] of the catalog."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="the NAME of [extractors.NAME]: not written again")
    title: str = Field(default="", description="for people")

    @property
    def kind(self) -> Kind:
        """What it finds."""
        return _FINDS[self.method]

    @property
    def extraction(self) -> Extraction:
        return Extraction.model_validate(self.model_dump(exclude={"name", "title"}))

    @model_validator(mode="after")
    def _says_what_its_method_reads(self) -> "Extractor":
        if (self.method == "canny") != (self.weights is None):
            what = "takes no weights" if self.weights else "needs weights: a folder, owner/name of the hub, s3://…"
            raise ValueError(f"{self.method} {what}")
        if self.method != "canny" and self.model_fields_set & set(_THRESHOLDS):
            raise ValueError(f"{self.method} takes no low and high: those are of canny")
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        return self


FLOOR_EXTRACTORS: dict[str, Extractor] = {
    one.name: one for one in (Extractor(name="canny", method="canny", title="OpenCV's Canny edges, white on black"),)
}


def able_extractors(extractors: Mapping[str, Extractor], kind: Kind | None) -> tuple[str, ...]:
    """Who finds such a structure."""
    return tuple(name for name, one in extractors.items() if one.kind is kind)
