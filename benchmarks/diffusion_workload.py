"""A synthetic workload like that of an image-generation service: many checkpoints, bursts, tenants with habits.

Nothing of it is measured; it is made to be unlike `benchmarks.workload` in what a policy could lean on. 75 checkpoints
of Zipf popularity and eight bases; 40 tenants of unequal size that each have a few configurations (checkpoint, steps,
side) and now and then repeat a request, so that three of four consecutive requests change model; arrivals by a
Markov-modulated Poisson process of three states. A checkpoint falls back on itself with fewer steps, which shares its
weights, and on the distilled model of its base; the trace asks for neither. A task is on time within one cold load and
a little more, so that a late first choice cannot be put right by loading.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from benchmarks.workload import fleet as video_fleet
from cluster.simulation.fleet import Fleet, FleetPool, FleetVariant
from cluster.simulation.trace import Trace, trace_from

CHECKPOINTS, BASES, TENANTS, TASKS = 75, 8, 40, 18_000
ZIPF = 0.9
REPEATS = 0.18
"""How often a request is the last one again: same tenant, same configuration."""
STATES = ((0.4, 120.0), (1.2, 60.0), (5.0, 12.0))
"""Of the arrivals: the rate over the mean rate before scaling, and the mean seconds spent in it."""
SCATTER = 0.06
_COLD_S = 35.0


def fleet() -> Fleet:
    """The accelerators of the video workload, each host with memory for four checkpoints."""
    checkpoints = {
        f"c{number:02d}": FleetVariant(
            fallbacks=(f"c{number:02d}-fast", f"base{number % BASES}-turbo"), time_factor=1.0, quality=0.8
        )
        for number in range(CHECKPOINTS)
    }
    fast = {f"{name}-fast": FleetVariant(weights=name, time_factor=0.55, quality=0.62) for name in checkpoints}
    turbo = {f"base{number}-turbo": FleetVariant(time_factor=0.25, quality=0.5) for number in range(BASES)}
    pools = tuple(FleetPool(**{**pool.model_dump(), "host_cache": 4}) for pool in video_fleet().pools)
    return Fleet(pools=pools, variants={**checkpoints, **fast, **turbo})


def workload(seed: int, tasks: int | None = None) -> Trace:
    """The trace of one seed."""
    random = np.random.default_rng((seed, 23))
    count = TASKS if tasks is None else tasks
    arrival_s = _arrivals(random, count)
    popularity = 1.0 / np.arange(1, CHECKPOINTS + 1) ** ZIPF
    order = random.permutation(CHECKPOINTS)
    size = 1.0 / np.arange(1, TENANTS + 1)
    habits = [
        [
            (
                int(order[random.choice(CHECKPOINTS, p=popularity / popularity.sum())]),
                int(random.choice((20, 25, 30, 50), p=(0.3, 0.2, 0.35, 0.15))),
                int(random.choice((512, 768, 1024), p=(0.35, 0.35, 0.3))),
            )
            for _ in range(int(random.integers(2, 9)))
        ]
        for _ in range(TENANTS)
    ]
    tenant = random.choice(TENANTS, size=count, p=size / size.sum())
    drawn, repeats = random.random(count), random.random(count) < REPEATS
    asked = [(int(who), habits[who][int(draw * len(habits[who]))]) for who, draw in zip(tenant, drawn, strict=True)]
    for number in range(1, count):
        if repeats[number]:
            asked[number] = asked[number - 1]
    checkpoint, steps, side = (np.array(column) for column in zip(*(chosen for _, chosen in asked), strict=True))
    speed = 0.8 + 0.4 * random.random(BASES)
    pixels = (side / 512) ** 2
    usual_s = speed[checkpoint % BASES] * (0.4 + steps * (0.045 * pixels + 0.008 * pixels**2))
    table = pa.table(
        {
            "arrival_s": arrival_s,
            "variant": [f"c{number:02d}" for number in checkpoint],
            "exec_s": usual_s * np.exp(random.normal(0, SCATTER, count)),
            "deadline_s": 1.2 * _COLD_S + 4.0 * usual_s,
            "tenant": [f"t{number:02d}" for number, _ in asked],
            "steps": steps,
            "side": side,
        }
    )
    return replace(trace_from(table, "synthetic diffusion"), synthetic=True)


def _arrivals(random: np.random.Generator, count: int) -> np.ndarray:
    """One a second in the mean."""
    gaps: list[float] = []
    state, left_s, spent_s = 0, 0.0, 0.0
    while len(gaps) < count:
        rate, stay_s = STATES[state]
        if left_s <= 0:
            left_s = float(random.exponential(stay_s))
        gap_s = float(random.exponential(1 / rate))
        if gap_s > left_s:  # the state ends first; a Poisson process has no memory
            spent_s, left_s = spent_s + left_s, 0.0
            state = int(random.choice([other for other in range(len(STATES)) if other != state]))
            continue
        gaps.append(spent_s + gap_s)
        left_s, spent_s = left_s - gap_s, 0.0
    arrival_s = np.cumsum(gaps)
    return arrival_s * count / float(arrival_s[-1])
