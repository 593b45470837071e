"""How the live policy weighs things: who gets the last room before a deadline, what a replica that runs dry takes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from cluster.timeline import Planned, Timelines

_VICTIMS, _DEEP = 3, 4  # queues that are looked at for a task to steal, and tasks of each


@dataclass(frozen=True, slots=True)
class Habits:
    """How the policy weighs things. None of it belongs to one workload: all are shares or ratios."""

    soft_share: float = 0.5  # of the time to a deadline: beyond it fallbacks are taken
    dear_load: float = 1.0  # a second of loading against a second of waiting, when the fleet is busy
    spare_for_short: float = 0.5  # how early long tasks are refused to keep the last room for short ones; 0 never
    steal_gain_s: float = 1.0  # a queued task moves to a replica that runs dry for no less
    steal_share: float = 0.1  # … nor for less than this share of its wait


def leaves_room(pressure: float, work_s: float, usual_s: float, spare: float) -> bool:
    """Whether a task may take the room before its deadline. `pressure` is 0 at the soft instant and 1 at the deadline.

    A usual task may take all of it, one that is twice as long half of it, and so on (at `spare` 1): when not all can
    be on time, many short ones are kept rather than few long ones.
    """
    if spare <= 0 or usual_s <= 0:
        return True
    return pressure <= usual_s / (work_s * spare)


def best_to_steal(
    timelines: Timelines,
    place: int,
    now_s: float,
    work_s: Callable[[Planned], float],
    dear: float,
    habits: Habits,
) -> tuple[Planned, float] | None:
    """The task that gains most by moving to the replica at `place`, and its seconds there; None if none gains enough.

    Looks at the heads of the longest queues. `work_s` is what a task would take here, infinite where it may not come;
    `dear` is what a second of loading counts beside a second of waiting.
    """
    lane = timelines.lanes[place]
    best, most_s = None, 0.0
    for victim in timelines.free_s.argsort()[: -_VICTIMS - 1 : -1].tolist():
        other = timelines.lanes[victim]
        done_s = max(now_s, other.until_s)
        for planned in other.queue[:_DEEP]:
            done_s += planned.load_s + planned.work_s
            load_s = lane.memory.load_s(planned.variant)
            if load_s == math.inf:
                continue
            seconds = work_s(planned)
            gain_s = done_s - (now_s + load_s + seconds)
            # A load that the others do not need is a loss for all: it must be worth it.
            gain_s -= max(0.0, load_s - planned.load_s) * dear
            if gain_s > max(most_s, habits.steal_gain_s, habits.steal_share * (done_s - now_s)):
                best, most_s = (planned, seconds), gain_s
    return best
