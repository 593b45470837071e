"""The fleet as one ingress quotes it: the dispatcher's last note, moved on by the clock and by its own acceptances."""

import math
from collections import deque

from cluster.cost import seconds_on
from cluster.routing import Estimate, Router
from cluster.terms import PoolView, Terms
from schemas.catalog import Catalog, Variant
from serve.config import ServeConfig
from serve.fleet import FleetReport, PoolReport

_NOTICE_S = 0.2  # a task accepted so long before a note may not be in it yet


class ViewedPool:
    """A pool that `cluster.routing` can read, whose state moves on."""

    __slots__ = (
        "_own",
        "_own_s",
        "accelerator",
        "at",
        "healthy",
        "load_s",
        "name",
        "price_usd_per_hour",
        "queued",
        "replicas",
        "variant",
        "vram_gib",
        "wait_s",
    )

    def __init__(self, name: str, variant: Variant, accelerator: str) -> None:
        self.name, self.variant, self.accelerator = name, variant, accelerator
        self.healthy = True
        self.price_usd_per_hour = 0.0
        self.vram_gib = 0.0
        self.wait_s = self.load_s = self.at = 0.0
        self.replicas = self.queued = 0
        self._own: deque[tuple[float, float]] = deque()  # (accepted at, seconds) since the note
        self._own_s = 0.0

    def take(self, report: PoolReport, at: float) -> None:
        """A newer note. What was accepted here before it is in it."""
        self.healthy, self.price_usd_per_hour = report.healthy, report.price_usd_per_hour
        self.replicas, self.queued = report.replicas, report.queued
        self.wait_s, self.load_s, self.at = report.backlog_s, 0.0 if report.replicas else report.load_s, at
        while self._own and self._own[0][0] < at - _NOTICE_S:
            self._own_s -= self._own.popleft()[1]
        if not self._own:
            self._own_s = 0.0

    def add(self, work_s: float, now_s: float) -> None:
        self._own.append((now_s, work_s))
        self._own_s += work_s

    @property
    def own_tasks(self) -> int:
        return len(self._own)

    def start_s(self, now_s: float) -> float:
        """When a task queued now would start: the backlog shrinks with the clock, and grows with what came since."""
        if not math.isfinite(self.wait_s):
            return math.inf
        waits_s = self.wait_s + self._own_s / max(1, self.replicas) - max(0.0, now_s - self.at)
        # Nothing is worked off while the model loads.
        return now_s + (max(0.0, waits_s) if self.replicas else self._own_s + self.wait_s) + self.load_s


class FleetView:
    """The pools of the served variants, and the routers over them. Not thread-safe: its owner has the lock."""

    def __init__(self, config: ServeConfig, served: Catalog, estimate: Estimate) -> None:
        self._served = served
        self._estimate = estimate
        self._accelerator = config.pools.accelerator
        limits = config.pools.max_replicas.items()
        self._off = {variant.name for name, most in limits if most < 1 and (variant := served.find(name)) is not None}
        self.report = FleetReport()
        self._pools: dict[str, ViewedPool] = {}
        self._routers: dict[bool, Router] = {}
        self._auto_modes = {mode for v in served.variants.values() if v.auto for mode in v.modes}
        self._rebuild(self.report)

    @property
    def pools(self) -> tuple[PoolView, ...]:
        return tuple(self._pools.values())

    def pool(self, name: str) -> ViewedPool:
        return self._pools[name]

    def queued(self, name: str, now_s: float) -> int:  # noqa: ARG002  (a queue is counted, not timed)
        """Tasks that come before one that is accepted now."""
        pool = self._pools[name]
        return pool.queued + pool.own_tasks

    def add(self, name: str, work_s: float, now_s: float) -> None:
        if name in self._pools:
            self._pools[name].add(work_s, now_s)

    def update(self, report: FleetReport) -> None:
        """A note of the dispatcher; one that is not newer changes nothing."""
        if report.at <= self.report.at:
            return
        self._rebuild(report)

    def router(self, terms: Terms) -> Router:
        """The router for these terms. Auto takes any where models are listed, or none of its own does it."""
        open_to_all = terms.variant == "auto" and (terms.allow is not None or terms.mode not in self._auto_modes)
        found = self._routers.get(open_to_all)
        if found is None:
            pools: list[PoolView] = list(self._pools.values())
            if open_to_all:
                pools = [_Willing(pool) for pool in self._pools.values()]
            found = self._routers[open_to_all] = Router(pools, self._estimate)
        return found

    def _rebuild(self, report: FleetReport) -> None:
        self.report = report
        wanted: dict[str, tuple[Variant, str, PoolReport]] = {}
        for pool in report.pools:
            variant = self._served.find(pool.variant)
            if variant is not None:
                wanted[pool.name] = variant, pool.accelerator, pool
        there = {variant.name for variant, _, _ in wanted.values()}
        for variant in self._served.variants.values():
            if variant.name not in there and variant.name not in self._off:
                cold = self._cold(variant)
                wanted[cold.name] = variant, cold.accelerator, cold
        if wanted.keys() != self._pools.keys():
            old = self._pools
            self._pools = {
                name: old.get(name) or ViewedPool(name, variant, accelerator)
                for name, (variant, accelerator, _) in wanted.items()
            }
            self._routers.clear()
        for name, (_, _, state) in wanted.items():
            self._pools[name].take(state, report.at)

    def _cold(self, variant: Variant) -> PoolReport:
        """A pool that is not there yet: it would be loaded first."""
        needs = variant.needs
        accelerator = needs.accelerator_type or self._accelerator or ("cpu" if not needs.gpus else "H200")
        return PoolReport(
            variant=variant.name,
            accelerator=accelerator,
            replicas=0,
            starting=0,
            busy=0,
            queued=0,
            backlog_s=0.0,
            load_s=seconds_on(variant, accelerator).load_cold_s,
            healthy=True,
            price_usd_per_hour=variant.price_usd_per_gpu_hour,
        )


class _Willing:
    """A pool whose variant says that auto may choose it."""

    __slots__ = ("_pool", "accelerator", "name", "variant", "vram_gib")

    def __init__(self, pool: ViewedPool) -> None:
        self._pool = pool
        self.name, self.accelerator, self.vram_gib = pool.name, pool.accelerator, pool.vram_gib
        self.variant = pool.variant.model_copy(update={"auto": True})

    @property
    def healthy(self) -> bool:
        return self._pool.healthy

    @property
    def price_usd_per_hour(self) -> float:
        return self._pool.price_usd_per_hour

    def start_s(self, now_s: float) -> float:
        return self._pool.start_s(now_s)
