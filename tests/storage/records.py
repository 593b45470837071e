"""Records for tests."""

from typing import Any

from schemas.clip import Clip, Record, Status, Timings

CLIP = Clip(
    uri="file:///out/clips/x.mp4",
    poster_uri=None,
    sha256="ab" * 32,
    clip_bytes=1000,
    width=512,
    height=320,
    frames=25,
    fps=8.0,
)


def record(
    fingerprint: str, status: Status = Status.SUCCEEDED, at: str = "2026-01-01T00:00:00+00:00", **more: Any
) -> Record:
    """A record; only a success has a clip."""
    done = status is Status.SUCCEEDED
    fields: dict[str, Any] = {
        "fingerprint": fingerprint,
        "status": status,
        "variant": "ltx",
        "revision": "r1",
        "seed": 2**32 - 1,
        "clip": CLIP if done else None,
        "timings": Timings(render_s=1.5),
        "error": None if done else "it raised",
        "error_class": None if done else "RenderError",
        "finished_at": at,
    }
    return Record(**{**fields, **more})
