"""What was promised to tasks and what came of it, as figures: records in, judgement out. Knows no endpoint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from cluster.simulation.report import load_quartiles

COVERAGE, COVERAGE_SLACK, LEAST_QUARTILE, MOST_BOUND, MOST_OF_SCATTER = 0.9, 0.02, 0.87, 1.5, 1.2
_LUCK_DRAWS = 10_000


@dataclass(frozen=True)
class PromiseRecord:
    """One accepted task. Instants are seconds since the epoch; what has not come is None."""

    kind: str
    tenant: str
    phase: int
    created_at: float
    eta_at: float
    eta_p90_at: float
    wait_s: float
    quoted_gpu_s: float
    quoted_usd: float = 0.0
    finished_at: float | None = None
    succeeded: bool = False
    billed_gpu_s: float = 0.0
    billed_usd: float = 0.0


@dataclass(frozen=True)
class Scatter:
    """How far repetitions of the same call are from the median of their kind, relative to it."""

    calls: int
    p50: float
    p90: float


@dataclass(frozen=True)
class PromiseFigures:
    """Errors are relative to what came. A task that failed is not judged; one that never ended has missed its bound."""

    tasks: int
    failed: int
    unfinished: int
    error_p50: float
    error_p90: float
    bias: float  # the median of log(what it took / estimate): above 0, tasks take longer than estimated
    coverage: float
    coverage_by_quartile: tuple[float, ...]
    load_by_quartile: tuple[float, ...]  # the median of promised wait over the task's own seconds
    coverage_by_phase: tuple[float, ...]
    bound_over_estimate: float
    quote_p50: float
    quote_p90: float
    worst_quartile_by_luck: float  # the median of the least quartile, were each bound kept at 90 % by itself


def scatter(repeated: Mapping[str, Sequence[float]]) -> Scatter:
    """Of the same call made again and again, by kind. Raises ValueError where no kind was repeated."""
    off = [
        abs(value / float(np.median(values)) - 1) for values in repeated.values() if len(values) > 1 for value in values
    ]
    if not off:
        raise ValueError("no call was repeated: nothing says how much repeating scatters")
    return Scatter(len(off), float(np.median(off)), float(np.quantile(off, 0.9)))


def took_by_kind(records: Iterable[PromiseRecord]) -> dict[str, list[float]]:
    """Seconds from creation to the end, of what succeeded."""
    took: dict[str, list[float]] = {}
    for one in records:
        if one.succeeded and one.finished_at is not None:
            took.setdefault(one.kind, []).append(one.finished_at - one.created_at)
    return took


def billed_by_kind(records: Iterable[PromiseRecord]) -> dict[str, list[float]]:
    """Billed GPU seconds of what succeeded."""
    billed: dict[str, list[float]] = {}
    for one in records:
        if one.succeeded:
            billed.setdefault(one.kind, []).append(one.billed_gpu_s)
    return billed


def judge(records: Sequence[PromiseRecord], *, seed: int = 0) -> PromiseFigures:
    """Raises ValueError where no task succeeded."""
    done = [one for one in records if one.succeeded and one.finished_at is not None]
    unfinished = [one for one in records if one.finished_at is None]
    if not done:
        raise ValueError(f"none of {len(records)} tasks succeeded: there is nothing to judge")
    finished_s = np.array([one.finished_at or 0.0 for one in done])
    took_s = np.maximum(finished_s - np.array([one.created_at for one in done]), 1e-3)
    estimate_s = np.maximum(np.array([one.eta_at - one.created_at for one in done]), 1e-3)
    error = np.abs(estimate_s - took_s) / took_s
    billed = [(one.quoted_gpu_s, one.billed_gpu_s) for one in done if one.billed_gpu_s > 0]
    quote = np.array([abs(quoted / bill - 1) for quoted, bill in billed]) if billed else np.array([float("nan")])
    judged = [*done, *unfinished]
    held = np.array([one.finished_at is not None and one.finished_at <= one.eta_p90_at for one in judged])
    own_s = np.maximum(np.array([one.quoted_gpu_s for one in judged]), 1e-3)
    wait_s = np.maximum(np.array([one.wait_s for one in judged]), 0.0)
    quartile = load_quartiles(own_s + wait_s, own_s)
    present = [q for q in range(4) if (quartile == q).any()]
    by_phase = groupby(sorted(zip((one.phase for one in judged), held.tolist(), strict=True)), key=lambda pair: pair[0])
    bound_s = np.array([one.eta_p90_at - one.created_at for one in done])
    return PromiseFigures(
        tasks=len(judged),
        failed=len(records) - len(judged),
        unfinished=len(unfinished),
        error_p50=float(np.median(error)),
        error_p90=float(np.quantile(error, 0.9)),
        bias=float(np.median(np.log(took_s / estimate_s))),
        coverage=float(held.mean()),
        coverage_by_quartile=tuple(float(held[quartile == q].mean()) for q in present),
        load_by_quartile=tuple(float(np.median((wait_s / own_s)[quartile == q])) for q in present),
        coverage_by_phase=tuple(float(np.mean([kept for _, kept in pairs])) for _, pairs in by_phase),
        bound_over_estimate=float(np.mean(bound_s / estimate_s)),
        quote_p50=float(np.median(quote)),
        quote_p90=float(np.quantile(quote, 0.9)),
        worst_quartile_by_luck=_luck([int((quartile == q).sum()) for q in present], seed),
    )


def _luck(sizes: Sequence[int], seed: int) -> float:
    random = np.random.default_rng(seed)
    draws = random.binomial(sizes, COVERAGE, size=(_LUCK_DRAWS, len(sizes))) / np.array(sizes)
    return float(np.median(draws.min(axis=1)))


@dataclass(frozen=True)
class Claim:
    """A figure against its goal."""

    what: str
    value: str
    goal: str
    met: bool

    def __str__(self) -> str:
        return f"{'met   ' if self.met else 'MISSED'} {self.what}: {self.value} (goal {self.goal})"


def claims(found: PromiseFigures, idle: Scatter) -> tuple[Claim, ...]:
    """Every goal, met or not."""
    worst = min(found.coverage_by_quartile)
    quartiles = ", ".join(f"{share:.3f}" for share in found.coverage_by_quartile)
    rows = [
        Claim(
            "coverage of the 90 % bound",
            f"{found.coverage:.3f}",
            f"{COVERAGE} ± {COVERAGE_SLACK}",
            abs(found.coverage - COVERAGE) <= COVERAGE_SLACK + 1e-9,
        ),
        Claim(
            "worst quartile by load",
            f"{worst:.3f} of {quartiles} (luck alone: {found.worst_quartile_by_luck:.3f})",
            f"≥ {LEAST_QUARTILE}",
            worst >= LEAST_QUARTILE,
        ),
        Claim(
            "bound/estimate",
            f"{found.bound_over_estimate:.2f}",
            f"≤ {MOST_BOUND}",
            found.bound_over_estimate <= MOST_BOUND,
        ),
    ]
    for name, error, by_itself in (("p50", found.error_p50, idle.p50), ("p90", found.error_p90, idle.p90)):
        most = MOST_OF_SCATTER * by_itself
        goal = f"≤ {most:.1%}, {MOST_OF_SCATTER} × the idle scatter of {by_itself:.1%}"
        rows.append(Claim(f"estimate error {name}", f"{error:.1%}", goal, error <= most))
    return tuple(rows)
