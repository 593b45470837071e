"""Motion in bodies: the words of `schemas.motion`, in the client's letters."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from schemas.motion import MAX_KEYS, MAX_PATHS, CameraKey, Path, PathKey, Seconds, followable

_CAMEL = ConfigDict(alias_generator=to_camel)


class CameraKeyBody(CameraKey):
    """Where the camera is at an instant. Lengths are in distances to the scene, angles in degrees."""

    model_config = _CAMEL

    at_s: Seconds = Field(alias="atSeconds")


class PathKeyBody(PathKey):
    """Where a thing is at an instant, in shares of the picture."""

    model_config = _CAMEL

    at_s: Seconds = Field(alias="atSeconds")


class PathBody(Path):
    """Where one thing goes: a box or a point where it begins, and keys."""

    model_config = _CAMEL

    keys: Annotated[tuple[PathKeyBody, ...], Field(max_length=MAX_KEYS)]


CameraBody = Annotated[tuple[CameraKeyBody, ...], Field(max_length=MAX_KEYS), AfterValidator(followable)]
PathsBody = Annotated[tuple[PathBody, ...], Field(max_length=MAX_PATHS)]


def camera_of(keys: Sequence[CameraKeyBody]) -> tuple[CameraKey, ...]:
    """The keys as everything behind the body has them."""
    return tuple(CameraKey.model_validate(key.model_dump(exclude_unset=True)) for key in keys)


def paths_of(paths: Sequence[PathBody]) -> tuple[Path, ...]:
    """The same of paths."""
    return tuple(Path.model_validate(path.model_dump(exclude_unset=True)) for path in paths)
