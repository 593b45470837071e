"""Quotes (before) and bills (after): money = (load share + execution + retries + idle share) × price.

The bills of a period add up to what the fleet cost in it, so idle time is always paid by somebody:
by the tasks that ran on the idle replica, in proportion to the seconds they held it; where none ran, by all tasks
of the period, in proportion to the rest of their bills; where there was no task at all, by the house.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cluster.cost import Cost, Load, best_batch, predict
from schemas.catalog import Variant
from schemas.shape import Shape

HOUSE = "(house)"


@dataclass(frozen=True, slots=True)
class Quote:
    """What `tasks` tasks are said to hold and to cost. Quotes add up."""

    tasks: int = 0
    gpu_s: float = 0.0
    load_usd: float = 0.0
    execution_usd: float = 0.0
    retries_usd: float = 0.0
    idle_usd: float = 0.0

    @property
    def usd(self) -> float:
        return self.load_usd + self.execution_usd + self.retries_usd + self.idle_usd

    def __add__(self, other: "Quote") -> "Quote":
        return Quote(
            self.tasks + other.tasks,
            self.gpu_s + other.gpu_s,
            self.load_usd + other.load_usd,
            self.execution_usd + other.execution_usd,
            self.retries_usd + other.retries_usd,
            self.idle_usd + other.idle_usd,
        )


@dataclass(frozen=True, slots=True)
class Overheads:
    """What comes on top of execution, as shares learnt from the fleet's past bills."""

    tasks_per_load: float = math.inf
    retry_rate: float = 0.0  # attempts that fail, of all attempts
    idle_share: float = 0.0  # of the seconds that are paid for

    def __post_init__(self) -> None:
        if self.tasks_per_load <= 0 or not 0 <= self.retry_rate < 1 or not 0 <= self.idle_share < 1:
            raise ValueError(f"{self}: tasks_per_load > 0, retry_rate and idle_share in [0, 1)")


NO_OVERHEADS = Overheads()


def quote(cost: Cost, price_usd_per_hour: float, overheads: Overheads = NO_OVERHEADS, *, tasks: int = 1) -> Quote:
    """What `tasks` tasks cost when each model call (of `cost.batch` tasks) costs `cost`.

    `tasks` smaller than the batch pays for its share of the call.
    """
    load_s = cost.load_s * tasks / overheads.tasks_per_load
    execution_s = cost.per_clip_s * tasks
    retries_s = execution_s * overheads.retry_rate / (1 - overheads.retry_rate)
    idle_s = (load_s + execution_s + retries_s) * overheads.idle_share / (1 - overheads.idle_share)
    usd_per_s = price_usd_per_hour / 3600
    return Quote(
        tasks=tasks,
        gpu_s=load_s + execution_s + retries_s + idle_s,
        load_usd=load_s * usd_per_s,
        execution_usd=execution_s * usd_per_s,
        retries_usd=retries_s * usd_per_s,
        idle_usd=idle_s * usd_per_s,
    )


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """`tasks` tasks of a manifest that are alike: one group."""

    variant: Variant
    accelerator: str
    shape: Shape
    steps: int
    guidance: float
    tasks: int


def quote_manifest(
    lines: Iterable[QuoteLine], overheads: Overheads = NO_OVERHEADS, *, loads: dict[str, int] | None = None
) -> Quote:
    """The quote of a whole manifest, each group in its best batch.

    `loads` says how many times each variant is loaded (its actors), once when it is not named.
    """
    lines = list(lines)
    per_variant: defaultdict[str, int] = defaultdict(int)
    for line in lines:
        per_variant[line.variant.name] += line.tasks
    total = Quote()
    for line in lines:
        if line.tasks == 0:
            continue
        batch = min(line.tasks, best_batch(line.variant, line.shape, accelerator=line.accelerator))
        cost = predict(line.variant, line.accelerator, line.shape, line.steps, line.guidance, batch, load=Load.COLD)
        times = (loads or {}).get(line.variant.name, 1)
        shares = Overheads(
            tasks_per_load=per_variant[line.variant.name] / times if times else math.inf,
            retry_rate=overheads.retry_rate,
            idle_share=overheads.idle_share,
        )
        total += quote(cost, line.variant.price_usd_per_gpu_hour, shares, tasks=line.tasks)
    return total


class Spent(StrEnum):
    """What a replica's seconds went into."""

    LOAD = "load"
    EXECUTION = "execution"
    RETRY = "retry"  # an attempt that failed


