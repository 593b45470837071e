"""What waits, by variant: how many tasks, how much work, since when."""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.dispatch import Dispatcher
from serve.waiting import Waiting


@dataclass
class Demand:
    """Of one variant. What waits for a replica that is still to be started counts as well."""

    tasks: int = 0
    work_s: float = 0.0
    oldest_s: float = 0.0


def demands(policy: Dispatcher, waiting: Waiting, now: float) -> Mapping[str, Demand]:
    """Every served variant's."""
    found = {name: Demand() for name in policy.names}
    for lane in policy.timelines.lanes:
        # What runs on a real replica waits no more; what "runs" on one that is not there yet does.
        for planned in (*([lane.running] if lane.running else []), *lane.queue):
            demand, task = found[policy.names[planned.variant]], waiting.get(planned.task)
            if task is not None:
                demand.tasks += 1
                demand.work_s += planned.work_s
                demand.oldest_s = max(demand.oldest_s, now - task.created_at)
    return found
