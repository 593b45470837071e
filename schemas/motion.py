"""How the camera and things in the picture move, and how the time of a source runs.

Motion is said by keys, each with its instant; between two keys it is eased. What a key does not say stays as at the key
before. A `relative` key says by how much it differs from the key before: `absolute_camera` and `absolute_path` make the
same keys absolute and whole, which is the form that groups hold, so that the same motion has the same fingerprint
however it was written. Arrays a frame are made from these in `models.motion`.
"""

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from schemas.errors import Issue

MAX_KEYS = 100
MAX_PATHS = 20
# Nearer, and the camera would be in the scene.
MAX_DOLLY = 0.95
MIN_ZOOM, MAX_ZOOM = 0.05, 20.0


class Steer(StrEnum):
    """What of a shot's motion a request may say."""

    CAMERA = "camera"
    PATHS = "paths"


class PathGuide(StrEnum):
    """How a model is shown where things go."""

    BOXES = "boxes"  # outlines in colours on white, as in VACE's own layouts
    DOTS = "dots"  # white discs on black, at the middle of each thing


Bezier = tuple[float, float, float, float]
EaseName = Literal["linear", "in", "out", "in-out"]
# As in CSS: x1, y1, x2, y2 of the two inner points of a curve from (0, 0) to (1, 1).
EASES: dict[EaseName, Bezier] = {
    "linear": (0.0, 0.0, 1.0, 1.0),
    "in": (0.42, 0.0, 1.0, 1.0),
    "out": (0.0, 0.0, 0.58, 1.0),
    "in-out": (0.42, 0.0, 0.58, 1.0),
}
_CUBIC = re.compile(r"^cubic-bezier\((.*)\)$")
_FOUR = {"minItems": 4, "maxItems": 4}
_DIGITS = 9  # sums of relative keys are as exact as people write numbers


def _bezier(value: Any) -> Any:
    """A name as its curve; a curve, also as CSS writes it, as four numbers."""
    if isinstance(value, str):
        found = EASES.get(value)  # type: ignore[call-overload]
        if found is not None:
            return found
        written = _CUBIC.match(value.strip())
        if written is None:
            raise ValueError(f"unknown ease {value[:60]!r}: {', '.join(EASES)}, or x1, y1, x2, y2 of a cubic-bezier")
        value = [part.strip() for part in written[1].split(",")]
    try:
        numbers = tuple(float(one) for one in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 4 or not all(0 <= numbers[at] <= 1 and abs(numbers[at + 1]) <= 10 for at in (0, 2)):
        raise ValueError("a cubic-bezier is four numbers: x1, y1, x2, y2, of which x1 and x2 lie from 0 to 1")
    return numbers


Ease = Annotated[
    Bezier,
    BeforeValidator(_bezier),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(EASES)},
                {
                    "type": "array",
                    "items": {"type": "number", "minimum": 0, "maximum": 1},
                    "minItems": 4,
                    "maxItems": 4,
                },
            ]
        }
    ),
    Field(
        description="how the way from the key before runs: linear, in, out, in-out, or four numbers of a cubic-bezier"
    ),
]
Seconds = Annotated[float, Field(ge=0, le=3600, description="seconds from the clip's beginning")]
Degrees = Annotated[float, Field(ge=-3600, le=3600)]
Distance = Annotated[float, Field(ge=-10, le=10)]
Share = Annotated[float, Field(ge=-2, le=3)]
Box = tuple[Share, Share, Share, Share]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Key(_Frozen):
    at_s: Seconds
    relative: bool = Field(
        default=False, description="the numbers are changes against the key before; zoom and scale multiply"
    )
    ease: Ease = EASES["linear"]


class CameraKey(_Key):
    """Where the camera is at an instant, from where it stands when the clip begins.

    Lengths are in distances to the scene, which is as far away as the picture is wide there: `truck` 0.1 moves what is
    seen by a tenth of the picture's width. Translations go along the axes of the view at the beginning.
    """

    pan: Degrees | None = Field(default=None, description="degrees to the right")
    tilt: Degrees | None = Field(default=None, description="degrees up")
    roll: Degrees | None = Field(default=None, description="degrees clockwise, seen from behind the camera")
    zoom: float | None = Field(default=None, ge=MIN_ZOOM, le=MAX_ZOOM, description="focal length; 1 as it begins")
    dolly: Distance | None = Field(default=None, description="forwards; 1 would reach the scene")
    truck: Distance | None = Field(default=None, description="to the right")
    pedestal: Distance | None = Field(default=None, description="up")


