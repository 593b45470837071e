"""Plan a whole manifest with Ray Data: chunks in, render batches and row parts in the store, counts on the driver."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import ray

from cluster.bulk_pools import ActorPool, BulkPlan, BulkWork, plan_pools
from cluster.cost import Load, best_batch, predict
from cluster.topology import Topology
from pipelines.index import DONE, DUPLICATE, NEW, FingerprintIndex, pack
from pipelines.parts import row_table, task_array
from pipelines.plan import Planned, PlanRules, cut_batches, plan_rows
from pipelines.read import Chunk, find_chunks, read_chunk
from pipelines.rejects import write_rejects
from pipelines.streaming import streamed
from schemas.catalog import Catalog, Variant
from schemas.errors import ConfigError
from schemas.run import GroupQuote, RunOptions, RunQuote
from schemas.task import Group
from storage import keys
from storage.batch_parts import BatchPartWriter
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store
from storage.tables import write_table

# Behind every price that there is.
_FREE_RANK = 1e12


@dataclass(frozen=True)
class Span:
    """Neighbouring render batches of one group: rows `start` to `stop` of a batch part."""

    part: str
    start: int
    stop: int
    batch_size: int
    batch_s: float


@dataclass(frozen=True)
class GroupCount:
    """What one chunk has of one group."""

    group: Group
    tasks: int
    batches: int
    batch_size: int
    gpu_s: float
    usd: float
    span: Span | None


@dataclass(frozen=True)
class ChunkPlan:
    """What a planner task reports: counts, never rows. `rejected_sample` holds the first few, to show."""

    chunk: int
    rows: int
    done: int
    duplicates: int
    rejected: int
    groups: tuple[GroupCount, ...]
    rejected_sample: tuple[str, ...]


@dataclass(frozen=True)
class PoolSpans:
    """A pool of actors, on one accelerator type if it is given, and what it renders."""

    variant: str
    accelerator: str | None
    actors: int
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class RunPlan:
    """A planned run: what it is quoted at, and what each pool renders."""

    quote: RunQuote
    pools: tuple[PoolSpans, ...]
    chunk_rows: tuple[int, ...]
    rejected_sample: tuple[str, ...]
    plan_s: float = field(default=0.0, compare=False)


class PlanStage:
    """Ray Data's face of planning: a chunk becomes a `ChunkPlan`, its batches and rows go to the store."""

    def __init__(
        self, rules: PlanRules, accelerator: str, device: str, out: str | None, run_id: str, index: Any
    ) -> None:
        self._rules = rules
        self._accelerator = accelerator
        self._device = device
        self._out = out
        self._run_id = run_id
        self._index = index

    def __call__(self, item: tuple[Chunk, int | None]) -> ChunkPlan:
        """Plan the first rows of a chunk, or all when there is no limit."""
        chunk, limit = item
        rows = read_chunk(chunk)
        if limit is not None:
            rows.cut(limit)
        planned = plan_rows(rows, self._rules)
        accepted = np.flatnonzero(np.asarray(planned.group_of, dtype=np.int64) >= 0)
        verdict = np.zeros(len(accepted), dtype=np.uint8)
        if len(accepted):
            packed = pack([planned.fingerprints[i] for i in accepted])
            verdict = ray.get(self._index.claim.remote(chunk.index, packed))
        store = open_store(self._out) if self._out is not None else None
        counts, quotes = self._write_batches(chunk, planned, accepted[verdict == NEW], store)
        if store is not None:
            name = keys.plan(self._run_id, f"rows-{chunk.index:05d}.parquet")
            write_table(store, name, row_table(planned, quotes))
            write_rejects(store, self._run_id, chunk.index, planned)
        return ChunkPlan(
            chunk=chunk.index,
            rows=len(rows),
            done=int(np.count_nonzero(verdict == DONE)),
            duplicates=int(np.count_nonzero(verdict == DUPLICATE)),
            rejected=len(planned.rejects),
            groups=tuple(counts),
            rejected_sample=tuple(r.said(rows.uri) for r in planned.rejects[:5]),
        )

    def _write_batches(
        self, chunk: Chunk, planned: Planned, fresh: np.ndarray[Any, Any], store: ObjectStore | None
    ) -> tuple[list[GroupCount], list[tuple[float, float]]]:
        """Cut every group's new tasks into batches; returns counts by group and each group's quote a task."""
        group_of = np.asarray(planned.group_of, dtype=np.int64)[fresh]
        priority = np.asarray(planned.priorities, dtype=np.int64)[fresh]
        order = np.lexsort((fresh, -priority, group_of))
        bounds = np.searchsorted(group_of[order], np.arange(len(planned.groups) + 1))
        quotes = [self._quote(group, None)[:2] for group in planned.groups]
        counts: list[GroupCount] = []
        writers: dict[str, BatchPartWriter] = {}
        for number, group in enumerate(planned.groups):
            members = fresh[order[bounds[number] : bounds[number + 1]]]
            if not len(members):
                continue
            gpu_s, usd, size = self._quote(group, len(members))
            cuts = cut_batches(len(members), size)
            batch_s = gpu_s / self._gpus(group) * len(members) / len(cuts)
            span = None
            if store is not None:
                writer = writers.setdefault(group.variant, BatchPartWriter())
                start, stop = writer.add(group, task_array(planned, members), cuts)
                span = Span(self._part(chunk, group.variant), start, stop, size, batch_s)
            counts.append(
                GroupCount(group, len(members), len(cuts), size, gpu_s * len(members), usd * len(members), span)
            )
        for variant, writer in writers.items():
            assert store is not None
            store.put(self._part(chunk, variant), writer.finish())
        return counts, quotes

    def _part(self, chunk: Chunk, variant: str) -> str:
        return keys.plan(self._run_id, f"batches-{chunk.index:05d}-{variant}.parquet")

    def _quote(self, group: Group, tasks: int | None) -> tuple[float, float, int]:
        """(accelerator-seconds a task, USD a task, batch size) of a group."""
        variant = self._rules.catalog[group.variant]
        accelerator = quoted_on(variant, self._accelerator, self._device)
        size = best_batch(variant, group.shape, accelerator=accelerator, steps=group.steps, guidance=group.guidance)
        size = min(size, tasks) if tasks else size
        cost = predict(variant, accelerator, group.shape, group.steps, group.guidance, size, load=Load.NONE)
        usd = cost.per_clip_s * variant.price_usd_per_gpu_hour / 3600
        return cost.per_clip_s * self._gpus(group), usd, size

    def _gpus(self, group: Group) -> float:
        return self._rules.catalog[group.variant].needs.gpus or 1.0


