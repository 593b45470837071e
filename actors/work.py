"""What a worker and its link hand each other: tasks to be done, how far they are, how they ended. Frozen values."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from actors.renderer import TaskFailure
from schemas.clip import Record
from schemas.task import Group, RenderBatch, Task


@dataclass(frozen=True, eq=False)
class WorkItem:
    """A task in the hands of one worker, once: given out again it is another item, so items are equal only to
    themselves. A link derives its own class from this, which adds what it knows the item by."""

    task: Task
    # On the wall clock; what is between it and the model call is `queue_s`.
    waiting_since: float
    # Attempts that came to nothing, perhaps with their process. One such makes it a suspect: it is rendered alone.
    losses: int = 0
    # An earlier attempt may have stored its clip.
    again: bool = False


I = TypeVar("I", bound=WorkItem)  # noqa: E741


@dataclass(frozen=True)
class WorkBatch(Generic[I]):
    """Items of one group."""

    group: Group
    items: tuple[I, ...]

    @property
    def work(self) -> RenderBatch:
        """The tasks, as a model takes them."""
        return RenderBatch(self.group, tuple(item.task for item in self.items))


class Stage(StrEnum):
    """Where an item is, in the words of the endpoint's API."""

    WAITING = "waiting"  # its media are being read, or the batch before it is being rendered
    RENDERING = "rendering"
    ENCODING = "encoding"


@dataclass(frozen=True)
class ItemProgress(Generic[I]):
    """`share` of the denoising steps, 0 to 1."""

    item: I
    stage: Stage
    share: float


@dataclass(frozen=True)
class ItemEnd(Generic[I]):
    """How an item ended: with the record of its clip, or with the failure."""

    item: I
    end: Record | TaskFailure


@dataclass(frozen=True)
class BatchEnd(Generic[I]):
    """Items of a batch that have ended, some or all of it. `busy_s` is how long the accelerator was theirs; `one_call`
    says that this was one model call, which made a clip of each; `found`, that earlier attempts had ended them."""

    group: Group
    ends: tuple[ItemEnd[I], ...]
    busy_s: float = 0.0
    one_call: bool = False
    found: bool = False

    @property
    def work(self) -> RenderBatch:
        """The tasks."""
        return RenderBatch(self.group, tuple(ended.item.task for ended in self.ends))
