"""What every replica is going to do: its queue in order, with predicted loads and seconds, up to date event by event.

A task is planned onto a replica when it is routed and can be moved until it starts. The arrays over replicas answer
"when would variant v start on each of them" in a few vector operations, whatever the length of the queues; a queue is
only walked when a task is put in its middle, and then only that replica's.
"""

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt


class Memory(Protocol):
    """What a replica holds: which models are resident, and what making one resident takes."""

    def load_s(self, variant: int) -> float:
        """Seconds before a task of `variant` could run; infinite when it never can."""
        ...

    def use(self, variant: int) -> float:
        """Make `variant` resident, evicting others as need be; returns `load_s`."""
        ...

    def copy(self) -> Self:
        """A memory to plan with."""
        ...


@dataclass
class FixedMemory:
    """A replica that was started with one model and keeps it."""

    variant: int

    def load_s(self, variant: int) -> float:
        return 0.0 if variant == self.variant else math.inf

    def use(self, variant: int) -> float:
        return self.load_s(variant)

    def copy(self) -> "FixedMemory":
        return self


class Planned(NamedTuple):
    """A task that waits on a replica. `key_s` orders the queue: a virtual arrival instant (see fairness)."""

    key_s: float
    number: int
    task: int
    variant: int
    work_s: float
    load_s: float


@dataclass
class _Lane:
    """One replica. The two memories are as they are, and as they will be after the queue."""

    name: Hashable
    group: str
    memory: Memory
    plan: Memory
    queue: list[Planned] = field(default_factory=list)
    pending_s: float = 0.0
    running: Planned | None = None
    until_s: float = 0.0  # predicted end of what runs


