"""Tasks, and the groups of them that may share one model call."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, ConfigDict

from schemas.conditions import Condition
from schemas.moderation import PublicFigures
from schemas.motion import CameraKey, Edit, Path
from schemas.request import Mode
from schemas.shape import Shape


class Group(BaseModel):
    """Everything that must be equal inside one model call, and the clip format. The keys of `camera` and `paths` are
    absolute (`schemas.motion`)."""

    model_config = ConfigDict(frozen=True)

    variant: str
    variant_digest: str
    mode: Mode
    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    scheduler: str | None = None
    conditions: tuple[Condition, ...] = ()
    camera: tuple[CameraKey, ...] = ()
    paths: tuple[Path, ...] = ()
    edit: Edit | None = None
    clip_format: str = "mp4"

    @cached_property
    def shape(self) -> Shape:
        return Shape(width=self.width, height=self.height, frames=self.frames)

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits: the same group has the same key in every process."""
        return hashlib.sha256(self._inputs).hexdigest()[:16]

    @cached_property
    def _inputs(self) -> bytes:
        # The name may be an alias tomorrow; the digest says what is really rendered.
        inputs = self.model_dump(mode="json", exclude={"variant"})
        return json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()

    def fingerprint(self, prompt: str, negative_prompt: str, seed: int, media: Sequence[str] = ()) -> str:
        """32 hexadecimal digits of SHA-256 over every input of a task in this group. `media` stand for the contents of
        its conditions, in their order."""
        own = _joined(prompt, negative_prompt, str(seed), *media)
        return hashlib.sha256(self._inputs + own).hexdigest()[:32]


def derived_seed(row_id: str | None, prompt: str, negative_prompt: str, media: Sequence[str] = ()) -> int:
    """The seed of a row that names none: a function of the row, so a rerun is the same run.

    Rows with ids of their own get seeds of their own; rows that are equal throughout get the same one.
    """
    digest = hashlib.sha256(_joined(row_id, prompt, negative_prompt, *media)).digest()
    return int.from_bytes(digest[:4], "big")


def _joined(*texts: str | None) -> bytes:
    """Texts as one, with their lengths before them, so that no two different lists look alike."""
    return "".join([f"{len(text)}:{text}" if text is not None else "-" for text in texts]).encode(
        "utf-8", "surrogatepass"
    )


@dataclass(frozen=True)
class Task:
    """One request resolved to one variant and one seed: the unit of work, retry and billing. `media` are where the
    images and videos of the group's conditions are, in their order."""

    fingerprint: str
    prompt: str
    negative_prompt: str
    seed: int
    media: tuple[str, ...] = ()
    # How strict moderation is about public figures. It changes nothing about the clip, nor the fingerprint.
    public_figures: PublicFigures = "auto"


@dataclass(frozen=True)
class RenderBatch:
    """Tasks of one group, rendered in one model call."""

    group: Group
    tasks: tuple[Task, ...]

    @property
    def key(self) -> str:
        return hashlib.sha256("".join(task.fingerprint for task in self.tasks).encode()).hexdigest()[:16]

    def split(self) -> tuple["RenderBatch", ...]:
        """The halves of a batch that ran out of memory; itself when it is a single task."""
        if len(self.tasks) < 2:
            return (self,)
        middle = len(self.tasks) // 2
        return RenderBatch(self.group, self.tasks[:middle]), RenderBatch(self.group, self.tasks[middle:])
