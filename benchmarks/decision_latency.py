"""How long does one routing decision take with 1,000 replicas and 10,000 queued tasks?

    python -m benchmarks.decision_latency [--quick] [--json FILE]

Each timed call is the endpoint's: `Dispatcher.submit`, which filters, ranks, plans and queues. Between two of them a
replica finishes (not timed), so the queue stays as long. The baseline is a plan that reads the whole queue once.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.report import write_report
from benchmarks.workload import fleet
from cluster.dispatch import Dispatcher, Group
from cluster.policies import _variant
from cluster.terms import Terms, Wanted
from cluster.timeline import FixedMemory

REPLICAS, QUEUED, VARIANTS = 1000, 10_000, 8
GOAL_P50_S, GOAL_P99_S = 50e-6, 250e-6


def measured(decisions: int, seed: int) -> tuple[np.ndarray, float]:
    """(seconds of each decision, seconds of reading the whole queue once)."""
    random = np.random.default_rng(seed)
    names = list(fleet().variants)[:VARIANTS]
    groups = [Group(pool.name, pool.price_usd_per_hour, pool.vram_gib, pool.speed) for pool in fleet().pools]
    dispatcher = Dispatcher(
        [_variant(name, fleet()) for name in names], groups, estimate=lambda pool, _: 10.0 / len(pool.accelerator)
    )
    kinds = [(number, groups[number % len(groups)].accelerator, number // 4 % VARIANTS) for number in range(REPLICAS)]
    dispatcher.gained([(number, kind, FixedMemory(variant)) for number, kind, variant in kinds], 0.0)
    terms = [Terms(variant=name) for name in names]
    drawn = random.integers(0, VARIANTS, REPLICAS + QUEUED + decisions).tolist()
    for task in range(REPLICAS + QUEUED):
        dispatcher.submit(task, Wanted(terms[drawn[task]], task=task), 0.0)
    times = np.zeros(decisions)
    for turn in range(decisions):
        task, now_s = REPLICAS + QUEUED + turn, 1.0 + turn * 0.003
        dispatcher.free(int(random.integers(REPLICAS)), now_s)
        began = time.perf_counter()
        dispatcher.submit(task, Wanted(terms[drawn[task]], deadline_s=now_s + 1e6, task=task), now_s)
        times[turn] = time.perf_counter() - began
    began = time.perf_counter()
    sum(planned.work_s for lane in dispatcher.timelines.lanes for planned in lane.queue)
    return times, time.perf_counter() - began


def main() -> None:
    """Print percentiles, write JSON and a plot."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed of 2,000 decisions")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = [measured(2000 if arguments.quick else 10_000, seed) for seed in range(1 if arguments.quick else 5)]
    times = np.concatenate([found for found, _ in runs])
    p50, p99 = (float(np.quantile(times, level)) for level in (0.5, 0.99))
    scan = float(np.mean([seconds for _, seconds in runs]))
    print(f"p50 {p50 * 1e6:.0f} µs (goal {GOAL_P50_S * 1e6:.0f}), p99 {p99 * 1e6:.0f} µs (goal {GOAL_P99_S * 1e6:.0f})")
    print(f"reading the whole queue once: {scan * 1e6:.0f} µs, {scan / p50:.1f} × a decision")
    each = [[float(np.quantile(found, level)) for level in (0.5, 0.99)] for found, _ in runs]
    figures = {"p50_s": p50, "p99_s": p99, "by_seed": each, "whole_queue_s": scan, "ratio": scan / p50}
    path = write_report("decision_latency", figures, arguments.json)
    figure, axes = plt.subplots(figsize=(6, 3.4))
    axes.hist(times * 1e6, bins=80, range=(0, max(300.0, p99 * 1.2e6)), color="#c8502f")
    axes.set_xlabel("microseconds a decision")
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=140)
    print(f"figures: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