class PathKey(_Key):
    """Where a thing is at an instant."""

    x: Share | None = Field(default=None, description="of its centre, a share of the picture's width from the left")
    y: Share | None = Field(default=None, description="of its centre, a share of the picture's height from the top")
    scale: float | None = Field(default=None, ge=MIN_ZOOM, le=MAX_ZOOM, description="of its size; 1 as it begins")
    rotation: Degrees | None = Field(default=None, description="degrees clockwise")


class Path(_Frozen):
    """Where one thing goes: a box or a point where it begins, and keys."""

    label: str = Field(min_length=1, max_length=100, description="what it is; paths of one label have one colour")
    box: Box | None = Field(
        default=None, description="left, top, right, bottom where it begins, shares of the picture; or `point`"
    )
    point: tuple[Share, Share] | None = Field(default=None, description="x, y where it begins; or `box`")
    keys: tuple[PathKey, ...] = Field(max_length=MAX_KEYS)

    @field_validator("box")
    @classmethod
    def _is_a_box(cls, box: Box | None) -> Box | None:
        return _box(box)

    @model_validator(mode="after")
    def _makes_sense(self) -> "Path":
        if (self.box is None) == (self.point is None):
            raise ValueError("a path begins with one of box and point")
        if not self.keys:
            raise ValueError("a path has one key at least; one at 0 s is a thing that stays")
        if self.point is not None and any(key.rotation or (key.scale or 1.0) != 1.0 for key in self.keys):
            raise ValueError("a point has neither scale nor rotation: give a box")
        _in_order(self.keys)
        return self


class Edit(_Frozen):
    """What is done to a source before the model sees it."""

    speed: float | None = Field(default=None, ge=0.05, le=20, description="how fast it runs; 2 is twice as fast")
    reverse: bool = Field(default=False, description="it runs backwards, from the end of the part that is used")
    region: Box | None = Field(
        default=None,
        description="left, top, right, bottom, shares of the picture: only inside is made anew",
    )

    @field_validator("region")
    @classmethod
    def _is_a_box(cls, region: Box | None) -> Box | None:
        return _box(region)

    @model_validator(mode="after")
    def _says_something(self) -> "Edit":
        if not self.model_fields_set:
            raise ValueError(f"says nothing: give {', '.join(type(self).model_fields)}")
        return self

    @property
    def retimes(self) -> bool:
        """True when the source does not run as it is."""
        return self.reverse or self.speed not in (None, 1.0)

    @property
    def changes(self) -> bool:
        """True when the model is shown something else than without it."""
        return self.retimes or self.region is not None


def _box(box: Box | None) -> Box | None:
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError("a box is left, top, right, bottom: left before right, top before bottom")
    return box


def _in_order(keys: Sequence[_Key]) -> None:
    for number, (before, key) in enumerate(pairwise(keys), 1):
        if key.at_s <= before.at_s:
            raise ValueError(f"key {number}: at_s {key.at_s:g} is not after the key before it ({before.at_s:g})")


