"""One replica as a plan sees it, and where a task would go among several."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.scheduling.memory import FixedMemory, Memory
from cluster.scheduling.work_queue import Planned, WorkQueue
from cluster.scheduling.work_table import Floats


@dataclass
class ReplicaQueue:
    """One replica. The two memories are as they are, and as they will be after the queue."""

    name: Hashable
    group: str
    memory: Memory
    plan: Memory
    queue: WorkQueue = field(default_factory=WorkQueue)
    pending_s: float = 0.0
    running: Planned | None = None
    until_s: float = 0.0  # predicted end of what runs
    fixed: bool = field(init=False)
    """Holds one model for ever, so that no order of tasks changes what is loaded."""

    def __post_init__(self) -> None:
        self.fixed = type(self.memory) is FixedMemory

    def expected_free_s(self, now_s: float, growth: float) -> float:
        """When what runs is expected to end: what is late goes on for a while in proportion."""
        if self.until_s >= now_s:
            return self.until_s
        return now_s + growth * (now_s - self.until_s) if self.running is not None else now_s

    def running_work_s(self, now_s: float) -> float:
        """Of what runs, the work that is predicted to be left; its load is not counted."""
        return min(max(0.0, self.until_s - now_s), self.running.work_s) if self.running is not None else 0.0


class Turn(NamedTuple):
    """Where a task would go: it starts then on the replica at `place`, behind what has `key_s`."""

    start_s: float
    place: int
    key_s: float
    load_s: float


class View(NamedTuple):
    """The replicas as a task with a key sees them."""

    key_s: float
    free_s: Floats  # when each is expected to end what it runs …
    begin_s: Floats  # … and what is ahead of the task
    wait_s: float  # mean seconds of work that it cannot go before, without loads: smaller tasks make those no shorter
    last: bool  # everything is ahead of it


ELSEWHERE = Planned(0.0, -1, -1, -1, 0.0, 0.0)
"""Stands for what a replica does that was not queued here."""
