"""When a task that waits is routed again though nothing happened to its replica: later than promised, sooner elsewhere.

Both need a margin, and a task that was moved stays where it is for a while: predictions are not so good that a queue
should run after each of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple

from cluster.timeline import Timelines


@dataclass(frozen=True)
class Patience:
    """What is borne before a queued task is moved. The larger of seconds and share counts."""

    late_s: float = 5.0
    late_share: float = 0.25  # of what was promised
    gain_s: float = 5.0
    gain_share: float = 0.25  # of what is left to wait
    rest_s: float = 60.0  # a moved task is left alone for so long


class Promise(NamedTuple):
    """A queued task's: when it came, and by when nine of ten such tasks are done."""

    task: int
    accepted_s: float
    bound_s: float


class Late(NamedTuple):
    """A task that is predicted to break its promise, and by how much."""

    late_s: float
    task: int
    completion_s: float


def completions(timelines: Timelines, now_s: float) -> Iterator[tuple[int, float]]:
    """(task, predicted completion) of everything that waits behind something, in one pass over the queues."""
    for lane in timelines.lanes:
        at_s = max(now_s, lane.until_s)
        for planned in lane.queue:
            at_s += planned.load_s + planned.work_s
            yield planned.task, at_s


def latest(promises: Iterable[tuple[Promise, float]], most: int, patience: Patience = Patience()) -> list[Late]:
    """Of (promise, predicted completion), no more than so many that are late enough to look elsewhere, worst first."""
    found = []
    for promise, completion_s in promises:
        late_s = completion_s - promise.bound_s
        if late_s > max(patience.late_s, patience.late_share * (promise.bound_s - promise.accepted_s)):
            found.append(Late(late_s, promise.task, completion_s))
    return nlargest(most, found)


def is_worth_moving(completion_s: float, elsewhere_s: float, now_s: float, patience: Patience = Patience()) -> bool:
    """Whether to end at `elsewhere_s` instead gains enough."""
    return completion_s - elsewhere_s >= max(patience.gain_s, patience.gain_share * (completion_s - now_s))