def quoted_on(variant: Variant, accelerator: str, device: str) -> str:
    """What a variant's seconds are quoted on: the cluster's accelerator, or 'cpu' when it holds none."""
    return "cpu" if device == "cpu" or not variant.needs.gpus else accelerator


def rank_by_price(accelerator: str, device: str, variant: Variant, group: Group) -> float:
    """What `auto` goes by in bulk: the cheapest variant. Free ones, which are for trying things out, come after all
    that have a price, the quicker first."""
    where = quoted_on(variant, accelerator, device)
    seconds = predict(variant, where, group.shape, group.steps, group.guidance, load=Load.NONE).per_clip_s
    return seconds * variant.price_usd_per_gpu_hour or _FREE_RANK + seconds


def _rank(catalog: Catalog, accelerator: str, device: str, variant: Variant, group: Group) -> float:
    return rank_by_price(accelerator, device, catalog[variant.name], group)


def can_run(topology: Topology, device: str, variant: Variant) -> bool:
    """Whether one actor of the variant can be placed at all."""
    return topology.why_not(variant, device) is None


def plan_run(
    options: RunOptions,
    catalog: Catalog,
    topology: Topology,
    *,
    out: str | None,
    done_in: str | None = None,
    auto_by: Catalog | None = None,
    on_progress: Callable[[int, int, int], None] = lambda chunks, of, rows: None,
) -> RunPlan:
    """Plan a manifest on the connected Ray cluster. What the ledger in `done_in` holds is left out; with `out` None
    nothing is written. `auto` is chosen by the costs of `auto_by`, where `catalog`'s change from run to run.

    Raises ConfigError for an empty or unreadable manifest, or when a variant that rows name cannot run here.
    """
    started_s = time.perf_counter()
    if options.variant is not None and options.variant != "auto" and catalog.find(options.variant) is None:
        raise ConfigError(f"--variant: unknown variant {options.variant!r}; available: {', '.join(catalog.names)}")
    chunks = find_chunks(options.manifest, options.limit)
    rules = PlanRules(
        catalog=catalog,
        rank=partial(_rank, auto_by or catalog, topology.accelerator, options.device),
        may_run=partial(can_run, topology, options.device),
        variant=options.variant,
        snap=options.snap,
        clip_format=options.clip_format,
    )
    if out is not None:
        _forget(open_store(out), options.run_id)
    index = ray.remote(num_cpus=0)(_Index).remote(done_in, options.retry_quarantined)
    stage = PlanStage(rules, topology.accelerator, options.device, out, options.run_id, index)
    plans: list[ChunkPlan] = []
    for plan in _planned(stage, chunks, options.limit):
        plans.append(plan)
        on_progress(len(plans), len(chunks), sum(p.rows for p in plans))
    if not sum(plan.rows for plan in plans):
        raise ConfigError(f"{options.manifest}: no rows in the manifest")
    ray.kill(index)
    return _summed(sorted(plans, key=lambda p: p.chunk), catalog, topology, options, time.perf_counter() - started_s)


def _planned(stage: PlanStage, chunks: list[Chunk], limit: int | None) -> Iterator[ChunkPlan]:
    # With a limit the chunks go one by one, since each must know how many rows the ones before it had.
    waves = [chunks] if limit is None else [[chunk] for chunk in chunks]
    left = limit
    for wave in waves:
        if left == 0:
            return
        for plan in streamed(stage, [(chunk, left) for chunk in wave]):
            left = None if left is None else left - plan.rows
            yield plan


