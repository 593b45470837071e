"""How the live policy weighs things: what a second of capacity costs, what a replica that runs dry takes over."""

from collections.abc import Callable
from dataclasses import dataclass

from cluster.scheduling.timelines import Floats, Planned, Timelines

_VICTIMS, _DEEP = 3, 4  # queues that are looked at for a task to steal, and tasks of each


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """How the policy weighs things. None of it belongs to one workload: all are shares or ratios."""

    price: float = 2.0  # of the time of one usual task, when the wait takes all of the time to a deadline
    price_power: float = 4.0  # how the price rises with the wait
    load_share: float = 0.3  # of a load, what is the task's to pay for: others use the model after it
    # A task is refused for its price only at this share of it: a wait that is soon over makes a fallback a small
    # mistake and a refusal a large one.
    refusal_share: float = 0.3
    delay_weight: float = 0.1  # of the share of the time to a deadline that is used up, against the quality asked for
    risk_weight: float = 0.25  # … and of its fourth power: what is done at the last moment may be late
    confidence: float = 0.2  # standard deviations that a prediction must end before its deadline
    protection: float = 1.5  # … and that it keeps when others are put ahead later
    spread: float = 0.2  # of the logarithm of a task's seconds, where nothing better is known
    optimism: float = 0.9  # the standard deviations by which work that nothing is known of yet is taken for less
    candour: float = 0.5  # … of which so much counts for the variant: in doubt a smaller one rather than a refusal
    load_penalty: float = 0.8  # a second of loading against a second of waiting, when the fleet is busy
    adapter_load_s: float = (
        2.0  # of a LoRA that a task brings, where it is not there: some hundred MiB, and hooking it in
    )
    overdue_growth: float = 0.5  # what is late by a second goes on for so many more
    steal_gain_s: float = 1.0  # a queued task moves to a replica that runs dry for no less
    steal_share: float = 0.1  # … nor for less than this share of its wait


def best_to_steal(
    timelines: Timelines,
    place: int,
    free_s: Floats,
    now_s: float,
    work_s: Callable[[Planned], float],
    load_penalty: float,
    config: PolicyConfig,
) -> tuple[Planned, float] | None:
    """The task that gains most by moving to the replica at `place`, and its seconds there; None if none gains enough.

    Looks at the heads of the longest queues. `free_s` is when each replica is expected to end what it runs; `work_s` is
    what a task would take here, infinite where it may not come; `load_penalty` is what a second of loading counts
    beside a second of waiting.
    """
    best, most_s = None, 0.0
    for victim in timelines.longest(free_s, _VICTIMS):
        done_s = float(free_s[victim])
        for planned in timelines.replicas[victim].queue.head(_DEEP):
            done_s += planned.load_s + planned.work_s
            load_s = timelines.load_now_s(place, planned)
            # A load that the others do not need is a loss for all: it must be worth it.
            room_s = done_s - now_s - load_s - max(0.0, load_s - planned.load_s) * load_penalty
            least_s = max(most_s, config.steal_gain_s, config.steal_share * (done_s - now_s))
            if room_s <= least_s:  # however short it is here
                continue
            seconds = work_s(planned)
            if room_s - seconds > least_s:
                best, most_s = (planned, seconds), room_s - seconds
    return best
