"""When a task that waits is routed again though nothing happened to its replica.

One with a deadline that it is going to miss goes where it keeps it. Any other goes elsewhere when it is later than
promised and sooner there. Both of that need a margin, and a task that was moved stays where it is for a while:
predictions are not so good that a queue should run after each of them.
"""

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from typing import NamedTuple

from cluster.scheduling.job import Job


@dataclass(frozen=True)
class RebalanceThresholds:
    """What is borne before a queued task is moved. The larger of seconds and share counts."""

    late_s: float = 5.0
    late_share: float = 0.25  # of what was promised
    gain_s: float = 5.0
    gain_share: float = 0.25  # of what is left to wait
    rest_s: float = 60.0  # a moved task is left alone for so long …
    retry_s: float = 10.0  # … and one that nothing is better for


class EtaBound(NamedTuple):
    """A queued task's: when it came, and by when nine of ten such tasks are done."""

    task: int
    accepted_s: float
    bound_s: float


class Late(NamedTuple):
    """A task that is predicted to break its promise, and by how much."""

    late_s: float
    task: int
    completion_s: float


def latest(
    promises: Iterable[tuple[EtaBound, float]], most: int, thresholds: RebalanceThresholds = RebalanceThresholds()
) -> list[Late]:
    """Of (promise, predicted completion), no more than so many that are late enough to look elsewhere, worst first."""
    found = []
    for promise, completion_s in promises:
        late_s = completion_s - promise.bound_s
        if late_s > max(thresholds.late_s, thresholds.late_share * (promise.bound_s - promise.accepted_s)):
            found.append(Late(late_s, promise.task, completion_s))
    return nlargest(most, found)


def missing(waiting: Iterable[tuple[int, float, float]], most: int) -> list[int]:
    """Of (task, deadline, predicted completion), no more than so many that miss their deadline: those that begin first,
    since what they give up is gained by those behind them."""
    late = ((completion_s, task) for task, deadline_s, completion_s in waiting if completion_s > deadline_s)
    return [task for _, task in nsmallest(most, late)]


def to_move(
    completions: Iterable[tuple[int, float]],
    jobs: Mapping[int, Job],
    resting: Container[int],
    most: int,
    thresholds: RebalanceThresholds = RebalanceThresholds(),
) -> list[int]:
    """Of (task, predicted completion) of everything that waits, what is worth routing again, no more than `most` of
    those with deadlines and of those without. `resting` are left alone; who can go nowhere else is not asked."""
    deadlines: list[tuple[int, float, float]] = []
    promises: list[tuple[EtaBound, float]] = []
    for task, completion_s in completions:
        job = jobs.get(task)
        if job is None or len(job.calls) < 2 or task in resting:
            continue
        if (deadline_s := job.request.deadline_s) < math.inf:
            deadlines.append((task, deadline_s, completion_s))
        elif job.eta is not None:
            promises.append((EtaBound(task, job.accepted_at, job.bound_at), completion_s))
    return [*missing(deadlines, most), *(bound.task for bound in latest(promises, most, thresholds))]


def is_worth_moving(
    completion_s: float,
    elsewhere_s: float,
    now_s: float,
    thresholds: RebalanceThresholds = RebalanceThresholds(),
    *,
    deadline_s: float = math.inf,
) -> bool:
    """Whether to end at `elsewhere_s` instead gains enough; where there is a deadline, whether that keeps it."""
    if deadline_s < math.inf:
        return elsewhere_s <= deadline_s < completion_s
    return completion_s - elsewhere_s >= max(thresholds.gain_s, thresholds.gain_share * (completion_s - now_s))