@dataclass(frozen=True, slots=True)
class Held:
    """A replica that was paid for from `from_s` to `to_s`."""

    replica: str
    price_usd_per_hour: float
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Busy:
    """A span of one replica. Tasks of one call share it equally; a load without tasks is shared by what it served:
    the tasks that ran on the replica from this load to the next."""

    replica: str
    spent: Spent
    from_s: float
    to_s: float
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bill:
    """What one task did cost."""

    task: str
    gpu_s: float = 0.0
    load_usd: float = 0.0
    execution_usd: float = 0.0
    retries_usd: float = 0.0
    idle_usd: float = 0.0

    @property
    def usd(self) -> float:
        return self.load_usd + self.execution_usd + self.retries_usd + self.idle_usd


class _Tab:
    """One task's bill while it is being added up."""

    __slots__ = ("execution_usd", "gpu_s", "idle_usd", "load_usd", "retries_usd")

    def __init__(self) -> None:
        self.gpu_s = self.load_usd = self.execution_usd = self.retries_usd = self.idle_usd = 0.0

    @property
    def usd(self) -> float:
        return self.load_usd + self.execution_usd + self.retries_usd + self.idle_usd


def fleet_usd(held: Iterable[Held]) -> float:
    """What the replicas cost, whatever they did."""
    return math.fsum((replica.to_s - replica.from_s) * replica.price_usd_per_hour / 3600 for replica in held)


def settle(held: Sequence[Held], busy: Sequence[Busy]) -> tuple[Bill, ...]:
    """The bill of every task, sorted by task; together they are `fleet_usd(held)`.

    Raises ValueError for a span outside its replica's time, or two that overlap.
    """
    spans: defaultdict[str, list[Busy]] = defaultdict(list)
    for span in busy:
        spans[span.replica].append(span)
    tabs: defaultdict[str, _Tab] = defaultdict(_Tab)
    orphans_usd: list[float] = []
    replicas = {replica.replica for replica in held}
    if len(replicas) != len(held) or not spans.keys() <= replicas:
        raise ValueError("each replica is held once, and only held replicas are busy")
    for replica in held:
        orphans_usd.append(_settle_replica(replica, spans[replica.replica], tabs))
    orphan_usd = math.fsum(orphans_usd)
    paid_usd = math.fsum(tab.usd for tab in tabs.values())
    if orphan_usd and paid_usd:
        for tab in tabs.values():
            tab.idle_usd += orphan_usd * tab.usd / paid_usd
    elif orphan_usd:
        tabs[HOUSE].idle_usd += orphan_usd
    return tuple(
        Bill(task, tab.gpu_s, tab.load_usd, tab.execution_usd, tab.retries_usd, tab.idle_usd)
        for task, tab in sorted(tabs.items())
    )


def _settle_replica(replica: Held, spans: list[Busy], tabs: defaultdict[str, _Tab]) -> float:
    """Bill one replica's seconds; returns what nobody there can pay."""
    usd_per_s = replica.price_usd_per_hour / 3600
    spans = sorted(spans, key=lambda span: (span.from_s, span.to_s))
    ends_s = replica.from_s
    for span in spans:
        if span.from_s < ends_s - 1e-9 or span.to_s < span.from_s or span.to_s > replica.to_s + 1e-9:
            raise ValueError(f"{span}: overlaps, or outside {replica.from_s:g} to {replica.to_s:g} s")
        ends_s = span.to_s
    seconds_here: defaultdict[str, float] = defaultdict(float)
    served: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    loaded = -1
    for index, span in enumerate(spans):
        if span.spent is Spent.LOAD:
            loaded = index
            continue
        for task in span.tasks:
            share_s = (span.to_s - span.from_s) / len(span.tasks)
            tab = tabs[task]
            tab.gpu_s += share_s
            if span.spent is Spent.RETRY:
                tab.retries_usd += share_s * usd_per_s
            else:
                tab.execution_usd += share_s * usd_per_s
            seconds_here[task] += share_s
            served[loaded][task] += share_s
    idle_s = (replica.to_s - replica.from_s) - math.fsum(seconds_here.values())
    for index, span in enumerate(spans):
        if span.spent is not Spent.LOAD:
            continue
        payers = dict.fromkeys(span.tasks, 1.0) or served.get(index, {})
        whole = math.fsum(payers.values())
        for task, weight in payers.items():
            if whole > 0:
                share_s = (span.to_s - span.from_s) * weight / whole
                tabs[task].load_usd += share_s * usd_per_s
                tabs[task].gpu_s += share_s
        if whole > 0:
            idle_s -= span.to_s - span.from_s
    whole = math.fsum(seconds_here.values())
    if whole <= 0:
        return idle_s * usd_per_s
    for task, weight in seconds_here.items():
        tabs[task].idle_usd += idle_s * weight / whole * usd_per_s
    return 0.0
