"""What a simulation is judged by: punctuality, waits, loads, forecasts and bills, as values that become JSON."""

import math
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from cluster.simulation.fleet import Fleet
from cluster.simulation.punctuality import Fates, Punctuality, worth
from cluster.simulation.trace import Floats, Ints, Trace
from cluster.simulation.variants import variant_table

ON_TIME_SHARE = 0.90
"""λ90 is the highest speed at which this share of all tasks is on time."""


class Outcome:
    """What happened to each task of one run, as lists by the task's number."""

    def __init__(self, tasks: int, machines: int) -> None:
        nan = math.nan
        self.machines = machines
        self.start_s = [nan] * tasks
        self.done_s = [nan] * tasks
        self.load_s = [0.0] * tasks
        self.run_s = [0.0] * tasks
        self.machine = [-1] * tasks
        self.variant = [-1] * tasks
        self.refused = [False] * tasks
        self.estimate_s = [nan] * tasks
        self.p90_s = [nan] * tasks
        self.raw_s = [nan] * tasks
        self.own_s = [nan] * tasks  # predicted at admission, as is raw_s
        self.completions: list[int] = []
        self.retries: list[tuple[int, int, float]] = []  # (task, machine, seconds)
        self.interrupted: list[int] = []  # tasks that lost their accelerator, running or waiting
        self.restarted_after_s: list[float] = []  # … and how long after its death each was started again
        self.never_restarted = 0
        self.loads_warm = 0
        self.loads_cold = 0
        self.wall_s = 0.0
        self.on_time_share = nan

    def wasted(self, task: int, machine: int, seconds: float) -> None:
        """An attempt that was lost with its machine."""
        self.retries.append((task, machine, max(0.0, seconds)))
        self.start_s[task] = math.nan


@dataclass(frozen=True)
class SpeedPoint:
    """The share of tasks on time at one speed of the trace."""

    speed: float
    on_time_share: float


@dataclass(frozen=True)
class EtaReport:
    """Relative errors of the frozen estimates, and how often the 90 % bound held."""

    tasks: int = 0
    error_p50: float = math.nan
    error_p90: float = math.nan
    coverage: float = math.nan
    coverage_by_load_quartile: tuple[float, ...] = ()
    coverage_worst_window: float = math.nan
    bound_over_estimate: float = math.nan


@dataclass(frozen=True)
class Measures:
    """One seed."""

    tasks: int
    completed: int
    refused: int
    lost: int
    on_time_share: float
    wait_s_p50: float
    wait_s_p90: float
    wait_s_p99: float
    latency_s_p50: float
    latency_s_p90: float
    latency_s_p99: float
    loads_cold: int
    loads_warm: int
    downgraded: int
    interrupted: int
    recovery_s: float
    starved: int
    longest_wait_s: float
    worst_variant_on_time_share: float
    worst_tenant_on_time_share: float
    utilisation_execution: float
    utilisation_load: float
    fleet_usd: float
    billed_usd: float
    wall_s: float
    eta: EtaReport
    shares: Punctuality
    tenants: dict[str, Punctuality]


@dataclass(frozen=True)
class Report:
    """What `rushes simulate` writes."""

    policy: str
    speed: float
    seeds: int
    tasks: int
    span_s: float
    accelerators: int
    deadlines: str
    synthetic: bool
    lambda90: float | None
    on_time_share: float  # this and the next five are means over the seeds
    as_asked_share: float
    downgraded_share: float
    quality_goodput: float
    refused_share: float
    admitted_late_share: float
    measures: tuple[Measures, ...]
    speeds: tuple[SpeedPoint, ...] = field(default=())

    def as_json(self) -> dict[str, object]:
        """Plain values; nan and infinity become null."""
        plain = _plain(asdict(self))
        assert isinstance(plain, dict)
        return plain


def judge(trace: Trace, outcome: Outcome) -> float:
    """The share of all tasks, refused ones included, that were done by their deadline."""
    done_s = np.array(outcome.done_s)
    share = float(np.mean(done_s <= trace.arrival_s + trace.allowance_s)) if len(trace) else 1.0
    outcome.on_time_share = share
    return share


