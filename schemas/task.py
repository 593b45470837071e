"""Tasks, and the groups of them that may share one model call."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from schemas.chunks import Chunk, Windows, cut
from schemas.conditions import Condition
from schemas.finish import FinishStage, chained
from schemas.loras import Lora
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
    audio: bool = False
    loras: tuple[Lora, ...] = ()
    # The frames at which the prompts after the first begin.
    turns: tuple[int, ...] = ()
    # Of a clip that is made of several calls: how long they are. None: it is made in one.
    chunks: Windows | None = None
    # What is done to the clip after the call. Width, height, frames and rate above are those that the model renders.
    finish: tuple[FinishStage, ...] = ()

    @cached_property
    def shape(self) -> Shape:
        return Shape(width=self.width, height=self.height, frames=self.frames)

    @cached_property
    def cuts(self) -> tuple[Chunk, ...]:
        """The calls that a clip is made of, one after the other; none where it is made in one."""
        return cut(self.frames, self.turns, self.chunks) if self.chunks is not None else ()

    @property
    def clip_shape(self) -> Shape:
        """Of the clip when all is done to it."""
        return self.finish[-1].shape if self.finish else self.shape

    @property
    def clip_fps(self) -> float:
        """Of the clip when all is done to it."""
        return self.finish[-1].fps if self.finish else self.fps

    def up_to(self, stages: int) -> "Group":
        """The group of the clip after so many stages; 0 is the clip as it was rendered."""
        return self.changed(finish=self.finish[:stages])

    def changed(self, **fields: Any) -> "Group":
        """The same group with other `fields`, unchecked. (A `model_copy` would keep what was worked out of the old
        ones: its shape, its key.)"""
        own = {name: getattr(self, name) for name in Group.model_fields}
        return Group.model_construct(**{**own, **fields})

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits: the same group has the same key in every process."""
        return chained(hashlib.sha256(self._inputs).hexdigest(), self.finish)[:16]

    @cached_property
    def _inputs(self) -> bytes:
        # The name may be an alias tomorrow; the digest says what is really rendered.
        # What is done afterwards is no input of the call: the clip below it is the one that goes without.
        inputs = self.model_dump(mode="json", exclude={"variant", "finish", *self._unsaid})
        return json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()

    @property
    def _unsaid(self) -> set[str]:
        """Fields that came later than the others and say nothing here: groups without them keep their digests."""
        return {name for name in ("loras", "turns", "chunks", "audio") if not getattr(self, name)}

    @property
    def motion(self) -> dict[str, Any]:
        """Its camera, paths and edit as a table of results has them; those of which nothing is said are not there."""
        said = self.model_dump(mode="json", include={"camera", "paths", "edit"}, exclude_none=True)
        return {name: value for name, value in said.items() if value}

    @property
    def told(self) -> dict[str, Any]:
        """A group as a file tells of it. Clips to which nothing is done say nothing of that."""
        unsaid = {"variant", *(self._unsaid & {"turns", "chunks", "audio"})}
        return self.model_dump(mode="json", exclude=unsaid if self.finish else unsaid | {"finish"})

    def fingerprint(
        self, prompt: str, negative_prompt: str, seed: int, media: Sequence[str] = (), later: Sequence[str] = ()
    ) -> str:
        """32 hexadecimal digits of SHA-256 over every input of a task in this group. `media` stand for the contents of
        its conditions, in their order, `later` are the prompts of its turns."""
        return chained(self.base_fingerprint(prompt, negative_prompt, seed, media, later), self.finish)

    def base_fingerprint(
        self, prompt: str, negative_prompt: str, seed: int, media: Sequence[str] = (), later: Sequence[str] = ()
    ) -> str:
        """The same of the clip as it is rendered, before anything is done to it."""
        own = _joined(prompt, negative_prompt, str(seed), *media, *later)
        return hashlib.sha256(self._inputs + own).hexdigest()[:32]


def derived_seed(row_id: str | None, prompt: str, negative_prompt: str, media: Sequence[str] = ()) -> int:
    """The seed of a row that names none: a function of the row, so a rerun is the same run.

    Rows with ids of their own get seeds of their own; rows that are equal throughout get the same one.
    """
    digest = hashlib.sha256(_joined(row_id, prompt, negative_prompt, *media)).digest()
    return int.from_bytes(digest[:4], "big")


def sample_seed(seed: int, sample: int) -> int:
    """The seed of a row's `sample`th clip, from 0, where `seed` is that of the first: so that more samples of a row are
    more clips beside those that there are."""
    if sample == 0:
        return seed
    return int.from_bytes(hashlib.sha256(_joined("sample", str(seed), str(sample))).digest()[:4], "big")


def _joined(*texts: str | None) -> bytes:
    """Texts as one, with their lengths before them, so that no two different lists look alike."""
    return "".join([f"{len(text)}:{text}" if text is not None else "-" for text in texts]).encode(
        "utf-8", "surrogatepass"
    )


@dataclass(frozen=True)
class Task:
    """One request resolved to one variant and one seed: the unit of work, retry and billing. `media` are where the
    images and videos of the group's conditions are, in their order; `later` are the prompts of its turns."""

    fingerprint: str
    prompt: str
    negative_prompt: str
    seed: int
    media: tuple[str, ...] = ()
    # How strict moderation is about public figures. It changes nothing about the clip, nor the fingerprint.
    public_figures: PublicFigures = "auto"
    # Of the clip as it is rendered, where something is done to it afterwards.
    base: str = ""
    later: tuple[str, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """All of them, in their order."""
        return (self.prompt, *self.later)

    @property
    def words(self) -> str:
        """All of them as one text, as people are told of what was asked."""
        return "\n".join(self.prompts)


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
