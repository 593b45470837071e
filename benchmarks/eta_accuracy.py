"""How good are the completion times that are promised at admission, and how often does the 90 % bound hold?

    python -m benchmarks.eta_accuracy [--trace CSV] [--quick] [--seeds N] [--speed X] [--json FILE]

The tasks of `benchmarks.workload` (service noise 5 %), and the same with heavy lognormal noise on top. Estimates are
frozen at admission; the book learns from completed tasks only. The baseline is earliest completion (`ect`), whose
forecasts go through the same book.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.report import write_report
from benchmarks.workload import fleet, workload
from cluster.report import EtaReport, judge_etas
from cluster.simulator import SimulationConfig, run, with_deadlines

HEAVY = 0.33
GOALS = {"5 %": (0.03, 0.08), "heavy": (0.18, 0.45)}


def measured(path: Path | None, policy: str, noise: float, seed: int, speed: float, tasks: int | None) -> EtaReport:
    """One run."""
    trace = workload(path, seed, tasks=tasks)
    outcome = run(trace, fleet(), SimulationConfig(trace, fleet(), policy=policy, service_noise=noise), seed, speed)
    return judge_etas(with_deadlines(trace.sped_up(speed), fleet()), outcome)


def main() -> None:
    """Print a line a regime, write JSON and a plot."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed of 4,000 tasks")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--speed", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seeds, tasks = (1, 4000) if arguments.quick else (arguments.seeds, None)
    rows: dict[str, list[dict[str, object]]] = {}
    for name, noise in (("5 %", 0.0), ("heavy", HEAVY)):
        for policy in ("ect", "rushes"):
            found = [measured(arguments.trace, policy, noise, seed, arguments.speed, tasks) for seed in range(seeds)]
            rows[f"{name} {policy}"] = [asdict(one) for one in found]
            p50, p90, held, worst, wide = (
                float(np.mean([getattr(one, field) for one in found]))
                for field in ("error_p50", "error_p90", "coverage", "coverage_worst_window", "bound_over_estimate")
            )
            low = min(min(one.coverage_by_load_quartile) for one in found)
            goal = GOALS[name]
            print(
                f"noise {name:6s} {policy:7s} error p50 {p50:.3f} (goal {goal[0]}), p90 {p90:.3f} (goal {goal[1]}); "
                f"coverage {held:.3f}, worst quartile {low:.3f}, worst window {worst:.3f}; bound/estimate {wide:.2f}"
            )
    path = write_report(
        "eta_accuracy", {"synthetic": arguments.trace is None, "speed": arguments.speed, "runs": rows}, arguments.json
    )
    figure, axes = plt.subplots(figsize=(6, 3.4))
    labels = list(rows)
    axes.bar(labels, [float(np.mean([float(str(one["error_p90"])) for one in rows[label]])) for label in labels])
    axes.set_ylabel("error, p90")
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=140)
    print(f"figures: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
