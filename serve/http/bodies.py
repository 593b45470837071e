"""A create's body where the path does not say which it is: a row of a batch, or what an estimate is asked for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from schemas.request import Mode
from schemas.request import Request as Wanted
from serve.http.creates import wanted_of
from serve.http.errors import WIRE_NAMES
from serve.wire.base import Path, WireError, WireIssue, issue, issues_of
from serve.wire.creates import Creates, ImageToVideo, TextToVideo, VideoToVideo

_BODIES: Mapping[Mode, type[Creates]] = {
    Mode.TEXT_TO_VIDEO: TextToVideo,
    Mode.IMAGE_TO_VIDEO: ImageToVideo,
    Mode.VIDEO_TO_VIDEO: VideoToVideo,
}


@dataclass(frozen=True)
class Media:
    """What the client named, and where in the body."""

    kind: Literal["image", "video"]
    uri: str
    name: str


@dataclass(frozen=True)
class Creation:
    """A create, read but neither fetched nor admitted."""

    mode: Mode
    body: Creates
    prompt: str
    media: Media | None = None
    strength: float | None = None

    def wanted(self, uri: str | None) -> Wanted:
        """The request, with `uri` in the place of the client's. Raises WireError."""
        image = uri if self.media and self.media.kind == "image" else None
        video = uri if self.media and self.media.kind == "video" else None
        return wanted_of(self.body, self.mode, prompt=self.prompt, image=image, video=video, strength=self.strength)

    @property
    def names(self) -> Mapping[str, str]:
        """What the client calls the fields of a request."""
        frames = "numFrames" if self.body.num_frames is not None else "duration"
        video = self.media.name if self.media and self.media.kind == "video" else "videoUri"
        return {**WIRE_NAMES, "num_frames": frames, "video": video}


def creation_of(given: object, *, max_prompt_chars: int, now: float) -> Creation:
    """Read `given`, JSON already parsed. `mode` may say which create it is; else its media do. Raises WireError."""
    if not isinstance(given, dict):
        raise WireError([issue("model_type", (), "must be a JSON object")])
    fields: dict[str, Any] = dict(given)
    mode = _mode(fields.pop("mode", None), fields)
    try:
        body = _BODIES[mode].model_validate(fields, context={"max_prompt_chars": max_prompt_chars, "now": now})
    except ValidationError as error:
        raise WireError(issues_of(error, _BODIES[mode])) from None
    if isinstance(body, ImageToVideo):
        return Creation(mode, body, body.prompt_text or "", Media("image", body.prompt_image[0].uri, "promptImage"))
    if isinstance(body, VideoToVideo):
        name = "videoUri" if body.video_uri is not None else "promptVideo"
        media = Media("video", body.video_uri or body.prompt_video or "", name)
        return Creation(mode, body, body.prompt_text or "", media, body.strength)
    assert isinstance(body, TextToVideo)
    return Creation(mode, body, body.prompt_text)


def _mode(said: object, fields: Mapping[str, Any]) -> Mode:
    choices = tuple(mode.value for mode in Mode)
    if said is not None:
        if not isinstance(said, str) or said not in choices:
            raise WireError([issue("invalid", "mode", f"must be one of {', '.join(choices)}", choices, said)])
        return Mode(said)
    if fields.get("videoUri") is not None or fields.get("promptVideo") is not None:
        return Mode.VIDEO_TO_VIDEO
    return Mode.IMAGE_TO_VIDEO if fields.get("promptImage") is not None else Mode.TEXT_TO_VIDEO


def within(prefix: Path, issues: tuple[WireIssue, ...]) -> list[WireIssue]:
    """The same, deeper in a body."""
    return [one.model_copy(update={"path": (*prefix, *one.path)}) for one in issues]


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
