"""How good are the completion times that are promised at admission, and how often does the 90 % bound hold?

    python -m benchmarks.eta_accuracy [--trace CSV] [--quick] [--seeds N] [--json FILE]

The tasks of `benchmarks.workload` (service noise 5 %), and the same with heavy lognormal noise on top, at a light, a
middling and a heavy load. Estimates are frozen at admission; book and predictor learn from completed tasks only, and
begin knowing nothing: tasks that are admitted before the first completion are counted like all others. Errors are
relative to what the task took from arrival to its end. Goals are judged at the heavy load, where promises are hard.
The baseline is earliest completion (`ect`), whose forecasts go through the same book.

`correlation` is the variance of the coverage of windows of 1,000 completions over that of independent misses, and
`on their way` the tasks that are admitted and not done, on average: a bound that is frozen at admission learns of a
change only that many completions later.

The oracle beside the judged runs says what part of the windows' misses is luck (`benchmarks.eta_oracle`): its worst
window when as many of its bounds hold over the run as the goal lets hold, our worst window against it, and the share of
all bounds that would have to hold for none of its windows to miss the goal.

Beside the steady load, `benchmarks.eta_scenarios` are run: `sudden` (completions 200 to 600 after the first of
a variant that takes twice as long), `crowd` (of the tasks that come in two minutes of ten times the arrivals) and
`bursty` (of each quartile by load), each with the oracle's figures.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.eta_oracle import Oracle, oracle
from benchmarks.eta_scenarios import SCENARIOS, Judged, tried
from benchmarks.report import write_report
from benchmarks.workload import fleet, workload
from cluster.simulation.engine import SimulationConfig, run, with_deadlines
from cluster.simulation.report import EtaReport, judge_etas

HEAVY = 0.33
NOISES = {"5 %": 0.0, "heavy": HEAVY}
SPEEDS = (2.0, 3.5, 5.0)
GOALS = {"5 %": (0.03, 0.08), "heavy": (0.18, 0.45)}
COVERAGE, COVERAGE_SLACK, LEAST_COVERAGE, MOST_BOUND = 0.9, 0.015, 0.87, 1.6


@dataclass(frozen=True)
class Found:
    """One run: the report, and what says how hard it was."""

    report: EtaReport
    blind_share: float  # admitted before anything had completed
    on_their_way: float
    correlation: float
    oracle: Oracle | None = None


def measured(path: Path | None, policy: str, noise: float, seed: int, speed: float, *, judged: bool) -> Found:
    """One run; the oracle is asked where the run is judged."""
    trace = workload(path, seed)
    outcome = run(trace, fleet(), SimulationConfig(trace, fleet(), policy=policy, service_noise=noise), seed, speed)
    ran = with_deadlines(trace.sped_up(speed), fleet())
    done_s = np.array(outcome.done_s)
    done = np.isfinite(done_s)
    latency_s = (done_s - ran.arrival_s)[done]
    order = np.array(outcome.completions)
    held = (done_s - ran.arrival_s <= np.array(outcome.p90_s))[order]
    windows = [held[at : at + 1000].mean() for at in range(0, len(held) - 999, 1000)]
    share = float(held.mean())
    expected = share * (1 - share) / 1000
    return Found(
        judge_etas(ran, outcome),
        float(np.mean(ran.arrival_s < np.nanmin(done_s))),
        float(latency_s.sum() / np.nanmax(done_s)),
        float(np.var(windows) / expected) if len(windows) > 1 and expected else float("nan"),
        oracle(ran, fleet(), outcome, noise, most=COVERAGE + COVERAGE_SLACK, least=LEAST_COVERAGE) if judged else None,
    )


def said(name: str, values: list[float], goal: str = "", met: bool = True) -> str:
    """Mean and range over the seeds."""
    verdict = f" ({goal} {'met' if met else 'MISSED'})" if goal else ""
    return f"{name} {np.mean(values):.3f} [{min(values):.3f} … {max(values):.3f}]{verdict}"


def told(noise: str, found: list[Found], *, judged: bool) -> str:
    """The lines of one kind of run; the worst seed is held against windows and quartiles."""
    reports = [one.report for one in found]
    p50, p90, held, wide = (
        [float(getattr(one, field)) for one in reports]
        for field in ("error_p50", "error_p90", "coverage", "bound_over_estimate")
    )
    quartile = [min(one.coverage_by_load_quartile) for one in reports]
    window = [one.coverage_worst_window for one in reports]
    goal_p50, goal_p90 = GOALS[noise]
    rows = (
        ("error p50", p50, f"≤ {goal_p50}", np.mean(p50) <= goal_p50),
        ("p90", p90, f"≤ {goal_p90}", np.mean(p90) <= goal_p90),
        ("coverage", held, f"{COVERAGE} ± {COVERAGE_SLACK}", abs(np.mean(held) - COVERAGE) <= COVERAGE_SLACK),
        ("worst quartile", quartile, f"≥ {LEAST_COVERAGE}", min(quartile) >= LEAST_COVERAGE),
        ("worst window", window, f"≥ {LEAST_COVERAGE}", min(window) >= LEAST_COVERAGE),
        ("bound/estimate", wide, f"≤ {MOST_BOUND}", np.mean(wide) <= MOST_BOUND),
    )
    lines = [said(name, values, goal if judged else "", bool(met)) for name, values, goal, met in rows]
    hard = (
        f"blind {np.mean([one.blind_share for one in found]):.1%}, "
        f"on their way {np.mean([one.on_their_way for one in found]):.0f}, "
        f"correlation {np.mean([one.correlation for one in found]):.1f}"
    )
    return "; ".join([*lines, hard, *beside_the_oracle(found)])


def shown(found: list[Judged]) -> str:
    """The line of a scenario: its least share over what it is about and over the seeds is held against the goal."""
    ours, best = [min(one.ours) for one in found], [min(one.oracle) for one in found]
    goal = found[0].goal
    parts = (
        said("coverage", ours, f"≥ {goal}", min(ours) >= goal),
        said("oracle's", best, f"≥ {goal}", min(best) >= goal),
        said("of all", [one.coverage for one in found]),
        said("bound/estimate", [one.bound_over_estimate for one in found]),
        f"on their way {np.mean([one.on_their_way for one in found]):.0f}",
    )
    return "; ".join(parts)


def beside_the_oracle(found: list[Found]) -> list[str]:
    """What the oracle's worst windows were, and ours against them; nothing where it was not asked."""
    pairs = [(one.report.coverage_worst_window, one.oracle) for one in found if one.oracle]
    if not pairs:
        return []
    worst = [best.worst_window for _, best in pairs]
    goal = f"≥ {LEAST_COVERAGE}"
    return [
        said(f"oracle at {COVERAGE + COVERAGE_SLACK:.1%}: worst window", worst, goal, min(worst) >= LEAST_COVERAGE),
        said("ours ÷ oracle's", [ours / best.worst_window for ours, best in pairs]),
        said("coverage that it would need", [best.needed_coverage for _, best in pairs]),
    ]


