"""The routing policy against the usual ones, made as strong: what is on time, as what, and what is refused, by load.

    python -m benchmarks.routing_trace [--trace CSV] [--quick] [--seeds N] [--jobs N] [--json FILE]

Two workloads. `video`: real arrivals (or, without `--trace`, a synthetic hour that is said to be synthetic), mapped to
variants and shapes by the seeded rule of `benchmarks.workload`. `diffusion`: bursts over many checkpoints, synthetic
(`benchmarks.diffusion_workload`). Each is sped up until what it asks for is a share of what the fleet can do, loads not
counted: its load. Every policy sees the same tasks, deadlines and fleet and learns service times by the same predictor.

Columns: done by the deadline; so, and as the variant that was asked for; done as another; on time weighted by quality
(rendered over asked for); refused; of those admitted, late. Then the highest speed with 90 % on time (λ90; not with
`--quick`), and the scenes of `benchmarks.routing_scenarios`: a tenant that floods, equal tenants, a pool that dies.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import diffusion_workload, routing_scenarios
from benchmarks import workload as video_workload
from benchmarks.report import write_report
from benchmarks.routing_goals import Goal, by_load_goals, lambda90_goals, scene_goals
from benchmarks.workload import speed_at
from cluster.simulation.engine import SimulationConfig, lambda90, run
from cluster.simulation.fleet import Fleet
from cluster.simulation.report import fates
from cluster.simulation.trace import Trace

WORKLOADS = ("video", "diffusion")
LOADS = (0.05, 0.1, 0.25, 0.5, 0.85, 1.0, 1.25, 1.5)
POLICIES = (
    "p2c",
    "p2c_fallback",
    "p2c_refuse",
    "jsq",
    "jsq_fallback",
    "jsq_refuse",
    "least_work",
    "ect",
    "ect_refuse",
    "ect_soft",
    "rushes",
)
QUICK_POLICIES = ("p2c_refuse", "jsq_refuse", "ect", "ect_refuse", "ect_soft", "rushes")
LAMBDA90_POLICIES = ("p2c", "jsq", "ect", "ect_refuse", "ect_soft", "rushes")
DYING_POLICIES = ("oracle", "ect_soft", "rushes")
FLOOD_POLICIES = ("ect_soft", "rushes")
QUICK_SCENE_TASKS = 1500
_QUICK_TASKS = ((0.1, 1200), (0.5, 2000), (1.5, 4000))
"""Up to each load: a span of a few deadlines, so that the load is felt."""
COLUMNS = (
    ("on time", "on_time_share"),
    ("as asked", "as_asked_share"),
    ("other", "downgraded_share"),
    ("quality", "quality_goodput"),
    ("refused", "refused_share"),
    ("late", "admitted_late_share"),
)
_ON_TIME = 0.9


@lru_cache(maxsize=4)
def made(workload: str, path: Path | None, seed: int, tasks: int | None) -> tuple[Trace, Fleet]:
    """The trace and the fleet of a workload."""
    if workload == "video":
        return video_workload.workload(path, seed, tasks=tasks), video_workload.fleet()
    return diffusion_workload.workload(seed, tasks=tasks), diffusion_workload.fleet()


def at_load(workload: str, path: Path | None, tasks: int | None, seed: int, load: float, policy: str) -> dict[str, Any]:
    """One run."""
    trace, fleet = made(workload, path, seed, tasks)
    speed = speed_at(load, trace, fleet)
    outcome = run(trace, fleet, SimulationConfig(trace, fleet, policy=policy, speed=speed), seed=0)
    shares = fates(trace.sped_up(speed), fleet, outcome).of()
    said = {"workload": workload, "load": load, "policy": policy, "seed": seed, "speed": speed}
    return {**said, **asdict(shares), "wall_s": outcome.wall_s}


def highest_load(workload: str, path: Path | None, tasks: int | None, seed: int, policy: str) -> dict[str, Any]:
    """λ90, as a speed of the trace and as a load."""
    trace, fleet = made(workload, path, seed, tasks)
    start = speed_at(0.8, trace, fleet)
    points = lambda90(trace, fleet, SimulationConfig(trace, fleet, policy=policy, speed=start))
    speed = max((point.speed for point in points if point.on_time_share >= _ON_TIME), default=0.0)
    load = speed / speed_at(1.0, trace, fleet)
    return {"workload": workload, "policy": policy, "seed": seed, "speed": speed, "load": load}


def tasks_at(load: float) -> int:
    """Of a quick run."""
    return next(tasks for most, tasks in _QUICK_TASKS if load <= most)


@contextmanager
def workers(jobs: int) -> Iterator[Executor]:
    """Processes of one thread each: runs do not share anything."""
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def mean_of(rows: list[dict[str, Any]], **where: object) -> dict[str, float]:
    """Means over the seeds of the shares of the rows that fit."""
    fit = [row for row in rows if all(row[key] == value for key, value in where.items())]
    return {field: float(np.mean([row[field] for row in fit])) for _, field in COLUMNS}


def show_loads(rows: list[dict[str, Any]], policies: tuple[str, ...]) -> None:
    """A table a workload, which fits eighty columns."""
    for workload in WORKLOADS:
        table = Table("load", "policy", title=f"{workload}, % of all tasks", title_justify="left")
        for name, _ in COLUMNS:
            table.add_column(name, justify="right")
        for load in LOADS:
            for place, policy in enumerate(policies):
                found = mean_of(rows, workload=workload, load=load, policy=policy)
                shares = [f"{100 * found[field]:.1f}" for _, field in COLUMNS]
                last = place == len(policies) - 1
                table.add_row("" if place else f"{load:g}", policy, *shares, end_section=last)
        Console(width=80).print(table)


def show_scenes(scenes: Mapping[str, list[dict[str, Any]]]) -> None:
    """A line a run."""
    for row in scenes["flood"]:
        others, flooding = row["others"], row["flooding"]
        print(
            f"flood, seed {row['seed']}, {row['policy']}: the nine others {others['on_time_share']:.1%} on time (the "
            f"worst of them {row['worst_other_on_time']:.1%}), {others['as_asked_share']:.1%} as asked, "
            f"{others['refused_share']:.1%} refused; the one that floods {flooding['on_time_share']:.1%} done"
        )
    for row in scenes["equal_tenants"]:
        print(
            f"equal tenants, seed {row['seed']}, {row['policy']}: {row['all']['on_time_share']:.1%} on time "
            f"({row['worst_on_time']:.1%} … {row['best_on_time']:.1%} by tenant), of the admitted "
            f"{row['all']['admitted_late_share']:.1%} late (the worst tenant {row['worst_admitted_late']:.1%})"
        )
    for row in scenes["pool_dies"]:
        print(
            f"pool dies, seed {row['seed']}, {row['policy']}: {row['lost']} lost, {row['interrupted']} interrupted "
            f"({row['interrupted_late']} then late); recovered after {row['recovered_s']:.0f} s (all that was there "
            f"has started after {row['drained_s']:.0f} s, ten seconds' arrivals less than 90 % on time until "
            f"{row['late_until_s']:.0f} s); {row['on_time_share']:.1%} on time, quality {row['quality_goodput']:.1%}; "
            f"what is left is asked for {row['named_load']:.2f} of what it can do"
        )


def plot(rows: list[dict[str, Any]], policies: tuple[str, ...], path: Path) -> None:
    """Quality-weighted goodput over load, a panel a workload."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(WORKLOADS), figsize=(9, 3.6), sharey=True)
    for axes, workload in zip(panels, WORKLOADS, strict=True):
        for policy in policies:
            found = [mean_of(rows, workload=workload, load=load, policy=policy) for load in LOADS]
            ours = policy == "rushes"
            style = {"color": "#c8502f", "linewidth": 2.2} if ours else {"linewidth": 1.0}
            axes.plot(LOADS, [one["quality_goodput"] for one in found], label=policy, **style)
        axes.set_title(workload, fontsize=10)
        axes.set_xlabel("load")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("on time, weighted by quality")
    panels[-1].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=140)


