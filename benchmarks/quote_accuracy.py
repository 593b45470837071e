"""How far is a quote from what a model call takes, for shapes that were measured and for shapes that were not?

    python -m benchmarks.quote_accuracy [--quick] [--rounds N] [--json FILE]

Real diffusers pipelines (the embedded variants, on one CPU thread) render several shapes, steps and batches, round by
round, all calls of a round after one another, so that whatever else the machine does hits all alike. Profiles are
fitted as `rushes calibrate` fits them, to the least of the even rounds; errors are against the least of the odd ones.
Unseen means that no call of the shape was fitted, seen that some were. Baselines: the prior from the architecture, and
the nearest measured shape, scaled by its tokens.

Seconds are CPU seconds of the process: on an idle machine they are the wall's, on a shared one they leave out most of
what the others took. The least of a call's rounds, since others' load only ever adds. The same from wall seconds stands
beside it, and so does how far the rounds are from each other, which no quote can be better than.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: as many threads as Ray gives these variants' actors

import numpy as np
from rich.console import Console
from rich.table import Table

from actors.calibrate import Timed, time_calls
from benchmarks.report import write_report
from cluster.cost.fit import Measured, fit_profile
from cluster.cost.model import Load, predict
from models.loader import load
from schemas.catalog import CostProfile, Variant, shipped_catalog
from schemas.shape import Shape

VARIANTS = ("shapes", "tiny-random")
SHAPES = ((64, 64, 5), (64, 64, 17), (96, 64, 17), (64, 96, 25), (96, 96, 17), (64, 64, 33), (96, 96, 33))
CALLS = ((4, 1), (8, 1), (16, 1), (8, 2), (8, 4))  # steps, batch
GOAL_SEEN, GOAL_UNSEEN = 0.03, 0.08

Predictor = Callable[[Measured], float]


def timed(name: str, shapes: Sequence[Shape], rounds: int) -> tuple[Variant, list[Timed]]:
    """All calls of one variant."""
    variant = shipped_catalog()[name]
    model = load(variant, device="cpu")
    kinds = [(shape, steps, batch) for shape in shapes for steps, batch in CALLS]
    return variant, time_calls(model, kinds, rounds)


def least(calls: Sequence[Timed], rounds: slice, *, wall: bool) -> list[Measured]:
    """One call of each kind: the least of its seconds over the rounds."""
    return [
        Measured(
            c.shape, c.steps, c.guidance, c.batch, min(c.wall_s[rounds]) if wall else float(np.median(c.cpu_s[rounds]))
        )
        for c in calls
    ]


def fitted(variant: Variant, calls: Sequence[Measured]) -> Predictor:
    """What `rushes calibrate` would predict from."""
    cost, curve = fit_profile(variant, calls, "cpu", 1.0, 0.1)
    entry = variant.model_copy(update={"cost": cost, "batch_curve": curve})
    return lambda call: _said(entry, call)


def prior(variant: Variant) -> Predictor:
    """The architecture's, nothing measured."""
    told = CostProfile(parameters_b=variant.cost.parameters_b, hidden=variant.cost.hidden, layers=variant.cost.layers)
    entry = variant.model_copy(update={"cost": told, "batch_curve": ()})
    return lambda call: _said(entry, call)


def nearest(variant: Variant, calls: Sequence[Measured]) -> Predictor:
    """The call of the same steps and batch whose shape is nearest in tokens, scaled by tokens."""
    tokens = variant.latent.tokens

    def said(call: Measured) -> float:
        alike = [c for c in calls if (c.steps, c.batch) == (call.steps, call.batch)]
        best = min(alike, key=lambda c: (abs(np.log(tokens(c.shape) / tokens(call.shape))), str(c.shape)))
        return best.seconds * tokens(call.shape) / tokens(best.shape)

    return said


def _said(variant: Variant, call: Measured) -> float:
    return predict(variant, "cpu", call.shape, call.steps, call.guidance, call.batch, load=Load.NONE).execution_s


