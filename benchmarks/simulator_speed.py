"""How long does the simulator take for a million tasks?

    python -m benchmarks.simulator_speed [--quick] [--tasks N] [--policy NAME] [--json FILE]

A made-up trace (twelve variants of Zipf popularity, steps and width as features, Poisson arrivals) through the `rushes`
policy, every decision, forecast and refit included, twice: at half of what the workload's fleet can do, and as a
backlog, at twice as much and without deadlines, so that half of all tasks end up in the queues. The baseline is `jsq`,
which only looks for the shortest queue. Each task is two events, its arrival and its end; the report is part of the
time. User and system CPU seconds stand beside the wall's, since on a shared machine that is mostly the time of others.
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.report import write_report
from benchmarks.workload import fleet
from cluster.simulation.engine import SimulationConfig, run, with_deadlines
from cluster.simulation.report import measure
from cluster.simulation.trace import Trace, trace_from

GOAL_S_A_MILLION = 120.0


LOADS = {"half busy": 0.5, "backlog": 2.0}


def made_up(tasks: int, load: float = 0.5, *, deadlines: bool = True) -> Trace:
    """The trace."""
    random = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 13)
    variant = random.choice(12, tasks, p=popularity / popularity.sum())
    steps, width = random.choice([4, 8, 20, 30], tasks), random.choice([256, 512, 768], tasks)
    exec_s = (0.5 + 0.1 * variant) * steps / 8 * (width / 512) ** 2 * np.exp(random.normal(0, 0.1, tasks)) + 0.3
    gaps_s = random.exponential(exec_s.mean() / (load * fleet().speed), tasks)
    columns = {"arrival_s": np.cumsum(gaps_s), "variant": [f"m{code}" for code in variant], "exec_s": exec_s}
    trace = trace_from(pa.table({**columns, "steps": steps, "width": width}), "made up")
    return trace if deadlines else replace(trace, allowance_s=np.full(tasks, np.inf))


def timed(trace: Trace, policy: str) -> dict[str, float]:
    """One run and its report."""
    began, before = time.perf_counter(), os.times()
    outcome = run(trace, fleet(), SimulationConfig(trace, fleet(), policy=policy), seed=0)
    report = measure(with_deadlines(trace, fleet()), fleet(), outcome)
    wall_s, after = time.perf_counter() - began, os.times()
    user_s, system_s = after.user - before.user, after.system - before.system
    return {
        "wall_s": wall_s,
        "user_s": user_s,
        "system_s": system_s,
        "cpu_s_a_million": (user_s + system_s) * 1e6 / len(trace),
        "completed": report.completed,
        "on_time_share": report.on_time_share,
    }


def main() -> None:
    """Print a line a policy, write JSON and a plot."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50,000 tasks")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--policy", default="rushes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tasks = 50_000 if arguments.quick else arguments.tasks
    found: dict[str, dict[str, float]] = {}
    for kind, load in LOADS.items():
        trace = made_up(tasks, load, deadlines=kind != "backlog")
        for policy in ("jsq", arguments.policy):
            one = found[f"{policy}, {kind}"] = timed(trace, policy)
            verdict = f"≤ {GOAL_S_A_MILLION:g} {'met' if one['cpu_s_a_million'] <= GOAL_S_A_MILLION else 'MISSED'}"
            print(
                f"{policy}, {kind}: {tasks:,} tasks in {one['wall_s']:.1f} s by the wall, {one['user_s']:.1f} s user, "
                f"{one['system_s']:.1f} s system; a million: {one['cpu_s_a_million']:.0f} s of CPU ({verdict}); "
                f"{one['completed']:,} completed",
                flush=True,
            )
    path = write_report("simulator_speed", {"tasks": tasks, "policies": found}, arguments.json)
    figure, axes = plt.subplots(figsize=(6, 2.8))
    axes.barh(
        list(found), [one["cpu_s_a_million"] for one in found.values()], color=["#b9b6ad", "#c8502f"] * len(LOADS)
    )
    axes.axvline(GOAL_S_A_MILLION, color="black", linewidth=0.8)
    axes.set_xlabel("CPU seconds for a million tasks (line: goal)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=140)
    print(f"figures: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
