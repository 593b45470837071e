"""What waits for each variant, and how many workers that takes."""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.scheduling.events import Resize
from cluster.scheduling.scheduler import Scheduler
from cluster.scheduling.sizing import SizingOptions, VariantDemand, size
from cluster.scheduling.workers import VariantState

_BUSY_S = 0.1


@dataclass(frozen=True)
class Demand:
    """What waits for a variant, workers that are still to be started included."""

    tasks: int = 0
    work_s: float = 0.0
    oldest_s: float = 0.0


def demands(scheduler: Scheduler, now: float) -> Mapping[str, Demand]:
    """By variant. Changes nothing."""
    found = {name: [0, 0.0, 0.0] for name in scheduler.variants}
    for seq, variant, work_s in scheduler.planner.planned():
        if (job := scheduler.job(seq)) is not None:
            totals = found[variant]
            totals[0] += 1
            totals[1] += work_s
            totals[2] = max(totals[2], now - job.accepted_at)
    return {name: Demand(int(tasks), work_s, oldest_s) for name, (tasks, work_s, oldest_s) in found.items()}


def resize(scheduler: Scheduler, gpus: float, cpus: float, now: float) -> Resize:
    """The workers by variant that the present demand asks for, on a cluster of so many GPUs and CPUs. Changes
    nothing."""
    waits = demands(scheduler, now)
    options = SizingOptions(idle_s=scheduler.config.idle_s)
    sizes: dict[str, int] = {}
    for on_gpu, units in ((True, gpus), (False, cpus)):
        states = [s for s in scheduler.variants.values() if (s.served.variant.needs.gpus > 0) is on_gpu]
        asked = [_asked(scheduler, state, waits, now, on_gpu=on_gpu) for state in states]
        sizes |= size(asked, units, options)
    return Resize(sizes)


def _asked(
    scheduler: Scheduler, state: VariantState, waits: Mapping[str, Demand], now: float, *, on_gpu: bool
) -> VariantDemand:
    served, name = state.served, state.served.variant.name
    lease_s = scheduler.config.attempts.lease_s
    mine = [w for w in scheduler.workers.values() if w.variant == name and now - w.heard_at <= lease_s]
    # What runs is work too: a busy worker is not given back.
    backlog_s = waits[name].work_s + _BUSY_S * sum(map(scheduler.is_busy, mine))
    least, most = served.minimum, served.maximum
    if state.is_down(now):
        least, most = 0, max(1, len(mine))
    return VariantDemand(
        name,
        backlog_s=backlog_s,
        arriving=state.arriving(now),
        load_s=state.start_s,
        replicas=max(state.target, len(mine)),
        idle_s=0.0 if backlog_s else max(0.0, now - state.worked_at),
        waited_s=max(0.0, waits[name].oldest_s),
        gpus=served.variant.needs.gpus if on_gpu else served.variant.needs.cpus,
        minimum=least,
        maximum=max(most, least),
    )