def main() -> None:
    """Print a line a kind of run, write JSON and a plot."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed, the heavy load only")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seeds = 1 if arguments.quick else arguments.seeds
    speeds = SPEEDS[-1:] if arguments.quick else SPEEDS
    rows: dict[str, list[Found]] = {}
    for speed in speeds:
        for noise, sigma in NOISES.items():
            for policy in ("ect", "rushes"):
                hard = policy == "rushes" and speed == SPEEDS[-1]
                found = [measured(arguments.trace, policy, sigma, seed, speed, judged=hard) for seed in range(seeds)]
                rows[f"{speed:g} × {noise} {policy}"] = found
                print(f"speed {speed:g}, noise {noise}, {policy}: {told(noise, found, judged=hard)}", flush=True)
    scenarios: dict[str, list[Judged]] = {}
    for name, (_, at_speeds) in SCENARIOS.items():
        for speed in at_speeds[:1] if arguments.quick else at_speeds:
            for noise, sigma in NOISES.items():
                most = COVERAGE + COVERAGE_SLACK
                one = [tried(arguments.trace, name, sigma, seed, speed, most) for seed in range(seeds)]
                scenarios[f"{name} {speed:g} × {noise}"] = one
                print(f"{name} at speed {speed:g}, noise {noise}: {shown(one)}", flush=True)
    figures = {
        "synthetic": arguments.trace is None,
        "goals": GOALS,
        "runs": {name: [asdict(one) for one in found] for name, found in rows.items()},
        "scenarios": {name: [asdict(one) for one in found] for name, found in scenarios.items()},
    }
    path = write_report("eta_accuracy", figures, arguments.json)
    figure, axes = plt.subplots(figsize=(7.5, 4))
    names = list(rows)
    for place, name in enumerate(names):
        p50, p90 = (np.mean([getattr(one.report, field) for one in rows[name]]) for field in ("error_p50", "error_p90"))
        colour = "#c8502f" if name.endswith("rushes") else "#b9b6ad"
        axes.plot([p50, p90], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot([p50], [place], "o", color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    shares = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    axes.set_xticks(shares, [f"{share:.0%}" for share in shares])
    axes.minorticks_off()
    axes.set_xlabel("relative error, from the median (dot) to the 90 % quantile")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=140)
    print(f"figures: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
