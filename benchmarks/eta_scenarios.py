"""What promises are tried by beside a steady load: a variant that suddenly takes twice as long, a crowd, bursts.

Each scenario changes the `benchmarks.workload` of a seed, runs it, and judges the completions that it is about. The
oracle's figure beside ours is what remains for somebody who knew of the change from the task's arrival on: tasks that
were on their way before anybody could know are late for him too where they waited behind others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.eta_oracle import lateness
from benchmarks.workload import fleet, workload
from cluster.simulation.engine import SimulationConfig, run, with_deadlines
from cluster.simulation.report import judge_etas, load_quartiles
from cluster.simulation.trace import Trace

AIM = 0.9
AFTER, WITHIN, COUNTED = 200, 600, 0.85
QUARTILE = 0.87
_SLOWER = 2.0
_CROWD_TIMES, _CROWD_S, _CROWD_FROM_S = 10.0, 120.0, 1200.0
_BURST_S, _BURST_SIGMA = 20.0, 1.0

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Changed:
    """A workload, how much longer each task takes than usual, and the span that the scenario is about."""

    trace: Trace
    slower: Floats
    from_s: float = 0.0
    to_s: float = np.inf
    variant: int = -1


@dataclass(frozen=True)
class Judged:
    """Shares of bounds that held, ours and the oracle's, of one seed."""

    goal: float
    ours: tuple[float, ...]
    oracle: tuple[float, ...]
    coverage: float
    bound_over_estimate: float
    tasks: int
    on_their_way: float


def sudden(trace: Trace, seed: int) -> Changed:  # noqa: ARG001
    """From halfway on the most asked variant takes twice as long."""
    variant, at_s = int(np.bincount(trace.variant).argmax()), trace.span_s / 2
    slower = np.where((trace.variant == variant) & (trace.arrival_s >= at_s), _SLOWER, 1.0)
    changed = Trace(**{**trace.__dict__, "exec_s": trace.exec_s * slower})
    return Changed(changed, slower, at_s, variant=variant)


def crowd(trace: Trace, seed: int) -> Changed:  # noqa: ARG001
    """For two minutes ten times as many come."""
    came_s, end_s = trace.arrival_s.copy(), _CROWD_FROM_S + _CROWD_S * _CROWD_TIMES
    inside = (came_s >= _CROWD_FROM_S) & (came_s < end_s)
    came_s[inside] = _CROWD_FROM_S + (came_s[inside] - _CROWD_FROM_S) / _CROWD_TIMES
    came_s[came_s >= end_s] -= _CROWD_S * (_CROWD_TIMES - 1)
    changed = Trace(**{**trace.__dict__, "arrival_s": came_s})
    return Changed(changed, np.ones(len(trace)), _CROWD_FROM_S, _CROWD_FROM_S + _CROWD_S)


def bursty(trace: Trace, seed: int) -> Changed:
    """Every 20 seconds the rate is another one, lognormal with sigma 1."""
    random = np.random.default_rng((seed, 31))
    pieces = int(trace.span_s // _BURST_S) + 2
    lengths_s = np.exp(random.normal(0, _BURST_SIGMA, pieces))
    edges_s = np.concatenate([[0.0], np.cumsum(lengths_s)]) * (pieces * _BURST_S / lengths_s.sum())
    came_s = np.interp(trace.arrival_s, np.arange(pieces + 1) * _BURST_S, edges_s)
    return Changed(Trace(**{**trace.__dict__, "arrival_s": came_s}), np.ones(len(trace)))


SCENARIOS: dict[str, tuple[Callable[[Trace, int], Changed], tuple[float, ...]]] = {
    "sudden": (sudden, (1.0, 2.5)),
    "crowd": (crowd, (0.5, 1.0)),
    "bursty": (bursty, (3.5,)),
}
"""With the speeds at which they are run; a crowd's own spans are not sped up."""


def tried(path: Path | None, name: str, noise: float, seed: int, speed: float, most: float) -> Judged:
    """One run of a scenario. `most` of all bounds of the oracle hold."""
    change, _ = SCENARIOS[name]
    usual = workload(path, seed)
    # A crowd lasts two minutes at any speed.
    changed = change(usual.sped_up(speed) if name == "crowd" else usual, seed)
    run_speed = 1.0 if name == "crowd" else speed
    trace, config = changed.trace, SimulationConfig(changed.trace, fleet(), service_noise=noise)
    outcome = run(trace, fleet(), config, seed, run_speed)
    ran = with_deadlines(trace.sped_up(run_speed), fleet())
    late = lateness(ran, fleet(), outcome, noise, changed.slower)
    order = np.array(outcome.completions)
    order = order[np.isfinite(np.array(outcome.p90_s)[order])]
    took_s = (np.array(outcome.done_s) - ran.arrival_s)[order]
    held = took_s <= np.array(outcome.p90_s)[order]
    known = late[order] <= float(np.quantile(late[order], most))
    about, goal = _about(name, changed, ran.arrival_s[order], ran.variant[order], run_speed)
    if name == "bursty":
        quartile = load_quartiles(np.array(outcome.raw_s)[order], np.array(outcome.own_s)[order])
        about = [quartile == q for q in range(4)]
    report = judge_etas(ran, outcome)
    return Judged(
        goal,
        tuple(float(held[part].mean()) for part in about),
        tuple(float(known[part].mean()) for part in about),
        report.coverage,
        report.bound_over_estimate,
        len(order),
        float(took_s.sum() / np.nanmax(outcome.done_s)),
    )


def _about(
    name: str, changed: Changed, came_s: Floats, variant: npt.NDArray[np.int64], speed: float
) -> tuple[list[Bools], float]:
    """The completions that a scenario is about, in their order, and the share of bounds that should hold of them."""
    places = np.arange(len(came_s))
    if name == "sudden":
        first = int(np.argmax((came_s >= changed.from_s / speed) & (variant == changed.variant)))
        return [(places >= first + AFTER) & (places < first + WITHIN)], COUNTED
    inside = (came_s >= changed.from_s) & (came_s < changed.to_s)
    return [inside], COUNTED if name == "crowd" else QUARTILE
