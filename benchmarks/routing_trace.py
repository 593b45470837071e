"""How fast may the traffic come until tasks are late? λ90 of the routing policy against the usual ones.

    python -m benchmarks.routing_trace [--trace CSV] [--quick] [--seeds N] [--json FILE]

Real arrivals (or, without `--trace`, a synthetic hour that is said to be synthetic), mapped to variants and shapes by
the seeded rule of `benchmarks.workload`, are sped up until fewer than 90 % of the tasks are on time: λ90. Every policy
sees the same tasks, deadlines and fleet; fallbacks are allowed to those that know them. At the end the largest pool
dies in a run of each seed.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from benchmarks.report import write_report
from benchmarks.workload import fleet, workload
from cluster.simulator import Failure, SimulationConfig, lambda90, run

POLICIES = ("p2c", "jsq", "least_work", "ect", "rushes")
GOALS = {"p2c": 6.0, "jsq": 2.0, "ect": 1.25}
GOAL_RECOVERY_S = 60.0
DYING_LOAD = 0.5
"""The pool that dies is 38 % of the fleet."""
_ON_TIME = 0.9
_AFTER_S = 300.0


def measured(path: Path | None, seeds: int, tasks: int | None) -> dict[str, list[float]]:
    """λ90 by policy, one for each seed of the workload."""
    found: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for seed in range(seeds):
        trace = workload(path, seed, tasks=tasks)
        for policy in POLICIES:
            points = lambda90(trace, fleet(), SimulationConfig(trace, fleet(), policy=policy, seeds=1))
            good = [point.speed for point in points if point.on_time_share >= _ON_TIME]
            found[policy].append(max(good, default=0.0))
    return found


def pool_dies(path: Path | None, seed: int, tasks: int | None, speed: float) -> dict[str, Any]:
    """A quarter of the way in, the largest pool dies for good: what is lost, when the last task that it had has started
    elsewhere, and when the last ten seconds begin whose arrivals are not 90 % on time.

    `named_load` is what the five minutes after it ask for, in the variants that they name, over what the pools that
    are left can do, loads not counted: above one, no policy is on time without falling back.
    """
    trace = workload(path, seed, tasks=tasks)
    config = SimulationConfig(trace, fleet(), policy="rushes", speed=speed)
    at_s = trace.span_s / speed / 4
    victim = max(fleet().pools, key=lambda pool: pool.count * pool.speed).name
    failed = SimulationConfig(trace, fleet(), policy="rushes", speed=speed, failures=(Failure(victim, at_s),))
    outcome = run(trace, fleet(), failed, seed=0)
    calm = run(trace, fleet(), config, seed=0)
    sped = trace.sped_up(speed)
    left = sum(pool.count * pool.speed for pool in fleet().pools if pool.name != victim)
    after = (sped.arrival_s >= at_s) & (sped.arrival_s < at_s + _AFTER_S)
    span_s = min(_AFTER_S, sped.span_s - at_s)
    start_s, done_s, arrival_s = np.array(outcome.start_s), np.array(outcome.done_s), sped.arrival_s
    late = ~(done_s <= arrival_s + sped.allowance_s)
    windows = [
        (start, late[(arrival_s >= start) & (arrival_s < start + 10)]) for start in np.arange(at_s, sped.span_s, 2)
    ]
    bad = [start + 10 - at_s for start, window in windows if len(window) >= 10 and window.mean() > 1 - _ON_TIME]
    return {
        "seed": seed,
        "speed": speed,
        "pool": victim,
        "at_s": at_s,
        "named_load": float(np.array(trace.exec_s)[after].sum()) / (left * span_s),
        "lost": int((~np.isfinite(done_s) & ~np.array(outcome.refused)).sum()),
        "interrupted": len(outcome.interrupted),
        "restarted_s": float(start_s[outcome.interrupted].max()) - at_s if outcome.interrupted else 0.0,
        "interrupted_late": int(late[outcome.interrupted].sum()),
        "late_until_s": float(max(bad, default=0.0)),
        "on_time_without": calm.on_time_share,
        "on_time_with": outcome.on_time_share,
    }


def interval(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    """95 % of the mean, by Student's t over the seeds."""
    if len(values) < 2:
        return float(values.mean()), float(values.mean())
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return float(values.mean()) - half, float(values.mean()) + half


def plot(found: dict[str, list[float]], path: Path) -> None:
    """One bar a policy, a whisker from the least to the most."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.6))
    means = [float(np.mean(found[policy])) for policy in POLICIES]
    spread = [[m - min(found[p]) for m, p in zip(means, POLICIES, strict=True)]]
    spread.append([max(found[p]) - m for m, p in zip(means, POLICIES, strict=True)])
    axes.bar(POLICIES, means, yerr=spread, color=["#b9b6ad"] * (len(POLICIES) - 1) + ["#c8502f"], capsize=4)
    axes.set_ylabel("λ90: speed-up with 90 % on time")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=140)


def main() -> None:
    """Print a table, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, help="arrival_s, context_tokens, generated_tokens")
    parser.add_argument("--quick", action="store_true", help="4,000 tasks, one seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seeds, tasks = (1, 4000) if arguments.quick else (arguments.seeds, None)
    found = measured(arguments.trace, seeds, tasks)
    ours = np.array(found["rushes"])
    table = Table("policy", "λ90 mean", "least … most", "rushes ÷ this (95 %)", "goal")
    ratios: dict[str, float] = {}
    for policy in POLICIES:
        theirs = np.array(found[policy])
        each = ours / np.maximum(theirs, 1e-9)
        ratios[policy] = float(np.mean(each))
        low, high = interval(each)
        goal = GOALS.get(policy)
        verdict = "" if goal is None else f"≥ {goal} {'met' if ratios[policy] >= goal else 'MISSED'}"
        spread = f"{theirs.min():.3f} … {theirs.max():.3f}"
        table.add_row(policy, f"{theirs.mean():.3f}", spread, f"{ratios[policy]:.2f} ({low:.2f} … {high:.2f})", verdict)
    Console().print(table)
    died = [pool_dies(arguments.trace, seed, tasks, DYING_LOAD * float(ours[seed])) for seed in range(seeds)]
    for run_ in died:
        kept = not run_["lost"] and max(run_["restarted_s"], run_["late_until_s"]) <= GOAL_RECOVERY_S
        print(
            f"seed {run_['seed']}: {run_['pool']} dies at {run_['at_s']:.0f} s and {DYING_LOAD:g} × λ90: "
            f"{run_['lost']} lost, {run_['interrupted']} interrupted, of which {run_['interrupted_late']} then late "
            f"and the last started again after {run_['restarted_s']:.0f} s; any ten seconds' arrivals less than "
            f"90 % on time until {run_['late_until_s']:.0f} s after "
            f"(both ≤ {GOAL_RECOVERY_S:g} s {'met' if kept else 'MISSED'}); the five minutes after ask for "
            f"{run_['named_load']:.2f} of what is left, before any falls back; "
            f"on time over all {run_['on_time_with']:.1%}, without the death {run_['on_time_without']:.1%}"
        )
    figures = {
        "synthetic": arguments.trace is None,
        "lambda90": found,
        "ratios": ratios,
        "goals": GOALS,
        "pool_dies": died,
    }
    path = write_report("routing_trace", figures, arguments.json)
    plot(found, path.with_suffix(".png"))
    print(f"figures: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