def main() -> None:
    """Print the tables and the goals, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, help="arrival_s, context_tokens, generated_tokens")
    parser.add_argument("--quick", action="store_true", help="few tasks, one seed, fewer baselines, no λ90")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--policies", help="instead of all of them, with commas; rushes is added")
    parser.add_argument("--baselines", type=Path, help="take what only baselines did from this earlier JSON")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    path, quick = arguments.trace, arguments.quick
    seeds = range(1 if quick else arguments.seeds)
    tasks, scene_tasks = (_QUICK_TASKS[-1][1], QUICK_SCENE_TASKS) if quick else (None, 6000)
    policies = QUICK_POLICIES if quick else POLICIES
    if arguments.policies:
        policies = (*(name for name in arguments.policies.split(",") if name != "rushes"), "rushes")
    earlier: dict[str, Any] = json.loads(arguments.baselines.read_text()) if arguments.baselines else {}
    if earlier and (earlier["seeds"], earlier["quick"]) != (len(seeds), quick):
        parser.error(f"--baselines {arguments.baselines}: its seeds or --quick are not those of this run")
    known = tuple(dict.fromkeys(row["policy"] for row in earlier.get("loads", ()) if row["policy"] != "rushes"))
    policies = (*known, "rushes") if earlier else policies

    def of(some: tuple[str, ...]) -> tuple[str, ...]:
        return ("rushes",) if earlier else some

    began = time.perf_counter()
    calls: dict[str, list[Callable[[], dict[str, Any]]]] = {
        "pool_dies": [
            partial(routing_scenarios.pool_dies, path, seed, tasks, policy)
            for seed in seeds
            for policy in of(DYING_POLICIES)
        ],
        "flood": [
            partial(routing_scenarios.flood, path, seed, scene_tasks, policy)
            for seed in seeds
            for policy in of(FLOOD_POLICIES)
        ],
        "equal_tenants": [
            partial(routing_scenarios.equal_tenants, path, seed, tasks, policy)
            for seed in seeds
            for policy in of(FLOOD_POLICIES)
        ],
        "lambda90": [
            partial(highest_load, workload, path, tasks, seed, policy)
            for workload in WORKLOADS
            for seed in seeds
            for policy in of(LAMBDA90_POLICIES)
            if not quick
        ],
        "loads": [
            partial(at_load, workload, path, tasks_at(load) if quick else None, seed, load, policy)
            for workload in WORKLOADS
            for seed in seeds
            for load in LOADS
            for policy in of(policies)
        ],
    }
    with workers(arguments.jobs) as pool:
        futures = {name: [pool.submit(call) for call in those] for name, those in calls.items()}
        found = {name: [future.result() for future in those] for name, those in futures.items()}
    for name, rows in found.items():
        rows[:0] = [row for row in earlier.get(name, ()) if row["policy"] != "rushes"]
    show_loads(found["loads"], policies)
    show_scenes(found)
    goals: list[Goal] = [*by_load_goals(found["loads"], WORKLOADS), *scene_goals(found)]
    if found["lambda90"]:
        goals += lambda90_goals(found["lambda90"], WORKLOADS)
    for goal in goals:
        print(f"{'met' if goal.met else 'MISSED':7}{goal.said}")
    wall_s = time.perf_counter() - began
    figures = {
        "synthetic": {"video": path is None, "diffusion": True},
        "seeds": len(seeds),
        "quick": quick,
        "tasks": {name: len(made(name, path, 0, tasks)[0]) for name in WORKLOADS},
        **found,
        "goals": [asdict(goal) for goal in goals],
        "wall_s": wall_s,
    }
    target = write_report("routing_trace", figures, arguments.json)
    plot(found["loads"], policies, target.with_suffix(".png"))
    print(f"{sum(goal.met for goal in goals)} of {len(goals)} goals met; {wall_s:.0f} s")
    print(f"figures: {target}, {target.with_suffix('.png')}")


if __name__ == "__main__":
    main()