def fates(trace: Trace, fleet: Fleet, outcome: Outcome) -> Fates:
    """`trace` is the one that was run, sped up and with its deadlines."""
    rendered = np.array(outcome.variant, dtype=np.int64)
    completed = np.isfinite(np.array(outcome.done_s))
    return Fates(
        on_time=np.array(outcome.done_s) <= trace.arrival_s + trace.allowance_s,
        refused=np.array(outcome.refused, dtype=bool),
        downgraded=completed & (rendered != trace.variant),
        worth=worth(trace.variant, rendered, variant_table(trace.names, fleet).quality),
    )


def summarise(
    policy: str,
    speed: float,
    trace: Trace,
    deadlines: str,
    fleet: Fleet,
    measured: list[Measures],
    points: tuple[SpeedPoint, ...],
) -> Report:
    """Put the seeds' measures together; `trace` is the one that was run."""
    good = [point.speed for point in points if point.on_time_share >= ON_TIME_SHARE]

    def mean(share: str) -> float:
        return float(np.mean([getattr(one.shares, share) for one in measured]))

    return Report(
        policy=policy,
        speed=speed,
        seeds=len(measured),
        tasks=len(trace),
        span_s=trace.span_s,
        accelerators=fleet.count,
        deadlines=deadlines,
        synthetic=trace.synthetic,
        lambda90=max(good) if good else None,
        on_time_share=mean("on_time_share"),
        as_asked_share=mean("as_asked_share"),
        downgraded_share=mean("downgraded_share"),
        quality_goodput=mean("quality_goodput"),
        refused_share=mean("refused_share"),
        admitted_late_share=mean("admitted_late_share"),
        measures=tuple(measured),
        speeds=points,
    )


def measure(trace: Trace, fleet: Fleet, outcome: Outcome) -> Measures:
    """Everything about one run; `trace` is the one that was run, sped up and with its deadlines."""
    done_s, start_s = np.array(outcome.done_s), np.array(outcome.start_s)
    completed = np.isfinite(done_s)
    found = fates(trace, fleet, outcome)
    on_time, refused = found.on_time, found.refused
    wait_s = (start_s - trace.arrival_s)[completed]
    latency_s = (done_s - trace.arrival_s)[completed]
    busy_s, load_s = np.array(outcome.run_s)[completed], np.array(outcome.load_s)[completed]
    until_s = float(np.nanmax(done_s)) if completed.any() else trace.span_s
    held_s = until_s * fleet.count
    fleet_usd, billed_usd = _bills(trace, fleet, outcome, until_s)
    recovery_s = math.nan
    if outcome.interrupted:
        recovery_s = math.inf if outcome.never_restarted else max(outcome.restarted_after_s)
    waited = wait_s > 10 * trace.allowance_s[completed]
    return Measures(
        tasks=len(trace),
        completed=int(completed.sum()),
        refused=int(refused.sum()),
        lost=int((~completed & ~refused).sum()),
        on_time_share=float(on_time.mean()),
        **_percentiles("wait_s", wait_s),
        **_percentiles("latency_s", latency_s),
        loads_cold=outcome.loads_cold,
        loads_warm=outcome.loads_warm,
        downgraded=int(found.downgraded.sum()),
        interrupted=len(outcome.interrupted),
        recovery_s=recovery_s,
        starved=int(waited.sum()),
        longest_wait_s=float(wait_s.max()) if len(wait_s) else 0.0,
        worst_variant_on_time_share=_worst(on_time, trace.variant),
        worst_tenant_on_time_share=_worst(on_time, trace.tenant),
        utilisation_execution=float(busy_s.sum()) / held_s if held_s else 0.0,
        utilisation_load=float(load_s.sum()) / held_s if held_s else 0.0,
        fleet_usd=fleet_usd,
        billed_usd=billed_usd,
        wall_s=outcome.wall_s,
        eta=judge_etas(trace, outcome),
        shares=found.of(),
        tenants=_by_tenant(trace, found),
    )


def _by_tenant(trace: Trace, found: Fates) -> dict[str, Punctuality]:
    counts = np.bincount(trace.tenant, minlength=len(trace.tenants))
    tasks = np.split(np.argsort(trace.tenant, kind="stable"), np.cumsum(counts)[:-1])
    return {name: found.of(own) for name, own in zip(trace.tenants, tasks, strict=True)}