def _parsed(value: Any) -> Any:
    """JSON where a text stands, as in a cell of a CSV."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def _listed(value: Any) -> Any:
    value = _parsed(value)
    if value is None:
        return ()
    return [value] if isinstance(value, dict) else value


def followable(keys: tuple[CameraKey, ...]) -> tuple[CameraKey, ...]:
    """`keys`, when a camera can follow them. Raises ValueError naming the key."""
    _in_order(keys)
    for number, key in enumerate(absolute_camera(keys)[-len(keys) :] if keys else ()):
        if (key.dolly or 0.0) > MAX_DOLLY:
            raise ValueError(f"key {number}: dolly {key.dolly:g} goes through the scene: at most {MAX_DOLLY:g}")
        if not MIN_ZOOM <= (key.zoom or 1.0) <= MAX_ZOOM:
            raise ValueError(f"key {number}: zoom comes to {key.zoom:g}: it may be {MIN_ZOOM:g} to {MAX_ZOOM:g}")
    return keys


# JSON in a text is taken too, and one key or path for a list of it.
Camera = Annotated[
    tuple[CameraKey, ...], BeforeValidator(_listed), Field(max_length=MAX_KEYS), AfterValidator(followable)
]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_listed), Field(max_length=MAX_PATHS)]
EditField = Annotated[Edit, BeforeValidator(_parsed)]
MOTION_FIELDS: dict[str, type[BaseModel]] = {"camera": CameraKey, "paths": Path, "edit": Edit}

_REST = CameraKey(at_s=0.0, pan=0.0, tilt=0.0, roll=0.0, zoom=1.0, dolly=0.0, truck=0.0, pedestal=0.0)
_CAMERA_SUMS = ("pan", "tilt", "roll", "dolly", "truck", "pedestal")


def absolute_camera(keys: Sequence[CameraKey]) -> tuple[CameraKey, ...]:
    """The same motion in absolute keys that say everything, from a key at 0 s on: where none is there, the camera rests
    until then. Of no keys: none."""
    return _absolute(_REST, keys, _CAMERA_SUMS, "zoom")


def absolute_path(path: Path) -> Path:
    """The same path in absolute keys that say everything, from a key at 0 s on: there it is where it begins."""
    x, y = centre(path)
    begin = PathKey(at_s=0.0, x=x, y=y, scale=1.0, rotation=0.0)
    return path.model_copy(update={"keys": _absolute(begin, path.keys, ("x", "y", "rotation"), "scale")})


def centre(path: Path) -> tuple[float, float]:
    """Where a path begins: x and y, shares of the picture."""
    if path.box is None:
        assert path.point is not None
        return path.point
    left, top, right, bottom = path.box
    return round((left + right) / 2, _DIGITS), round((top + bottom) / 2, _DIGITS)


Key = TypeVar("Key", CameraKey, PathKey)


def _absolute(begin: Key, keys: Sequence[Key], sums: Sequence[str], product: str) -> tuple[Key, ...]:
    if not keys:
        return ()
    found: list[Key] = [] if keys[0].at_s == 0 else [begin]
    before = begin
    for key in keys:
        said: dict[str, Any] = {}
        for name in (*sums, product):
            was, value = getattr(before, name), getattr(key, name)
            if value is None:
                value = was
            elif key.relative:
                value = round(was * value if name == product else was + value, _DIGITS)
            said[name] = value
        # Nothing leads to the first key of all.
        ease = key.ease if found else EASES["linear"]
        before = key.model_copy(update={**said, "relative": False, "ease": ease})
        found.append(before)
    return tuple(found)


def motion_issue(told: dict[str, Any]) -> Issue:
    """What pydantic says of `camera`, `paths` or `edit`, with the place, the value and the choices."""
    loc = tuple(str(part) for part in told["loc"])
    kind, message = str(told["type"]), str(told["msg"]).removeprefix("Value error, ")
    choices: tuple[str, ...] = ()
    if kind == "extra_forbidden":
        within = PathKey if "keys" in loc else MOTION_FIELDS[loc[0]]
        message, choices = f"no field is called {loc[-1]!r}", tuple(within.model_fields)
    elif kind == "missing":
        message = "is missing"
    elif loc[-1] == "ease":
        choices = tuple(EASES)
    elif kind not in ("value_error", "missing"):
        message = f"{message} (got {repr(told['input'])[:60]})"
    return Issue(".".join(loc), message, kind, choices)


def read_motion(name: str, value: Any) -> tuple[Any, tuple[Issue, ...]]:
    """`camera`, `paths` or `edit` from JSON, or what is wrong with it."""
    try:
        return _ADAPTERS[name].validate_python(value), ()
    except ValidationError as error:
        return None, tuple(motion_issue({**one, "loc": (name, *one["loc"])}) for one in error.errors(include_url=False))


_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "camera": TypeAdapter(Camera),
    "paths": TypeAdapter(Paths),
    "edit": TypeAdapter(EditField),
}
