"""A finished clip, what became of each task, and where its seconds went."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from schemas.moderation import Moderation


class Status(StrEnum):
    """The life of a task."""

    PENDING = "PENDING"
    THROTTLED = "THROTTLED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"  # bulk only: a manifest row that never became a task


class ClipFormat(StrEnum):
    """How frames become a file."""

    MP4 = "mp4"
    WEBM = "webm"
    GIF = "gif"
    PNG = "png"  # frames as numbered PNGs in one .zip

    @property
    def suffix(self) -> str:
        return "zip" if self is ClipFormat.PNG else self.value

    @property
    def content_type(self) -> str:
        return {"mp4": "video/mp4", "webm": "video/webm", "gif": "image/gif", "png": "application/zip"}[self.value]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Timings(_Frozen):
    """Seconds of one task. Those of a shared call are the task's share: they add up over the batch."""

    queue_s: float = 0.0
    load_s: float = 0.0
    render_s: float = 0.0
    finish_s: float = 0.0
    encode_s: float = 0.0
    store_s: float = 0.0


class Clip(_Frozen):
    """A stored video file."""

    uri: str
    poster_uri: str | None = None
    sha256: str
    clip_bytes: int = Field(ge=0)
    width: int
    height: int
    frames: int
    fps: float
    audio: bool = False  # whether it has sound
    unsigned_sha256: str | None = None  # of the bytes before they were signed; None where they are not
    signed_by: str | None = None  # whose certificate signed the file


class Record(_Frozen):
    """What the ledger keeps of one task: written by the actor at the moment its clip is stored."""

    fingerprint: str
    status: Status
    variant: str
    revision: str = ""
    seed: int
    attempts: int = 1
    clip: Clip | None = None
    timings: Timings = Timings()
    billed_gpu_s: float = 0.0
    billed_usd: float = 0.0
    billed_finish_usd: float = 0.0  # of that, what was done to the clip after it was rendered
    # Of the clips that this one was made from, where they were made now: written with it, kept nowhere else.
    before: tuple["Record", ...] = Field(default=(), exclude=True)
    error_class: str | None = None
    error: str | None = None
    failure_code: str | None = None  # Runway's, of what moderation refused
    moderation: Moderation = Moderation()  # of its media and its frames
    refused_by: str | None = None  # digest of the moderation that refused it: the same would refuse it again
    quarantined: bool = False
    finished_at: str = Field(default="", description="ISO 8601, UTC")
