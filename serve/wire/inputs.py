"""Images and videos in bodies, in Runway's forms and in ours, and the inputs that they mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from schemas.inputs import MAX_INPUTS, Input, Kind, Role, read_input
from serve.wire.base import Path, Refusal, Wire

MAX_URI_CHARS = 24 << 20  # data: URIs; the bytes inside have limits of their own
MOST_KEYFRAMES = 5

Media = Annotated[str, Field(min_length=1, max_length=MAX_URI_CHARS, description="https://, runway:// or data:")]
Position = Literal["first", "last"]

_ROLE_OF_POSITION: Mapping[Position | None, Role] = {
    "first": Role.FIRST_FRAME,
    "last": Role.LAST_FRAME,
    None: Role.REFERENCE,
}
# Our fields, as clients write them.
_CLIENT_S = {"at_s": "atSeconds", "at_frame": "atFrame", "at_share": "atShare"}


@dataclass(frozen=True)
class NamedInput:
    """An input, and where the body says it: the whole of it (`path`), its media, its role."""

    input: Input
    path: Path
    media_path: Path
    role_path: Path

    @classmethod
    def of(cls, role: Role, uri: str, path: Path, *, role_at: str = "", uri_at: str = "", **more: Any) -> "NamedInput":
        """`role_at`, `uri_at`: the fields within `path` that say so."""
        medium = "video" if role is Role.SOURCE else "image"
        made = Input(role=role, **{medium: uri}, **more)
        return cls(made, path, (*path, uri_at) if uri_at else path, (*path, role_at) if role_at else path)

    @property
    def is_own(self) -> bool:
        """Whether it stands in `inputs`, in our words."""
        return self.path[-2:-1] == ("inputs",)

    def within(self, path: Path) -> "NamedInput":
        """The same, where all of it stands in an object at `path`."""
        return NamedInput(self.input, (*path, *self.path), (*path, *self.media_path), (*path, *self.role_path))


def names_of(inputs: Sequence[NamedInput]) -> dict[str, str]:
    """Where the body has what our issues call `inputs.0`, `inputs.0.role` …"""
    names: dict[str, str] = {}
    for number, named in enumerate(inputs):
        own, theirs = f"inputs.{number}", ".".join(map(str, named.path))
        names[own] = theirs
        names[f"{own}.role"] = ".".join(map(str, named.role_path))
        if named.is_own:
            names |= {f"{own}.{field}": f"{theirs}.{_CLIENT_S.get(field, field)}" for field in Input.model_fields}
    return names


class OwnInput(Wire):
    """An image or a video, and what it is for."""

    role: Role
    image: Media | None = Field(default=None, description="or video")
    video: Media | None = Field(default=None, description="or image")
    at_seconds: float | None = Field(default=None, ge=0, description="of a keyframe: from the clip's beginning")
    at_frame: int | None = Field(default=None, ge=0, description="of a keyframe, instead of atSeconds")
    at_share: float | None = Field(default=None, ge=0, le=1, description="of a keyframe, instead of atSeconds")
    strength: float | None = Field(default=None, gt=0, le=1, description="how much it counts")
    kind: Kind | None = Field(default=None, description="of a structure: what it shows")
    start: float | None = Field(default=None, ge=0, le=86_400, description="of a video: seconds before what is used")
    end: float | None = Field(default=None, gt=0, le=86_400, description="of a video: seconds at which it is left")

    extract: bool | str | None = Field(
        default=None, description="of a plain picture or video: true, or who finds the structure in it"
    )

    @model_validator(mode="after")
    def _is_an_input(self) -> "OwnInput":
        _, issues = read_input(self._fields(), "")
        if issues:
            path = tuple(_CLIENT_S.get(part, part) for part in issues[0].path.split(".") if part)
            raise Refusal(issues[0].message, issues[0].code, issues[0].choices, path)
        return self

    def _fields(self) -> dict[str, Any]:
        return {"at_s" if name == "at_seconds" else name: getattr(self, name) for name in type(self).model_fields}

    def named(self, path: Path) -> NamedInput:
        found = Input.model_validate(self._fields())
        return NamedInput(found, path, (*path, found.medium), (*path, "role"))


class Image(Wire):
    """An image that goes in. Without a position it is a reference."""

    uri: Media
    position: Position | None = None

    def named(self, path: Path) -> NamedInput:
        return NamedInput.of(_ROLE_OF_POSITION[self.position], self.uri, path, role_at="position", uri_at="uri")


def _one_or_more(value: object) -> object:
    return [{"uri": value, "position": "first"}] if isinstance(value, str) else value


def _references(value: object) -> object:
    return [{"uri": value}] if isinstance(value, str) else value


def _images(least: int, described: str) -> Any:
    return Field(
        min_length=least,
        max_length=MAX_INPUTS,
        json_schema_extra={
            "anyOf": [
                {"type": "string", "description": described},
                {
                    "type": "array",
                    "minItems": least,
                    "maxItems": MAX_INPUTS,
                    "items": {"$ref": "#/components/schemas/Image"},
                },
            ]
        },
    )


Images = Annotated[
    list[Image], _images(1, "the first frame: https://, runway:// or data:"), BeforeValidator(_one_or_more)
]
References = Annotated[
    list[Image], _images(0, "a reference: https://, runway:// or data:"), BeforeValidator(_references)
]


class Range(Wire):
    """The part of a video that an edit is limited to: refused, as no variant here heeds it."""

    start_seconds: float
    end_seconds: float


class Keyframe(Wire):
    """An image at an instant of the clip: `seconds` from its beginning, or `at`, a share of its length."""

    uri: Media
    seconds: float | None = Field(default=None, ge=0, le=3600)
    at: float | None = Field(default=None, ge=0, le=1)
    range: Range | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "Keyframe":
        if (self.seconds is None) == (self.at is None):
            raise Refusal("needs one of seconds and at", "invalid", ("seconds", "at"))
        if self.range is not None:
            raise Refusal("no variant here limits an edit to a part of the video", "unsupported", (), ("range",))
        return self

    def named(self, path: Path) -> NamedInput:
        place = {"at_s": self.seconds} if self.seconds is not None else {"at_share": self.at}
        role_at = "seconds" if self.seconds is not None else "at"
        return NamedInput.of(Role.KEYFRAME, self.uri, path, role_at=role_at, uri_at="uri", **place)


class GenerateImage(Wire):
    """An image of `generate/video`."""

    role: Literal["first", "last", "reference"]
    uri: Media

    def named(self, path: Path) -> NamedInput:
        position: Position | None = None if self.role == "reference" else self.role
        return NamedInput.of(_ROLE_OF_POSITION[position], self.uri, path, role_at="role", uri_at="uri")


class GenerateReference(Wire):
    """A video of `generate/video`."""

    role: Literal["source", "reference"]
    uri: Media

    @model_validator(mode="after")
    def _is_the_source(self) -> "GenerateReference":
        if self.role != "source":
            raise Refusal("no variant here takes a video as a reference", "unsupported", ("source",), ("role",))
        return self

    def named(self, path: Path) -> NamedInput:
        return NamedInput.of(Role.SOURCE, self.uri, path, role_at="role", uri_at="uri")


def all_named(field: str, entries: Sequence[Any]) -> list[NamedInput]:
    """The inputs of a list of the body."""
    return [entry.named((field, number)) for number, entry in enumerate(entries)]
