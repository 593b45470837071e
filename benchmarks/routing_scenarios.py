"""Scenes that shares over a whole trace do not show: a tenant that floods, equal tenants, a pool that dies."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.routing_oracle import oracle
from benchmarks.workload import fleet, speed_at, workload
from cluster.simulation.engine import SimulationConfig, run
from cluster.simulation.outages import Failure
from cluster.simulation.policies import PolicyFactory
from cluster.simulation.punctuality import Punctuality
from cluster.simulation.report import Outcome, fates
from cluster.simulation.trace import Trace

TENANTS = 10
CALM_LOAD, FLOOD_LOAD, FLOOD_PRIORITY = 0.4, 2.0, -5
EQUAL_LOAD = 0.85
DYING_LOAD = 0.6
"""Over the whole fleet, of which the pool that dies is 38 %."""
_ON_TIME = 0.9
_WINDOW_S, _AFTER_S = 10.0, 300.0


def in_tenants(trace: Trace, seed: int) -> Trace:
    """The same tasks, each of one of ten equal tenants."""
    tenant = np.random.default_rng((seed, 31)).integers(0, TENANTS, len(trace))
    return replace(trace, tenant=tenant, tenants=tuple(f"t{number}" for number in range(TENANTS)))


def flooded(trace: Trace, seed: int) -> Trace:
    """Tenants at `CALM_LOAD`, and of the last one beside it more than the fleet can do, without deadlines and at a low
    priority: tasks of the same kinds, in a Poisson process from the first arrival to the last."""
    random = np.random.default_rng((seed, 37))
    calm = in_tenants(trace.sped_up(speed_at(CALM_LOAD, trace, fleet())), seed)
    copied = random.integers(0, len(calm), round(len(calm) * FLOOD_LOAD / CALM_LOAD))
    arrival_s = np.concatenate([calm.arrival_s, calm.arrival_s[0] + calm.span_s * random.random(len(copied))])
    order = np.argsort(arrival_s, kind="stable")
    rows = np.concatenate([np.arange(len(calm)), copied])[order]
    is_flood = order >= len(calm)
    return replace(
        calm,
        arrival_s=arrival_s[order],
        variant=calm.variant[rows],
        exec_s=calm.exec_s[rows],
        allowance_s=np.where(is_flood, np.inf, calm.allowance_s[rows]),
        priority=np.where(is_flood, FLOOD_PRIORITY, 0),
        tenant=np.where(is_flood, TENANTS - 1, calm.tenant[rows]),
        features={name: values[rows] for name, values in calm.features.items()},
        categories={name: codes[rows] for name, codes in calm.categories.items()},
    )


def flood(path: Path | None, seed: int, tasks: int | None, policy: str) -> dict[str, Any]:
    """What becomes of the nine tenants that do not flood."""
    trace = flooded(workload(path, seed, tasks=tasks), seed)
    found = fates(trace, fleet(), run(trace, fleet(), SimulationConfig(trace, fleet(), policy=policy), 0))
    each = [found.of(trace.tenant == number) for number in range(TENANTS - 1)]
    return {
        "policy": policy,
        "seed": seed,
        "tasks": len(trace),
        "others": asdict(found.of(trace.tenant < TENANTS - 1)),
        "worst_other_on_time": min(one.on_time_share for one in each),
        "flooding": asdict(found.of(trace.tenant == TENANTS - 1)),
    }


def equal_tenants(path: Path | None, seed: int, tasks: int | None, policy: str) -> dict[str, Any]:
    """Nobody floods: the late among the admitted, of all tenants and of the worst."""
    trace = in_tenants(workload(path, seed, tasks=tasks), seed)
    ran = trace.sped_up(speed_at(EQUAL_LOAD, trace, fleet()))
    found = fates(ran, fleet(), run(ran, fleet(), SimulationConfig(ran, fleet(), policy=policy), 0))
    each: list[Punctuality] = [found.of(ran.tenant == number) for number in range(TENANTS)]
    return {
        "policy": policy,
        "seed": seed,
        "all": asdict(found.of()),
        "worst_admitted_late": max(one.admitted_late_share for one in each),
        "worst_on_time": min(one.on_time_share for one in each),
        "best_on_time": max(one.on_time_share for one in each),
    }


@dataclass(frozen=True)
class Recovery:
    """After a pool's death, in seconds after it."""

    late_until_s: float  # when the last ten seconds begin and end whose arrivals are not 90 % on time
    drained_s: float  # when the last task that was there has started
    interrupted: int
    interrupted_late: int
    lost: int
    on_time_share: float
    quality_goodput: float

    @property
    def recovered_s(self) -> float:
        return max(self.late_until_s, self.drained_s)


def recovery(trace: Trace, outcome: Outcome, at_s: float) -> Recovery:
    """`trace` is the one that was run."""
    arrival_s, start_s, done_s = trace.arrival_s, np.array(outcome.start_s), np.array(outcome.done_s)
    found = fates(trace, fleet(), outcome)
    late, whole = ~found.on_time, found.of()
    bad = 0.0
    for start in np.arange(at_s, trace.span_s, 2):
        window = late[(arrival_s >= start) & (arrival_s < start + _WINDOW_S)]
        if len(window) >= _WINDOW_S and window.mean() > 1 - _ON_TIME:
            bad = float(start + _WINDOW_S - at_s)
    there = (arrival_s < at_s) & (start_s >= at_s)
    return Recovery(
        late_until_s=bad,
        drained_s=float(start_s[there].max() - at_s) if there.any() else 0.0,
        interrupted=len(outcome.interrupted),
        interrupted_late=int(late[outcome.interrupted].sum()),
        lost=int((~np.isfinite(done_s) & ~found.refused).sum()),
        on_time_share=whole.on_time_share,
        quality_goodput=whole.quality_goodput,
    )


def pool_dies(path: Path | None, seed: int, tasks: int | None, policy: str) -> dict[str, Any]:
    """A quarter of the way in, the largest pool dies for good; `policy` may be `oracle`.

    `named_load` is what the five minutes after it ask for, in the variants that they name, over what the pools that
    are left can do, loads not counted: above one, no policy is on time without falling back.
    """
    trace = workload(path, seed, tasks=tasks)
    ran = trace.sped_up(speed_at(DYING_LOAD, trace, fleet()))
    at_s = ran.span_s / 4
    victim = max(fleet().pools, key=lambda pool: pool.count * pool.speed).name
    failure = Failure(victim, at_s)
    decides: str | PolicyFactory = oracle(ran, failure) if policy == "oracle" else policy
    outcome = run(ran, fleet(), SimulationConfig(ran, fleet(), policy=decides, failures=(failure,)), seed=0)
    after = (ran.arrival_s >= at_s) & (ran.arrival_s < at_s + _AFTER_S)
    left = sum(pool.count * pool.speed for pool in fleet().pools if pool.name != victim)
    found = recovery(ran, outcome, at_s)
    return {
        "policy": policy,
        "seed": seed,
        "pool": victim,
        "at_s": at_s,
        "named_load": float(ran.exec_s[after].sum()) / (left * min(_AFTER_S, ran.span_s - at_s)),
        "recovered_s": found.recovered_s,
        **asdict(found),
    }
