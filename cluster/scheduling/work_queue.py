"""The tasks that wait on one replica, in the order of their keys, with running totals of work and of slack.

A sorted list cut into blocks of a hundred or two, each with its sum: insertion, removal by key and "how much work is
ahead of this key" read one block and one number of each other. "Whose promise would so much more work break" is mostly
answered by a bound on the slack of all, which is worked out again when it does not suffice.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator
from itertools import accumulate
from typing import NamedTuple

_BLOCK = 128
_SCANNED = 4  # blocks that are read task by task for one answer


class Planned(NamedTuple):
    """A task that waits on a replica. `key_s` orders the queue: a virtual instant (see fairness)."""

    key_s: float
    number: int  # of equal keys the lower one is first
    task: int
    variant: int
    work_s: float
    load_s: float
    deadline_s: float = math.inf
    due_s: float = math.inf  # the latest predicted completion that makes the deadline likely enough
    tenant: Hashable = ""
    brings: tuple[str, ...] = ()  # adapters
    bring_s: float = 0.0  # of load_s, what is for them

    @property
    def total_s(self) -> float:
        return self.work_s + self.load_s


Key = tuple[float, float]
"""(key, number) of a task."""


class _Block:
    __slots__ = ("seconds", "slack_s", "tasks")

    def __init__(self, tasks: list[Planned]) -> None:
        self.tasks = tasks
        self.seconds = [task.work_s + task.load_s for task in tasks]  # beside them: summed at every question
        self.slack_s = _least_slack_s(tasks)  # no more than the least of due − work up to it within the block


class WorkQueue:
    """Planned tasks in order. Not for concurrent use."""

    __slots__ = ("_blocks", "_lasts", "_size", "_slack_s", "_totals", "promised")

    def __init__(self, tasks: list[Planned] | None = None) -> None:
        """`tasks` must be in order."""
        self._blocks: list[_Block] = []
        self._lasts: list[Key] = []
        self._totals: list[float] = []
        self.promised = self._size = 0
        self._fill(tasks or [])

    def _fill(self, tasks: list[Planned]) -> None:
        parts = [tasks[start : start + _BLOCK] for start in range(0, len(tasks), _BLOCK)]
        self._blocks = [_Block(part) for part in parts]
        self._lasts = [part[-1][:2] for part in parts]
        self._totals = [math.fsum(block.seconds) for block in self._blocks]
        self._size = len(tasks)
        self.promised = sum(task.due_s < math.inf for task in tasks)  # how many have a due instant
        self._slack_s = _least_slack_s(tasks)  # no more than the least of due − work up to it, of all

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Planned]:
        for block in self._blocks:
            yield from block.tasks

    @property
    def first(self) -> Planned | None:
        return self._blocks[0].tasks[0] if self._blocks else None

    @property
    def last_key(self) -> Key:
        """The largest key; below all when nothing waits."""
        return self._lasts[-1] if self._lasts else (-math.inf, 0)

    @property
    def total_s(self) -> float:
        return sum(self._totals)

    def head(self, count: int) -> list[Planned]:
        """The first ones."""
        found: list[Planned] = []
        for block in self._blocks:
            found += block.tasks[: count - len(found)]
            if len(found) >= count:
                break
        return found

    # -- changes -------------------------------------------------------------------------------------------------

    def add(self, task: Planned) -> None:
        """Put a task where its key belongs. Its (key, number) must be new."""
        self._size += 1
        self.promised += task.due_s < math.inf
        total_s = task.work_s + task.load_s
        if not self._blocks:
            self._blocks, self._lasts, self._totals = [_Block([task])], [task[:2]], [total_s]
            self._slack_s = task.due_s - total_s
            return
        at = min(bisect_left(self._lasts, task[:2]), len(self._blocks) - 1)
        block = self._blocks[at]
        tasks = block.tasks
        self._totals[at] += total_s
        if task[:2] > self._lasts[at]:
            tasks.append(task)
            block.seconds.append(total_s)
            self._lasts[at] = task[:2]
        else:
            place = bisect_left(tasks, task)
            tasks.insert(place, task)
            block.seconds.insert(place, total_s)
            block.slack_s -= total_s
            self._slack_s -= total_s
        if task.due_s < math.inf:
            block.slack_s = min(block.slack_s, task.due_s - self._totals[at])
            self._slack_s = min(self._slack_s, task.due_s - sum(self._totals))
        if len(tasks) > 2 * _BLOCK:
            halves = tasks[:_BLOCK], tasks[_BLOCK:]
            self._blocks[at : at + 1] = [_Block(half) for half in halves]
            self._lasts[at : at + 1] = [half[-1][:2] for half in halves]
            self._totals[at : at + 1] = [math.fsum(each.seconds) for each in self._blocks[at : at + 2]]

    def remove(self, key: Key) -> Planned:
        """Take the task with this key out. KeyError when there is none."""
        at, place = self._find(key)
        block = self._blocks[at]
        task = block.tasks.pop(place)
        del block.seconds[place]
        self._size -= 1
        self.promised -= task.due_s < math.inf
        if not at and not place:  # all others are so much earlier
            block.slack_s += task.total_s
            self._slack_s += task.total_s
        if not block.tasks:
            del self._blocks[at], self._lasts[at], self._totals[at]
            return task
        self._totals[at] -= task.total_s
        if place == len(block.tasks):
            self._lasts[at] = block.tasks[-1][:2]
        return task

    def get(self, key: Key) -> Planned:
        """The task with this key. KeyError when there is none."""
        at, place = self._find(key)
        return self._blocks[at].tasks[place]

    def reload(self, key: Key, load_s: float) -> float:
        """The load before a task is another one; returns by how much."""
        at, place = self._find(key)
        block = self._blocks[at]
        task = block.tasks[place]
        block.tasks[place] = task._replace(load_s=load_s)
        block.seconds[place] = task.work_s + load_s
        more_s = load_s - task.load_s
        self._totals[at] += more_s
        block.slack_s -= max(0.0, more_s)
        self._slack_s -= max(0.0, more_s)
        return more_s

    def rework(self, change: Callable[[Planned], Planned]) -> None:
        """Every task with other seconds. Keys must stay."""
        self._fill([change(task) for task in self])

    def _find(self, key: Key) -> tuple[int, int]:
        at = bisect_left(self._lasts, key)
        if at < len(self._blocks):
            tasks = self._blocks[at].tasks
            place = 0 if tasks[0][:2] == key else bisect_left(tasks, key)
            if place < len(tasks) and tasks[place][:2] == key:
                return at, place
        raise KeyError(key)

    # -- questions -----------------------------------------------------------------------------------------------

    def around(self, key: Key, before: int, after: int) -> tuple[list[Planned], list[Planned]]:
        """The last tasks with smaller keys, and the first of the others."""
        at = bisect_left(self._lasts, key)
        if at == len(self._blocks):
            tail = self._blocks[-1].tasks[-before:] if self._blocks and before else []
            return tail, []
        tasks = self._blocks[at].tasks
        place = bisect_left(tasks, key)
        ahead = tasks[max(0, place - before) : place]
        if len(ahead) < before and at:
            ahead = self._blocks[at - 1].tasks[len(ahead) - before :] + ahead
        behind = tasks[place : place + after]
        if len(behind) < after and at + 1 < len(self._blocks):
            behind = behind + self._blocks[at + 1].tasks[: after - len(behind)]
        return ahead, behind

    def ahead_s(self, key: Key) -> float:
        """Work with smaller keys."""
        at = bisect_left(self._lasts, key)
        seconds = sum(self._totals[:at])
        if at < len(self._blocks):
            block = self._blocks[at]
            seconds += sum(block.seconds[: bisect_left(block.tasks, key)])
        return seconds

    def rank(self, key: Key) -> int:
        """Tasks with smaller keys."""
        at = bisect_left(self._lasts, key)
        count = sum(len(block.tasks) for block in self._blocks[:at])
        return count + (bisect_left(self._blocks[at].tasks, key) if at < len(self._blocks) else 0)

    def unbroken(self, key: Key, more_s: float, from_s: float) -> Key:
        """`key`, or the key of the last task behind it that `more_s` of work put in there would make too late.

        `from_s` is when the first task begins. Tasks that are beyond hope are not spared; of very long queues that are
        full of those, some are taken for hopeful.
        """
        if not self.promised or self._slack_s - from_s >= more_s:
            return key
        starts_s = list(accumulate(self._totals, initial=from_s))
        scanned, found, least_s = 0, key, math.inf
        for at in range(len(self._blocks) - 1, -1, -1):
            block = self._blocks[at]
            if block.slack_s - starts_s[at] < more_s:
                block.slack_s = _least_slack_s(block.tasks)
            least_s = min(least_s, block.slack_s - starts_s[at])
            if found != key or key > self._lasts[at] or block.slack_s - starts_s[at] >= more_s:
                continue
            scanned += 1
            found = self._lasts[at] if scanned > _SCANNED else _last_broken(block.tasks, key, more_s, starts_s[at])
        self._slack_s = least_s + from_s
        return found


def _last_broken(tasks: list[Planned], key: Key, more_s: float, done_s: float) -> Key:
    """Of tasks that begin at `done_s`."""
    found = key
    for task in tasks:
        done_s += task.work_s + task.load_s
        if task.due_s - done_s < more_s and done_s <= task.deadline_s and task[:2] >= key:
            found = task[:2]
    return found


def _least_slack_s(tasks: list[Planned]) -> float:
    least = math.inf
    done_s = 0.0
    for task in tasks:
        done_s += task.work_s + task.load_s
        if task.due_s - done_s < least:
            least = task.due_s - done_s
    return least


def behind(key_s: float) -> Key:
    """The key of what goes behind all tasks with `key_s`."""
    return key_s, math.inf