def _summed(
    plans: list[ChunkPlan], catalog: Catalog, topology: Topology, options: RunOptions, plan_s: float
) -> RunPlan:
    by_group: dict[Group, list[GroupCount]] = defaultdict(list)
    for plan in plans:
        for count in plan.groups:
            by_group[count.group].append(count)
    groups = tuple(
        GroupQuote(
            group=group,
            tasks=sum(c.tasks for c in counts),
            batches=sum(c.batches for c in counts),
            batch_size=max(c.batch_size for c in counts),
            gpu_s=sum(c.gpu_s for c in counts),
            usd=sum(c.usd for c in counts),
        )
        for group, counts in sorted(by_group.items(), key=lambda pair: _group_order(pair[0]))
    )
    for name in sorted({quote.group.variant for quote in groups}):
        if (why := topology.why_not(catalog[name], options.device)) is not None:
            raise ConfigError(why)
    pools = _pool_plan(groups, catalog, topology, options.device)
    load_gpu_s = sum(p.load_s * p.actors * (catalog[p.variant].needs.gpus or 1.0) for p in pools.pools)
    load_usd = sum(p.load_s * p.actors * catalog[p.variant].price_usd_per_gpu_hour / 3600 for p in pools.pools)
    return RunPlan(
        quote=RunQuote(
            rows=sum(p.rows for p in plans),
            to_render=sum(q.tasks for q in groups),
            already_done=sum(p.done for p in plans),
            duplicates=sum(p.duplicates for p in plans),
            rejected=sum(p.rejected for p in plans),
            groups=groups,
            actors=pools.actors,
            gpu_s=sum(q.gpu_s for q in groups) + load_gpu_s,
            usd=sum(q.usd for q in groups) + load_usd,
            wall_s=pools.wall_s,
            bound_s=pools.bound_s,
            measured=all(catalog[p.variant].cost.measured for p in pools.pools),
        ),
        pools=hand_out(pools.pools, {q.group: [c.span for c in by_group[q.group] if c.span] for q in groups}),
        chunk_rows=tuple(p.rows for p in plans),
        rejected_sample=tuple(said for p in plans for said in p.rejected_sample)[:10],
        plan_s=plan_s,
    )


def _pool_plan(groups: Sequence[GroupQuote], catalog: Catalog, topology: Topology, device: str) -> BulkPlan:
    """The pools for the quoted groups, whose batches take as long on each accelerator type as it says there."""
    kinds = {*topology.accelerators, topology.accelerator}
    works: list[BulkWork] = []
    load_s: dict[str, dict[str, float]] = {}
    for quote in groups:
        variant, group = catalog[quote.group.variant], quote.group
        batch_s = {}
        for kind in kinds:
            where = quoted_on(variant, kind, device)
            clips = quote.tasks / quote.batches
            cost = predict(variant, where, group.shape, group.steps, group.guidance, quote.batch_size, load=Load.WARM)
            batch_s[where] = cost.per_clip_s * clips
            load_s.setdefault(group.variant, {})[where] = cost.load_s
        works.append(BulkWork(group.key, group.variant, quote.batches, batch_s))
    return plan_pools(works, load_s, catalog.variants, topology, device)


def hand_out(pools: Sequence[ActorPool], spans: Mapping[Group, Sequence[Span]]) -> tuple[PoolSpans, ...]:
    """Cut every group's spans between the pools that share it. A pool goes through its groups in their order, one after
    the other: compiled graphs and caches are by shape."""
    queues = {group: deque(found) for group, found in spans.items()}
    mine: list[PoolSpans] = []
    for pool in pools:
        taken: list[Span] = []
        for group, queue in queues.items():
            wanted = pool.batches.get(group.key, 0) if group.variant == pool.variant else 0
            while wanted > 0 and queue:
                span = queue.popleft()
                count = min(wanted, span.stop - span.start)
                taken.append(replace(span, stop=span.start + count))
                wanted -= count
                if span.start + count < span.stop:
                    queue.appendleft(replace(span, start=span.start + count))
        mine.append(PoolSpans(pool.variant, pool.accelerator, pool.actors, tuple(taken)))
    return tuple(mine)


def _group_order(group: Group) -> tuple[Any, ...]:
    # The longest clips first within a variant, so that the tail of the run is made of short ones.
    return group.variant, -group.shape.pixels * group.frames * group.steps, group.key


class _Index(FingerprintIndex):
    """The index, which reads the ledger in its own process."""

    def __init__(self, out: str | None, retry_quarantined: bool) -> None:
        done = None
        if out is not None:
            found = Ledger(open_store(out)).done_fingerprints(with_quarantined=not retry_quarantined)
            done = pack(found.to_pylist())
        super().__init__(done)


def _forget(store: ObjectStore, run_id: str) -> None:
    """Drop the plan of an earlier try: the manifest may have changed since."""
    for prefix in (keys.plan(run_id, ""), keys.rejects_prefix(run_id)):
        store.delete([info.key for info in store.list(prefix)])
