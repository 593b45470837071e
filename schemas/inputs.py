"""What goes in beside the prompt: images and videos, and what each is for.

An `Input` is what a client says. Its `InputSpec` is the same without the media, so that rows with other pictures share
one; resolved on a variant and a length it is a `Condition` (`schemas.conditions`), which is part of the group.
`image`, `video` and `strength` of a request are short forms: `inputs_of` makes inputs of them, and from there on there
are only inputs.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.errors import Issue
from schemas.issues import issues_of

MAX_INPUTS = 20
ANY_EXTRACTOR = "auto"
"""The catalog's first of the kind."""
Medium = Literal["image", "video"]


class Role(StrEnum):
    """What an input is for."""

    FIRST_FRAME = "first_frame"  # the clip begins with it
    LAST_FRAME = "last_frame"  # the clip ends with it
    KEYFRAME = "keyframe"  # it is on screen at an instant
    SOURCE = "source"  # the video that is to be changed
    STRUCTURE = "structure"  # where things are: depth, edges, a pose …
    MASK = "mask"  # of the source: white is made anew, black is kept
    STYLE = "style"  # how it is to look
    REFERENCE = "reference"  # who or what is to be seen


class Kind(StrEnum):
    """What a structure shows, or a frame that is no picture."""

    DEPTH = "depth"
    EDGES = "edges"
    POSE = "pose"
    SCRIBBLE = "scribble"
    BOXES = "boxes"
    RAW = "raw"  # a picture as cameras make it


FRAMES = frozenset({Role.FIRST_FRAME, Role.LAST_FRAME, Role.KEYFRAME})
MEDIA: dict[Role, tuple[Medium, ...]] = {
    **dict.fromkeys(FRAMES, ("image",)),
    Role.SOURCE: ("video",),
    Role.STRUCTURE: ("video", "image"),
    Role.MASK: ("image", "video"),
    Role.STYLE: ("image",),
    Role.REFERENCE: ("image",),
}
# Of the others a clip may have several.
_ONCE = frozenset({Role.FIRST_FRAME, Role.LAST_FRAME, Role.SOURCE, Role.STRUCTURE, Role.MASK})
_PLACES = ("at_s", "at_frame", "at_share")


class InputSpec(NamedTuple):
    """An input without its media. `path` is where the request says it, for issues."""

    role: Role
    medium: Medium
    at_s: float | None = None
    at_frame: int | None = None
    at_share: float | None = None
    strength: float | None = None
    kind: Kind | None = None
    start: float | None = None
    end: float | None = None
    path: str = "inputs.0"
    extract: str | None = None

    def at(self, field: str) -> str:
        """The path of one of its fields. A short form has no other than itself, and its strength."""
        if self.path.startswith("inputs."):
            return f"{self.path}.{field}"
        return "strength" if field == "strength" else self.path


