"""The declared workload of the routing and ETA benchmarks: real arrivals, variants and shapes by a seeded rule.

Arrivals and token counts come from a production LLM service's hour (the CSV given by `--trace`: `arrival_s`,
`context_tokens`, `generated_tokens`); without it a synthetic hour with the same statistics stands in, and is said to
be synthetic. The rule: each request's variant is drawn anew from a Zipf popularity over `VARIANTS` variants, so most
consecutive requests change model; the prompt's tokens pick the resolution by quantile, the generated tokens the
number of frames; seconds are `fixed + steps · (b·n + c·n²)` of the drawn variant.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from cluster.simulation.fleet import Fleet, FleetPool, FleetVariant
from cluster.simulation.trace import Trace, trace_from
from schemas.errors import ConfigError

VARIANTS = 24
ZIPF = 1.05
SIDES = (256, 320, 384, 448, 512)
FRAMES = (9, 17, 25, 33, 49)
STEPS = (4, 8, 12)
SCATTER = 0.05
"""Of the logarithm of a task's seconds around its usual ones."""
_COLD_S = 35.0
_USUAL_ALLOWED = 3.0
_LOADS_ALLOWED = 2.0


def arrivals_from(path: Path | None, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """(arrival_s, context tokens, generated tokens, whether they are synthetic)."""
    if path is None:
        return (*_synthetic(seed), True)
    table = pyarrow.csv.read_csv(path)
    for name in ("arrival_s", "context_tokens", "generated_tokens"):
        if name not in table.column_names:
            raise ConfigError(f"{path}: no column {name!r}; available: {', '.join(table.column_names)}")
    arrival_s, context, generated = (
        table[name].to_numpy() for name in ("arrival_s", "context_tokens", "generated_tokens")
    )
    return arrival_s.astype(float), context.astype(float), generated.astype(float), False


def fleet() -> Fleet:
    """64 accelerators of four types, cold loads of 35 s, warm ones of 3 s."""
    kinds = (
        ("h100", 12, 2.6, 80, 4.0),
        ("a100", 16, 1.5, 80, 2.2),
        ("l40s", 20, 1.0, 48, 1.3),
        ("l4", 16, 0.4, 24, 0.6),
    )
    return Fleet(
        pools=tuple(
            FleetPool(
                name=name,
                accelerator=name.upper(),
                count=count,
                speed=speed,
                load_warm_s=3,
                load_cold_s=_COLD_S,
                host_cache=2,
                price_usd_per_hour=usd,
            )
            for name, count, speed, _, usd in kinds
        ),
        variants=_variants(),
    )


def _variants() -> dict[str, FleetVariant]:
    """Eight families of three sizes; the larger sizes fall back on the smaller ones of their family."""
    sizes = (("large", 1.6, 0.9), ("base", 1.0, 0.6), ("turbo", 0.45, 0.4))
    found = {}
    for family in range(VARIANTS // len(sizes)):
        for place, (size, factor, quality) in enumerate(sizes):
            found[f"f{family}-{size}"] = FleetVariant(
                fallbacks=tuple(f"f{family}-{smaller}" for smaller, _, _ in sizes[place + 1 :]),
                time_factor=factor,
                quality=quality,
            )
    return found


def workload(path: Path | None, seed: int, tasks: int | None = None) -> Trace:
    """The trace of one seed. A task is on time within two cold loads and three times its family's usual seconds."""
    arrival_s, context, generated, synthetic = arrivals_from(path, seed)
    if tasks is not None:
        arrival_s, context, generated = arrival_s[:tasks], context[:tasks], generated[:tasks]
    random = np.random.default_rng((seed, 7))
    names = list(_variants())
    popularity = 1.0 / np.arange(1, VARIANTS + 1) ** ZIPF
    order = random.permutation(VARIANTS)
    drawn = order[random.choice(VARIANTS, size=len(arrival_s), p=popularity / popularity.sum())]
    factor = np.array([variant.time_factor for variant in _variants().values()])[drawn]
    family = 0.7 + 0.6 * random.random(VARIANTS // 3)
    side = np.array(SIDES)[_by_quantile(context, len(SIDES))]
    frames = np.array(FRAMES)[_by_quantile(generated, len(FRAMES))]
    steps = random.choice(STEPS, size=len(arrival_s), p=(0.3, 0.5, 0.2))
    tokens = (side / 16) ** 2 * ((frames - 1) / 8 + 1)
    usual_s = factor * family[drawn // 3] * (0.6 + steps * (1.6e-4 * tokens + 1.2e-8 * tokens**2))
    exec_s = usual_s * np.exp(random.normal(0, SCATTER, len(arrival_s)))
    table = pa.table(
        {
            "arrival_s": arrival_s,
            "variant": [names[variant] for variant in drawn],
            "exec_s": exec_s,
            "deadline_s": _LOADS_ALLOWED * _COLD_S + _USUAL_ALLOWED * usual_s,
            "width": side,
            "height": side,
            "frames": frames,
            "steps": steps,
        }
    )
    trace = trace_from(table, str(path or "synthetic"))
    return Trace(**{**trace.__dict__, "synthetic": synthetic})


def speed_at(load: float, trace: Trace, of: Fleet) -> float:
    """The speed at which the trace asks for this share of what the fleet can do, loads not counted."""
    return load * trace.span_s * of.speed / float(trace.exec_s.sum())


def usual_s(trace: Trace) -> np.ndarray:
    """The median seconds on the reference accelerator of each task of a `workload`: what an oracle may know."""
    return (trace.allowance_s - _LOADS_ALLOWED * _COLD_S) / _USUAL_ALLOWED


def _by_quantile(values: np.ndarray, classes: int) -> np.ndarray:
    # Heavier classes are rarer: half of all requests are in the first two.
    edges = np.quantile(values, np.cumsum([0.3, 0.25, 0.2, 0.15])[: classes - 1])
    return np.searchsorted(edges, values, side="left")


def _synthetic(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """19,000 arrivals in an hour whose rate wanders as the real one's does; lognormal token counts."""
    random = np.random.default_rng((seed, 11))
    minutes = np.cumsum(random.normal(0, 0.12, 60))
    rate = np.exp(minutes - minutes.mean())
    counts = random.poisson(19_000 * rate / rate.sum())
    arrival_s = np.sort(np.concatenate([60 * (minute + random.random(count)) for minute, count in enumerate(counts)]))
    context = np.exp(random.normal(6.9, 0.95, len(arrival_s)))
    generated = np.exp(random.normal(4.9, 0.75, len(arrival_s)))
    return arrival_s, context, generated
