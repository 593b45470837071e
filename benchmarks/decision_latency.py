"""How long does one routing decision take with 1,000 replicas and 10,000 queued tasks?

    python -m benchmarks.decision_latency [--quick] [--json FILE]

Each timed call is the endpoint's: `Dispatcher.submit`, which filters, ranks, plans and queues. Between two of them a
replica finishes (not timed), so the queue stays as long. Garbage collection is on. The baseline reads the
whole queue once, as a plan without running totals would.

Both clocks are shown: the wall's, and this thread's CPU seconds. On a machine that is shared the wall's highest
percentiles are those of whoever else had the core; goals are judged by both, and the line says what else was running.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import write_report
from benchmarks.workload import fleet
from cluster.dispatch import Dispatcher, Group
from cluster.policies import variant_of
from cluster.terms import Terms, Wanted
from cluster.timeline import FixedMemory

REPLICAS, QUEUED, VARIANTS = 1000, 10_000, 8
GOAL_P50_S, GOAL_P99_S = 50e-6, 250e-6


def measured(decisions: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(wall seconds of each decision, its CPU seconds, seconds of reading the whole queue once)."""
    random = np.random.default_rng(seed)
    names = list(fleet().variants)[:VARIANTS]
    groups = [Group(pool.name, pool.price_usd_per_hour, pool.vram_gib, pool.speed) for pool in fleet().pools]
    dispatcher = Dispatcher(
        [variant_of(name, fleet()) for name in names], groups, estimate=lambda pool, _: 10.0 / len(pool.accelerator)
    )
    kinds = [(number, groups[number % len(groups)].accelerator, number // 4 % VARIANTS) for number in range(REPLICAS)]
    dispatcher.gained([(number, kind, FixedMemory(variant)) for number, kind, variant in kinds], 0.0)
    terms = [Terms(variant=name) for name in names]
    drawn = random.integers(0, VARIANTS, REPLICAS + QUEUED + decisions).tolist()
    for task in range(REPLICAS + QUEUED):
        dispatcher.submit(task, Wanted(terms[drawn[task]], task=task), 0.0)
    wall_s, cpu_s = np.zeros(decisions), np.zeros(decisions)
    for turn in range(decisions):
        task, now_s = REPLICAS + QUEUED + turn, 1.0 + turn * 0.003
        dispatcher.free(int(random.integers(REPLICAS)), now_s)
        wanted = Wanted(terms[drawn[task]], deadline_s=now_s + 1e6, task=task)
        began, began_cpu = time.perf_counter(), time.thread_time()
        dispatcher.submit(task, wanted, now_s)
        cpu_s[turn], wall_s[turn] = time.thread_time() - began_cpu, time.perf_counter() - began
    began = time.perf_counter()
    sum(planned.work_s for lane in dispatcher.timelines.lanes for planned in lane.queue)
    return wall_s, cpu_s, time.perf_counter() - began


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
    clocks = {name: np.concatenate([run[place] for run in runs]) for place, name in enumerate(("wall", "cpu"))}
    scan_s = float(np.mean([run[2] for run in runs]))
    figures: dict[str, Any] = {"load_average": os.getloadavg()[0], "whole_queue_s": scan_s}
    for place, (name, times) in enumerate(clocks.items()):
        each = [[float(np.quantile(run[place], level)) for level in (0.5, 0.99)] for run in runs]
        p50, p99 = (float(np.quantile(times, level)) for level in (0.5, 0.99))
        lows, highs = np.min(each, axis=0) * 1e6, np.max(each, axis=0) * 1e6
        marks = ["met" if found <= goal else "MISSED" for found, goal in ((p50, GOAL_P50_S), (p99, GOAL_P99_S))]
        print(
            f"{name:4s} p50 {p50 * 1e6:.0f} µs [{lows[0]:.0f} … {highs[0]:.0f}] (≤ {GOAL_P50_S * 1e6:.0f} {marks[0]}), "
            f"p99 {p99 * 1e6:.0f} µs [{lows[1]:.0f} … {highs[1]:.0f}] (≤ {GOAL_P99_S * 1e6:.0f} {marks[1]})"
        )
        figures[name] = {"p50_s": p50, "p99_s": p99, "by_seed": each, "ratio": scan_s / p50}
    ratio = scan_s / float(np.median(clocks["wall"]))
    print(f"reading the whole queue once: {scan_s * 1e6:.0f} µs, {ratio:.1f} × a decision")
    print(f"load average of the machine: {figures['load_average']:.1f} on {os.cpu_count()} CPUs")
    times, p99 = clocks["wall"], float(np.quantile(clocks["wall"], 0.99))
    path = write_report("decision_latency", figures, arguments.json)
    figure, axes = plt.subplots(figsize=(6, 3.4))
    axes.hist(times * 1e6, bins=80, range=(0, max(300.0, p99 * 1.2e6)), color="#c8502f")
    axes.set_yscale("log")
    axes.set_ylabel("decisions")
    axes.set_xlabel("microseconds a decision, by the wall clock")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=140)
    print(f"figures: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