def judge_etas(trace: Trace, outcome: Outcome, window: int = 1000) -> EtaReport:
    """Against what happened; quartiles are of the load at admission, windows are in the order of completion."""
    order = np.array(outcome.completions, dtype=np.int64)
    if not len(order):
        return EtaReport()
    order = order[np.isfinite(np.array(outcome.estimate_s)[order])]
    if not len(order):
        return EtaReport()
    actual_s = np.array(outcome.done_s)[order] - trace.arrival_s[order]
    estimate_s, p90_s = np.array(outcome.estimate_s)[order], np.array(outcome.p90_s)[order]
    error = np.abs(estimate_s - actual_s) / np.maximum(actual_s, 1e-9)
    held = actual_s <= p90_s
    quartile = load_quartiles(np.array(outcome.raw_s)[order], np.array(outcome.own_s)[order])
    windows = [held[at : at + window].mean() for at in range(0, len(held) - window + 1, window)]
    return EtaReport(
        tasks=len(order),
        error_p50=float(np.median(error)),
        error_p90=float(np.quantile(error, 0.9)),
        coverage=float(held.mean()),
        coverage_by_load_quartile=tuple(float(held[quartile == q].mean()) for q in range(4) if (quartile == q).any()),
        coverage_worst_window=float(min(windows)) if windows else float(held.mean()),
        bound_over_estimate=float(np.mean(p90_s / np.maximum(estimate_s, 1e-9))),
    )


def load_quartiles(raw_s: Floats, own_s: Floats) -> Ints:
    """0 to 3, by the load that a task met: what was predicted of it as a whole over its own part of that."""
    # As predicted: a depth that knew how long the task really took would sort tasks by their errors.
    depth = raw_s / np.maximum(own_s, 1e-9)
    return np.searchsorted(np.quantile(depth, [0.25, 0.5, 0.75]), depth)


def _bills(trace: Trace, fleet: Fleet, outcome: Outcome, until_s: float) -> tuple[float, float]:
    """(cost of the fleet, sum of the tasks' bills), by the rules of `quote.settle`, in arrays."""
    price = np.concatenate([np.full(pool.count, pool.price_usd_per_hour / 3600) for pool in fleet.pools])
    fleet_usd = float(price.sum() * until_s)
    completed = np.isfinite(np.array(outcome.done_s))
    done = np.flatnonzero(completed).tolist()
    task = np.array([*done, *(row[0] for row in outcome.retries)], dtype=np.int64)
    machine = np.array([*(outcome.machine[i] for i in done), *(row[1] for row in outcome.retries)], dtype=np.int64)
    run_s = np.array([*(outcome.run_s[i] for i in done), *(row[2] for row in outcome.retries)], dtype=np.float64)
    load_s = np.array([*(outcome.load_s[i] for i in done), *(0.0 for _ in outcome.retries)], dtype=np.float64)
    count = fleet.count
    held_s = np.bincount(machine, weights=run_s, minlength=count)
    idle_s = until_s - held_s - np.bincount(machine, weights=load_s, minlength=count)
    share = np.divide(run_s, held_s[machine], out=np.zeros_like(run_s), where=held_s[machine] > 0)
    own_usd = (run_s + load_s + share * idle_s[machine]) * price[machine]
    bills: Floats = np.bincount(task, weights=own_usd, minlength=len(trace)).astype(np.float64)
    unused_usd = float((idle_s * price)[held_s <= 0].sum())
    total = float(bills.sum())
    if total > 0:
        bills = bills * (1 + unused_usd / total)
        return fleet_usd, float(bills.sum())
    return fleet_usd, unused_usd


def _percentiles(name: str, values: Floats) -> dict[str, float]:
    levels = (50, 90, 99)
    found = np.percentile(values, levels) if len(values) else np.zeros(len(levels))
    return {f"{name}_p{level}": float(value) for level, value in zip(levels, found, strict=True)}


def _worst(on_time: npt.NDArray[np.bool_], code: Ints) -> float:
    counts = np.bincount(code)
    shares = np.bincount(code, weights=on_time)[counts > 0] / counts[counts > 0]
    return float(shares.min()) if len(shares) else 1.0


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
