"""A worker's link that gives out what is in `work` and keeps what it is told, in order."""

import threading
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from actors.renderer import TaskFailure
from actors.work import BatchEnd, ItemEnd, ItemProgress, WorkBatch, WorkItem
from schemas.clip import Record
from schemas.task import Group

WAIT_S = 30.0
_POLL_S = 0.05

Batch = WorkBatch[WorkItem]
End = BatchEnd[WorkItem]


@dataclass
class ScriptedLink:
    """`looks` is called with the name of a call, on the worker's own thread, before the call does anything."""

    work: "SimpleQueue[Batch]" = field(default_factory=SimpleQueue)
    told: "SimpleQueue[End]" = field(default_factory=SimpleQueue)
    begun: list[tuple[str, ...]] = field(default_factory=list)
    rendering_over: list[tuple[str, ...]] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    given: list[tuple[str, ...]] = field(default_factory=list)
    beats: list[tuple[ItemProgress[WorkItem], ...]] = field(default_factory=list)
    unwanted: set[str] = field(default_factory=set)
    records: dict[str, Record] = field(default_factory=dict)
    looks: Callable[[str], None] = lambda call: None
    events: "defaultdict[str, threading.Event]" = field(default_factory=lambda: defaultdict(threading.Event))

    def next(self, held: tuple[WorkItem, ...]) -> Batch | None:
        try:
            batch = self.work.get(timeout=_POLL_S)
        except Empty:
            return None
        self.looks("next")
        self.given.append(_prompts(batch))
        return batch

    def found(self, group: Group, item: WorkItem) -> Record | None:
        self.looks("found")
        return self.records.get(item.task.prompt)

    def begin(self, batch: Batch) -> None:
        self.begun.append(_prompts(batch))
        self.looks("begin")
        self.events[f"begun {batch.items[0].task.prompt}"].set()

    def rendered(self, batch: Batch) -> None:
        self.rendering_over.append(_prompts(batch))
        self.looks("rendered")
        self.events[f"rendered {batch.items[0].task.prompt}"].set()

    def beat(self, progress: tuple[ItemProgress[WorkItem], ...]) -> Collection[WorkItem]:
        self.beats.append(progress)
        return [at.item for at in progress if at.item.task.prompt in self.unwanted]

    def ended(self, end: End) -> None:
        self.ends.append(end)
        self.told.put(end)

    def results(self, items: int) -> dict[str, ItemEnd[WorkItem]]:
        """The ends of so many items, by prompt."""
        found: dict[str, ItemEnd[WorkItem]] = {}
        while len(found) < items:
            found |= {end.item.task.prompt: end for end in self.told.get(timeout=WAIT_S).ends}
        return found

    def kinds(self, items: int) -> dict[str, str]:
        """What became of so many items: 'clip', or the class of the error."""
        return {
            prompt: type(one.end.error).__name__ if isinstance(one.end, TaskFailure) else "clip"
            for prompt, one in self.results(items).items()
        }


def _prompts(batch: Batch) -> tuple[str, ...]:
    return tuple(item.task.prompt for item in batch.items)