class Timelines:
    """All replicas, in groups (accelerator types) that are contiguous in the arrays."""

    def __init__(self, variants: int) -> None:
        self._variants = range(variants)
        self.lanes: list[_Lane] = []
        self.place: dict[Hashable, int] = {}
        self.groups: dict[str, slice] = {}
        self.free_s: npt.NDArray[np.float64] = np.zeros(0)
        self.loads_s: npt.NDArray[np.float64] = np.zeros((variants, 0))
        self.waiting: dict[int, Hashable] = {}  # task → replica
        self._number = 0

    # -- replicas ------------------------------------------------------------------------------------------------

    def add(self, replicas: Sequence[tuple[Hashable, str, Memory]], now_s: float, ready_s: float | None = None) -> None:
        """Replicas come up: (name, group, memory)."""
        fresh = [_Lane(name, group, memory, memory.copy()) for name, group, memory in replicas]
        for lane in fresh:
            lane.until_s = now_s if ready_s is None else ready_s
        self._arrange([*self.lanes, *fresh])

    def drop(self, names: Sequence[Hashable]) -> list[Planned]:
        """Replicas are gone; what ran or waited on them, in order."""
        gone = set(names)
        lost: list[Planned] = []
        for lane in self.lanes:
            if lane.name in gone:
                lost += [lane.running] if lane.running else []
                lost += lane.queue
                for planned in lane.queue:
                    del self.waiting[planned.task]
        self._arrange([lane for lane in self.lanes if lane.name not in gone])
        return sorted(lost)

    def _arrange(self, lanes: list[_Lane]) -> None:
        self.lanes = sorted(lanes, key=lambda lane: lane.group)
        self.place = {lane.name: place for place, lane in enumerate(self.lanes)}
        self.groups = {}
        for place, lane in enumerate(self.lanes):
            start = self.groups[lane.group].start if lane.group in self.groups else place
            self.groups[lane.group] = slice(start, place + 1)
        self.free_s = np.array([lane.until_s + lane.pending_s for lane in self.lanes])
        self.loads_s = np.array([[lane.plan.load_s(v) for lane in self.lanes] for v in self._variants])

    # -- questions -----------------------------------------------------------------------------------------------

    def starts(self, variant: int, now_s: float, dear: float = 0.0) -> dict[str, tuple[float, int]]:
        """For each group the replica to prefer and when a task of `variant`, queued last, would start there.

        `dear` is what a second of loading counts beside a second of waiting: loading takes from everybody.
        """
        loads_s = self.loads_s[variant]
        start_s = np.maximum(self.free_s, now_s) + loads_s
        score = start_s + dear * loads_s if dear else start_s
        found = {}
        for group, members in self.groups.items():
            place = members.start + int(score[members].argmin())
            found[group] = (float(start_s[place]), place)
        return found

    def starts_in_turn(self, variant: int, key_s: float, now_s: float) -> dict[str, tuple[float, int]]:
        """For each group the earliest start of a task of `variant` that goes ahead of all with a larger key, and where.

        Walks every queue down to the key, so it is for the few tasks whose key is old.
        """
        found: dict[str, tuple[float, int]] = {}
        for group, members in self.groups.items():
            for place in range(members.start, members.stop):
                lane = self.lanes[place]
                start_s, memory = max(lane.until_s, now_s), lane.memory
                ahead = lane.queue[: bisect_right(lane.queue, key_s, key=lambda planned: planned.key_s)]
                if ahead:
                    memory = memory.copy()
                    start_s += sum(memory.use(planned.variant) + planned.work_s for planned in ahead)
                start_s += memory.load_s(variant)
                if group not in found or start_s < found[group][0]:
                    found[group] = (start_s, place)
        return found

    def backlog_s(self, now_s: float) -> float:
        """Mean predicted seconds until the replicas are free."""
        # Not .mean(): that spends more on asking what it was given than on a thousand numbers.
        waits_s = np.maximum(self.free_s - now_s, 0.0)
        return float(np.add.reduce(waits_s)) / len(waits_s) if len(waits_s) else 0.0

    def forecast_s(self, task: int, now_s: float) -> tuple[float, int]:
        """(completion, tasks ahead) of a waiting task: the plan of its replica run forward up to it."""
        lane = self.lanes[self.place[self.waiting[task]]]
        at_s = max(now_s, lane.until_s)
        for ahead, planned in enumerate(lane.queue):
            at_s += planned.load_s + planned.work_s
            if planned.task == task:
                return at_s, ahead + (lane.running is not None)
        raise KeyError(task)

    # -- events --------------------------------------------------------------------------------------------------

    def enqueue(self, place: int, task: int, variant: int, work_s: float, key_s: float, now_s: float) -> float:
        """Plan a task onto a replica, behind every task with a smaller key; returns its predicted completion."""
        lane = self.lanes[place]
        self._number += 1
        self.waiting[task] = lane.name
        if not lane.queue or key_s >= lane.queue[-1].key_s:
            load_s = lane.plan.use(variant)
            lane.queue.append(Planned(key_s, self._number, task, variant, work_s, load_s))
            lane.pending_s += load_s + work_s
            self.free_s[place] = max(lane.until_s, now_s) + lane.pending_s
            if load_s:
                self._refresh(place)
            return float(self.free_s[place])
        insort(lane.queue, Planned(key_s, self._number, task, variant, work_s, 0.0))
        self._replan(place, now_s)
        return self.forecast_s(task, now_s)[0]

    def start(self, place: int, now_s: float) -> Planned | None:
        """The replica takes the head of its queue, or nothing."""
        lane = self.lanes[place]
        if not lane.queue:
            return None
        planned = lane.queue.pop(0)
        del self.waiting[planned.task]
        lane.pending_s = lane.pending_s - planned.load_s - planned.work_s if lane.queue else 0.0
        load_s = lane.memory.load_s(planned.variant)
        lane.memory.use(planned.variant)
        lane.running = planned
        lane.until_s = now_s + load_s + planned.work_s
        self.free_s[place] = lane.until_s + lane.pending_s
        return planned if load_s == planned.load_s else planned._replace(load_s=load_s)

    def extend(self, place: int, until_s: float) -> None:
        """What runs on the replica ends at `until_s` instead."""
        lane = self.lanes[place]
        lane.until_s = until_s
        self.free_s[place] = until_s + lane.pending_s

    def finish(self, place: int, now_s: float) -> None:
        """The replica is free, earlier or later than predicted, and its queue with it."""
        lane = self.lanes[place]
        lane.running = None
        lane.until_s = now_s
        self.free_s[place] = now_s + lane.pending_s

    def withdraw(self, task: int, now_s: float) -> Planned:
        """Take a waiting task out."""
        place = self.place[self.waiting.pop(task)]
        lane = self.lanes[place]
        found = next(planned for planned in lane.queue if planned.task == task)
        lane.queue.remove(found)
        self._replan(place, now_s)
        return found

    def reestimate(self, work_s: Callable[[Planned, str], float], now_s: float) -> None:
        """Predictions have changed: every waiting task gets its seconds anew, by what it is and its replica's group."""
        for place, lane in enumerate(self.lanes):
            if lane.queue:
                lane.queue = [planned._replace(work_s=work_s(planned, lane.group)) for planned in lane.queue]
                lane.pending_s = math.fsum(planned.load_s + planned.work_s for planned in lane.queue)
                self.free_s[place] = max(lane.until_s, now_s) + lane.pending_s

    def _replan(self, place: int, now_s: float) -> None:
        """Play the queue from the memory as it is: loads may have changed with the order."""
        lane = self.lanes[place]
        lane.plan = lane.memory.copy()
        lane.queue = [planned._replace(load_s=lane.plan.use(planned.variant)) for planned in lane.queue]
        lane.pending_s = math.fsum(planned.load_s + planned.work_s for planned in lane.queue)
        self.free_s[place] = max(lane.until_s, now_s) + lane.pending_s
        self._refresh(place)

    def _refresh(self, place: int) -> None:
        plan = self.lanes[place].plan
        self.loads_s[:, place] = [plan.load_s(variant) for variant in self._variants]
