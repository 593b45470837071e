"""Motion in bodies: what is taken, and where what is wrong is told."""

from typing import Any

import pytest

from schemas.motion import CameraKey, Path
from serve.wire.base import WireError, validate
from serve.wire.creates import ImageToVideo
from serve.wire.motion import camera_of, paths_of

KEY = {"atSeconds": 1, "pan": 10}
PATH = {"label": "fox", "box": [0, 0, 0.5, 0.5], "keys": [{"atSeconds": 1, "x": 0.5}]}


def body(**fields: Any) -> ImageToVideo:
    return validate(ImageToVideo, {"model": "vace", "promptImage": "https://example.com/a.png", **fields})


def test_a_body_means_what_a_manifest_means() -> None:
    read = body(camera=[{**KEY, "ease": "in"}], paths=[PATH], edit={"speed": 2})
    assert camera_of(read.camera) == (CameraKey(at_s=1, pan=10, ease="in"),)  # type: ignore[arg-type]
    ours = {**PATH, "keys": [{"at_s": 1, "x": 0.5}]}
    assert paths_of(read.paths) == (Path.model_validate(ours),)
    assert read.edit is not None
    assert read.edit.speed == 2


@pytest.mark.parametrize(
    ("fields", "path", "message", "choices"),
    [
        ({"camera": [{"pan": 1}]}, ("camera", 0, "atSeconds"), "is required", ()),
        ({"camera": [{**KEY, "yaw": 1}]}, ("camera", 0, "yaw"), "yaw is not known", ("atSeconds", "relative", "ease")),
        ({"camera": [{**KEY, "ease": "slow"}]}, ("camera", 0, "ease"), "linear, in, out, in-out", ()),
        ({"camera": [KEY, KEY]}, ("camera",), "key 1: at_s 1 is not after the key before it", ()),
        ({"paths": [{**PATH, "point": [0, 0]}]}, ("paths", 0), "one of box and point", ()),
        ({"paths": [{**PATH, "keys": [{"atSeconds": 1, "q": 1}]}]}, ("paths", 0, "keys", 0, "q"), "is not known", ()),
        ({"edit": {}}, ("edit",), "says nothing: give speed, reverse, region", ()),
        ({"edit": {"pace": 2}}, ("edit", "pace"), "pace is not known", ("speed", "reverse", "region")),
    ],
)
def test_what_is_wrong_is_told_at_its_place(
    fields: dict[str, Any], path: tuple[Any, ...], message: str, choices: tuple[str, ...]
) -> None:
    with pytest.raises(WireError) as caught:
        body(**fields)
    issue = caught.value.issues[0]
    assert issue.path == path
    assert message in issue.message
    assert issue.choices[: len(choices)] == choices