class Input(BaseModel):
    """One image or video, and what it is for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    role: Role
    image: str | None = Field(default=None, min_length=1, description="its address; or `video`")
    video: str | None = Field(default=None, min_length=1, description="its address; or `image`")
    at_s: float | None = Field(default=None, ge=0, description="of a keyframe: seconds from the clip's beginning")
    at_frame: int | None = Field(default=None, ge=0, description="of a keyframe: the frame, from 0; or `at_s`")
    at_share: float | None = Field(
        default=None, ge=0, le=1, description="of a keyframe: 0 first frame, 1 last; or `at_s`"
    )
    strength: float | None = Field(
        default=None, gt=0, le=1, description="how much it counts; of a source: the share made anew"
    )
    kind: Kind | None = Field(
        default=None, description="of a structure: what it shows; of a frame: the same, where it is no picture"
    )
    start: float | None = Field(default=None, ge=0, le=86_400, description="of a video: seconds before what is used")
    end: float | None = Field(default=None, gt=0, le=86_400, description="of a video: seconds at which it is left")
    extract: str | None = Field(
        default=None, min_length=1, description="of a plain picture or video: `true`, or who finds the structure in it"
    )

    @field_validator("extract", mode="before")
    @classmethod
    def _anybody(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return ANY_EXTRACTOR if value else None
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> "Input":
        media = MEDIA[self.role]
        if (self.image is None) == (self.video is None):
            raise ValueError(f"{self.role} needs one of {' and '.join(media)}")
        if self.medium not in media:
            raise ValueError(f"{self.role} is given as {media[0]}, not as {self.medium}")
        placed = [name for name in _PLACES if getattr(self, name) is not None]
        if self.role is Role.KEYFRAME and len(placed) != 1:
            raise ValueError(f"keyframe needs its place, as one of {', '.join(_PLACES)}")
        if self.role is not Role.KEYFRAME and placed:
            raise ValueError(f"{self.role} takes no {placed[0]}: that is of a keyframe")
        if self.role is Role.STRUCTURE and self.kind is None:
            raise ValueError(f"structure needs its kind: one of {', '.join(Kind)}")
        if self.role not in FRAMES | {Role.STRUCTURE} and self.kind is not None:
            raise ValueError(f"{self.role} takes no kind: that is of a structure or a frame")
        if self.extract is not None and self.kind in (None, Kind.RAW):
            raise ValueError("extract needs the kind of structure that is to be found")
        if self.medium == "image" and (self.start is not None or self.end is not None):
            raise ValueError("start and end are seconds of a video, and this is an image")
        if self.end is not None and (self.start or 0.0) >= self.end:
            raise ValueError("start must be before end")
        return self

    @property
    def medium(self) -> Medium:
        return "image" if self.image is not None else "video"

    @property
    def uri(self) -> str:
        """Where the image or video is."""
        return self.image or self.video or ""

    def at_uri(self, uri: str) -> "Input":
        """The same input with its media at `uri`."""
        return self.model_copy(update={self.medium: uri})

    def spec(self, path: str) -> InputSpec:
        return InputSpec(
            self.role, self.medium, self.at_s, self.at_frame, self.at_share, self.strength, self.kind, self.start,
            self.end, path, self.extract,
        )  # fmt: skip


class GivenInput(NamedTuple):
    """An input, and where the request says it."""

    input: Input
    path: str

    @property
    def spec(self) -> InputSpec:
        return self.input.spec(self.path)


def inputs_of(
    inputs: Sequence[Input], image: str | None, video: str | None, strength: float | None
) -> tuple[GivenInput, ...]:
    """All inputs of a request: those of `inputs`, then the short forms. `image` is the first frame, `video` the source,
    `strength` the source's, or the first frame's where there is no source."""
    given = [GivenInput(one, f"inputs.{number}") for number, one in enumerate(inputs)]
    if image is not None:
        own = strength if video is None else None
        given.append(GivenInput(Input.model_construct(role=Role.FIRST_FRAME, image=image, strength=own), "image"))
    if video is not None:
        given.append(GivenInput(Input.model_construct(role=Role.SOURCE, video=video, strength=strength), "video"))
    return tuple(given)


def spec_issues(specs: Sequence[InputSpec]) -> tuple[Issue, ...]:
    """What is wrong with the inputs of one request whichever variant renders them."""
    found: list[Issue] = []
    if len(specs) > MAX_INPUTS:
        found.append(Issue("inputs", f"{len(specs)} of them, at most {MAX_INPUTS}", "too_many"))
    seen: set[Role] = set()
    for spec in specs:
        if spec.role in seen & _ONCE:
            found.append(Issue(spec.at("role"), f"a second {spec.role}: a clip has one", "twice"))
        seen.add(spec.role)
    if Role.MASK in seen and Role.SOURCE not in seen:
        path = next(spec.at("role") for spec in specs if spec.role is Role.MASK)
        found.append(Issue(path, "mask says what of a source is made anew, and there is no source", "missing"))
    return tuple(found)


_CHOICES = {"role": tuple(Role), "kind": tuple(Kind)}


def read_input(value: Any, path: str) -> tuple[Input | None, tuple[Issue, ...]]:
    """An input from JSON, or what is wrong with it, with the choices."""
    if not isinstance(value, dict):
        return None, (Issue(path, f"must be an object with a role and its media (got {repr(value)[:60]})", "type"),)
    try:
        # Tables write what a row does not have as null.
        return Input.model_validate({name: one for name, one in value.items() if one is not None}), ()
    except ValidationError as error:
        return None, issues_of(error, path, "an input", Input.model_fields, _CHOICES)