def errors(variant: Variant, train: Sequence[Measured], test: Sequence[Measured]) -> dict[str, list[float]]:
    """Relative errors by method: seen, unseen and the baselines."""
    found: dict[str, list[float]] = {"seen": [], "unseen": [], "prior": [], "nearest": []}
    seen = fitted(variant, train)
    for shape in dict.fromkeys(call.shape for call in test):
        others = [call for call in train if call.shape != shape]
        methods = {"unseen": fitted(variant, others), "prior": prior(variant), "nearest": nearest(variant, others)}
        for call in (call for call in test if call.shape == shape):
            for name, said in {"seen": seen, **methods}.items():
                found[name].append(abs(said(call) / call.seconds - 1))
    return found


def interval(values: Sequence[float], random: np.random.Generator) -> tuple[float, float]:
    """95 % of bootstrapped medians."""
    draws = np.median(random.choice(np.array(values), size=(2000, len(values))), axis=1)
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def main() -> None:
    """Print a table, write JSON and a plot."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four shapes, four rounds")
    parser.add_argument("--rounds", type=int, default=10, help="half of them are fitted, half predicted")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    shapes = [Shape(width=w, height=h, frames=f) for w, h, f in (SHAPES[1:5] if arguments.quick else SHAPES)]
    rounds = 4 if arguments.quick else arguments.rounds
    random = np.random.default_rng(0)
    every: dict[str, dict[str, list[float]]] = {"cpu": {}, "wall": {}}
    runs: dict[str, Any] = {}
    for name in VARIANTS:
        variant, calls = timed(name, shapes, rounds)
        runs[name] = [
            {"shape": str(c.shape), "steps": c.steps, "batch": c.batch, "cpu_s": c.cpu_s, "wall_s": c.wall_s}
            for c in calls
        ]
        for clock in every:
            train, test = (least(calls, slice(start, None, 2), wall=clock == "wall") for start in (0, 1))
            for method, mine in errors(variant, train, test).items():
                every[clock].setdefault(method, []).extend(mine)
            floor = [abs(a.seconds / b.seconds - 1) for a, b in zip(train, test, strict=True)]
            every[clock].setdefault("the rounds' own scatter", []).extend(floor)
    table = Table("method", "clock", "error p50 (95 %)", "p90", "÷ seen", "goal")
    figures: dict[str, Any] = {}
    goals = {"seen": GOAL_SEEN, "unseen": GOAL_UNSEEN}
    for clock, methods in every.items():
        seen_p50 = float(np.median(methods["seen"]))
        for method, mine in methods.items():
            p50, p90 = (float(np.quantile(mine, level)) for level in (0.5, 0.9))
            low, high = interval(mine, random)
            goal = goals.get(method) if clock == "cpu" else None
            verdict = "" if goal is None else f"≤ {goal:.0%} {'met' if p50 <= goal else 'MISSED'}"
            told = f"{p50:.1%} ({low:.1%} … {high:.1%})"
            table.add_row(method, clock, told, f"{p90:.1%}", f"{p50 / seen_p50:.1f}", verdict)
            figures[f"{method} ({clock})"] = {"p50": p50, "p90": p90, "interval": (low, high), "calls": len(mine)}
    Console().print(table)
    path = write_report("quote_accuracy", {"goals": goals, "errors": figures, "runs": runs}, arguments.json)
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for method, mine in every["cpu"].items():
        axes.plot(np.sort(mine), np.linspace(0, 1, len(mine)), label=method)
    axes.set_xscale("log")
    shares = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
    axes.set_xticks(shares, [f"{share:.3g}" for share in shares])
    axes.minorticks_off()
    axes.set_xlim(5e-4)
    axes.set_xlabel("relative error of a quote")
    axes.set_ylabel("share of calls")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=140)
    print(f"figures: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
