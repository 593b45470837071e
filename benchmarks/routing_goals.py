"""What the routing policy is asked for, over the figures of `benchmarks.routing_trace`."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

LOW_LOADS = 0.1
MOST_DOWNGRADED = 0.01
EQUAL_LOAD, MOST_ADMITTED_LATE = 0.85, 0.02
FLOODED_ON_TIME = 0.95
RECOVERY_S = 60.0
SLACK = 0.0005
"""Of shares: a task or so. Where nearly all is on time, policies differ by luck."""
LAMBDA90_RATIOS = {"p2c": 6.0, "jsq": 2.0, "ect": 1.25}

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Goal:
    """One goal, and what was found."""

    name: str
    found: float
    goal: float
    met: bool
    said: str


def by_load_goals(rows: Rows, workloads: Iterable[str]) -> list[Goal]:
    """Downgrades at low loads, goodput over every baseline, admitted yet late: means over the seeds."""
    sums: dict[tuple[str, float, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        sums[row["workload"], row["load"], row["policy"]].append(row)

    def mean(workload: str, load: float, policy: str, share: str) -> float:
        return float(np.mean([row[share] for row in sums[workload, load, policy]]))

    found = []
    for workload in workloads:
        loads = sorted({load for name, load, _ in sums if name == workload})
        for load in loads:
            rivals = sorted({policy for name, at, policy in sums if (name, at) == (workload, load)} - {"rushes"})
            where = f"{workload} at load {load:g}:"
            if load <= LOW_LOADS:
                share = mean(workload, load, "rushes", "downgraded_share")
                said = f"{where} {share:.2%} downgraded, goal ≤ {MOST_DOWNGRADED:.0%}"
                found.append(Goal(f"{where} downgraded", share, MOST_DOWNGRADED, share <= MOST_DOWNGRADED, said))
                if "ect" in rivals:
                    ours, theirs = (mean(workload, load, who, "as_asked_share") for who in ("rushes", "ect"))
                    said = f"{where} {ours:.2%} on time as asked, goal ≥ {theirs:.2%} of ect"
                    found.append(Goal(f"{where} as asked", ours, theirs, ours >= theirs - SLACK, said))
            if load >= LOW_LOADS and rivals:
                ours = mean(workload, load, "rushes", "quality_goodput")
                best, who = max((mean(workload, load, policy, "quality_goodput"), policy) for policy in rivals)
                said = (
                    f"{where} quality-weighted goodput {ours:.2%}, goal ≥ {best:.2%} of {who}, the best of the others"
                )
                found.append(Goal(f"{where} quality goodput", ours, best, ours >= best - SLACK, said))
            if load == EQUAL_LOAD:
                share = mean(workload, load, "rushes", "admitted_late_share")
                said = f"{where} {share:.2%} admitted and late, goal ≤ {MOST_ADMITTED_LATE:.0%}"
                found.append(Goal(f"{where} late", share, MOST_ADMITTED_LATE, share <= MOST_ADMITTED_LATE, said))
    return found


def scene_goals(scenes: Mapping[str, Rows]) -> list[Goal]:
    """In the worst seed each."""

    def ours(scene: str) -> list[Mapping[str, Any]]:
        return [row for row in scenes[scene] if row["policy"] == "rushes"]

    others = min(row["others"]["on_time_share"] for row in ours("flood"))
    late = max(row["all"]["admitted_late_share"] for row in ours("equal_tenants"))
    lost = sum(row["lost"] for row in ours("pool_dies"))
    oracle_s = {row["seed"]: row["recovered_s"] for row in scenes["pool_dies"] if row["policy"] == "oracle"}
    worst = max(ours("pool_dies"), key=lambda row: row["recovered_s"] - max(RECOVERY_S, oracle_s[row["seed"]]))
    recovered_s, known_s = worst["recovered_s"], oracle_s[worst["seed"]]
    goal_s = max(RECOVERY_S, known_s)
    return [
        Goal(
            "flood: others on time",
            others,
            FLOODED_ON_TIME,
            others >= FLOODED_ON_TIME,
            f"flood: the nine others {others:.1%} on time, goal ≥ {FLOODED_ON_TIME:.0%}",
        ),
        Goal(
            "equal tenants: late",
            late,
            MOST_ADMITTED_LATE,
            late <= MOST_ADMITTED_LATE,
            f"equal tenants: {late:.2%} of the admitted late, goal ≤ {MOST_ADMITTED_LATE:.0%}",
        ),
        Goal("pool dies: lost", lost, 0, lost == 0, f"pool dies: {lost} lost, goal 0"),
        Goal(
            "pool dies: recovery",
            recovered_s,
            goal_s,
            recovered_s <= goal_s,
            f"pool dies: recovered after {recovered_s:.0f} s, goal ≤ {RECOVERY_S:g} s or the oracle's {known_s:.0f} s",
        ),
    ]


def lambda90_goals(rows: Rows, workloads: Iterable[str]) -> list[Goal]:
    """How many times as much traffic as the baselines', seed by seed."""
    found = []
    for workload in workloads:
        speed = {(row["policy"], row["seed"]): row["speed"] for row in rows if row["workload"] == workload}
        for policy in sorted({policy for policy, _ in speed} - {"rushes"}):
            each = np.array([speed["rushes", s] / max(speed[policy, s], 1e-9) for who, s in speed if who == policy])
            low, high = interval(each)
            goal = LAMBDA90_RATIOS.get(policy, 1.0)
            said = f"{workload}: λ90 {each.mean():.2f} × {policy}'s ({low:.2f} … {high:.2f}), goal ≥ {goal:g}"
            found.append(Goal(f"{workload}: λ90 over {policy}", float(each.mean()), goal, each.mean() >= goal, said))
    return found


def interval(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    """95 % of the mean, by Student's t over the seeds."""
    if len(values) < 2:
        return float(values.mean()), float(values.mean())
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return float(values.mean()) - half, float(values.mean()) + half
