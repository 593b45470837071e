"""The bounds of somebody who knows everything but the luck to come: what windows of completions they would leave.

For each completed task the oracle knows what could be known at its admission, and much that could not: on which machine
it and everything before it would run, in which order, what would be loaded, when the machine would idle, the true
median of each service time and the true law of its scatter. It does not know the scatter of what had not completed.
That gives the exact distribution of the task's completion (by drawing), and the bound is its quantile.

It is the only member of its class: bounds that give every task the same chance to be late, given all that can be known.
Tasks that wait on one machine share the seconds ahead of them, so they are late together, and so many misses fall into
one window of completions whatever the bound is made from. The level is chosen with hindsight, so that as many hold over
the whole run as the goal lets hold; windows that are still below theirs are no fault of a prediction. Outside the class
are bounds that spread misses on purpose, by promising one task 99 % and the next 50 %. They would keep windows even,
and be worth less to everybody.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from benchmarks.workload import SCATTER, usual_s
from cluster.simulation.fleet import Fleet
from cluster.simulation.report import Outcome
from cluster.simulation.trace import Trace

_DRAWS = 400
_IDLE_S = 1e-3  # a pause between two tasks that is longer than a decision was one for lack of work
_SURE = 1e-12


@dataclass(frozen=True)
class Oracle:
    """What the oracle's bounds would have held."""

    coverage: float
    worst_window: float
    needed_coverage: float  # over the whole run, for no window to fall below the goal


def oracle(
    trace: Trace, fleet: Fleet, outcome: Outcome, noise: float, *, most: float, least: float, window: int = 1000
) -> Oracle:
    """Of a run of a `workload` with service noise: no more than `most` of all bounds may hold, and `least` is asked of
    each window of completions."""
    order = np.array(outcome.completions)
    late = lateness(trace, fleet, outcome, noise)[order]
    starts = range(0, len(late) - window + 1, window)
    # A window keeps `least` at a level from its own quantile on.
    needed = max((float(np.quantile(late[at : at + window], least)) for at in starts), default=least)
    held = late <= float(np.quantile(late, most))
    worst = min((float(held[at : at + window].mean()) for at in starts), default=float(held.mean()))
    return Oracle(float(held.mean()), worst, float((late <= needed).mean()))


def lateness(
    trace: Trace,
    fleet: Fleet,
    outcome: Outcome,
    noise: float,
    slower: npt.NDArray[np.float64] | float = 1.0,
) -> npt.NDArray[np.float64]:
    """For each task the chance, as it was at its admission, that it would be done before it was; nan without an end.
    The bound at a level holds when this is no more than the level. `trace` is the one that was run, sped up; its tasks
    take so many times what their `workload` says."""
    random = np.random.default_rng(0)
    sigma = float(np.hypot(SCATTER, noise))
    speed = np.concatenate([np.full(pool.count, pool.speed) for pool in fleet.pools])
    factor = np.array([fleet.variants[name].time_factor for name in trace.names])
    start_s, done_s, load_s = (np.array(values) for values in (outcome.start_s, outcome.done_s, outcome.load_s))
    machine, variant = np.array(outcome.machine), np.array(outcome.variant)
    median_s = usual_s(trace) * slower * factor[variant] / factor[trace.variant] / speed[machine]
    found = np.full(len(trace), np.nan)
    for number in range(fleet.count):
        ran = np.flatnonzero((machine == number) & np.isfinite(done_s))
        ran = ran[np.argsort(start_s[ran])]
        begun_s, ended_s, usual, loads_s = start_s[ran], done_s[ran], median_s[ran], load_s[ran]
        paused = np.append(True, begun_s[1:] - ended_s[:-1] > _IDLE_S)
        not_before_s = np.where(paused, begun_s, -np.inf)
        luck = random.normal(size=(len(ran), _DRAWS))
        work_s = usual[:, None] * np.exp(sigma * luck)
        for place, task in enumerate(ran):
            now_s = trace.arrival_s[task]
            first = min(int(np.searchsorted(ended_s, now_s, side="right")), place)
            spent_s = now_s - begun_s[first] - loads_s[first]
            at_s = begun_s[first] + loads_s[first] + work_s[first]
            if spent_s > 0:  # it is running, and has not ended yet
                gone = norm.cdf(np.log(spent_s / usual[first]) / sigma)
                chance = np.clip(gone + (1 - gone) * norm.cdf(luck[first]), _SURE, 1 - _SURE)
                at_s = begun_s[first] + loads_s[first] + usual[first] * np.exp(sigma * norm.ppf(chance))
            for ahead in range(first + 1, place + 1):
                at_s = np.maximum(at_s, not_before_s[ahead]) + loads_s[ahead] + work_s[ahead]
            found[task] = np.mean(at_s < ended_s[place])
    return found
