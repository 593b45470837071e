"""The plan of a whole run, put together from its chunks: the quote, and which pool renders which spans of batches."""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.cost.model import Load, call_shape, predict
from cluster.cost.quote import Charge, charge
from cluster.placement.bulk_pools import ActorPool, BulkPlan, BulkWork, plan_pools
from cluster.topology import Topology
from pipelines.manifest_file import ManifestFile
from pipelines.plan_stage import ChunkPlan, GroupCount, Span, quoted_on
from pipelines.rows import most_unknown, unknown_columns
from prompts.diagnosis import CODES, MEANING
from schemas.catalog import Catalog, Variant
from schemas.errors import ConfigError
from schemas.run import GroupQuote, RunOptions, RunQuote
from schemas.task import Group

_NOTES = 8  # of one kind


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
    notes: tuple[str, ...] = ()
    plan_id: str = ""  # names the folder that it lies in


def unknown_counts(plans: Sequence[ChunkPlan]) -> tuple[tuple[str, int], ...]:
    """The columns that are no fields, with the rows that have them."""
    counts: Counter[str] = Counter()
    for plan in plans:
        counts.update(dict(plan.unknown))
    return most_unknown(counts)


def notes_of(plans: Sequence[ChunkPlan], files: Sequence[ManifestFile]) -> tuple[str, ...]:
    """What to tell a person of the manifest, each once: how it was read, and what may be a mistake."""
    read = [f"{file.uri}: read as {file.encoding}, not UTF-8" for file in files if file.encoding != "utf-8"]
    blank = sum(plan.blank for plan in plans)
    skipped = [f"{blank} line{'s' if blank != 1 else ''} without any value skipped"] if blank else []
    lost = sum(plan.lost for plan in plans)
    gone = [f"{lost} clip{'s' if lost != 1 else ''} recorded but missing or damaged: rendered again"] if lost else []
    return (*read[:_NOTES], *skipped, *gone, *diagnosed(plans), *unknown_columns(unknown_counts(plans))[:_NOTES])


def diagnosed(plans: Sequence[ChunkPlan]) -> list[str]:
    """What looks like a mistake in prompts: how many have each, and the first with what to do about it."""
    found = [one for plan in sorted(plans, key=lambda plan: plan.chunk) for one in plan.diagnosed]
    tasks: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for one in found:
        tasks[one.variant, one.code] += one.tasks
        first.setdefault((one.variant, one.code), one.first)
    return [
        f"{count} prompt{'s' if count != 1 else ''} for {variant!r} {MEANING[code]}; "
        f"{'the first, ' if count != 1 else ''}{first[variant, code]}"
        for (variant, code), count in sorted(tasks.items(), key=lambda pair: CODES.index(pair[0][1]))
    ]


def summed(
    plans: list[ChunkPlan], catalog: Catalog, topology: Topology, options: RunOptions, plan_s: float, plan_id: str
) -> RunPlan:
    """Add up what the chunks have of each group, and plan the pools. `plan_s` is what planning took, in seconds.

    Raises ConfigError for a variant that rows name and that cannot run here.
    """
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
            finish_usd=sum(c.finish_usd for c in counts),
            finish_s=sum(c.finish_s for c in counts),
        )
        for group, counts in sorted(by_group.items(), key=lambda pair: _group_order(pair[0]))
    )
    for name in sorted({quote.group.variant for quote in groups}):
        if (why := topology.why_not(catalog[name], options.device)) is not None:
            raise ConfigError(why)
    pools = _pool_plan(groups, catalog, topology, options.device)
    loads = [_load(pool, catalog[pool.variant]) for pool in pools.pools]
    return RunPlan(
        quote=RunQuote(
            rows=sum(p.rows for p in plans),
            to_render=sum(q.tasks for q in groups),
            already_done=sum(p.done for p in plans),
            duplicates=sum(p.duplicates for p in plans),
            rejected=sum(p.rejected for p in plans),
            groups=groups,
            actors=pools.actors,
            gpu_s=sum(q.gpu_s for q in groups) + sum(load.gpu_s for load in loads),
            usd=sum(q.usd for q in groups) + sum(load.usd for load in loads),
            wall_s=pools.wall_s,
            bound_s=pools.bound_s,
            measured=all(catalog[p.variant].cost.measured for p in pools.pools),
        ),
        pools=hand_out(pools.pools, {q.group: [c.span for c in by_group[q.group] if c.span] for q in groups}),
        chunk_rows=tuple(p.rows for p in plans),
        rejected_sample=tuple(said for p in plans for said in p.rejected_sample)[:10],
        plan_s=plan_s,
        plan_id=plan_id,
    )


def _pool_plan(groups: Sequence[GroupQuote], catalog: Catalog, topology: Topology, device: str) -> BulkPlan:
    """The pools for the quoted groups, whose batches take as long on each accelerator type as it says there."""
    kinds = {*topology.accelerators, topology.accelerator}
    works: list[BulkWork] = []
    load_s: dict[str, dict[str, float]] = {}
    for quote in groups:
        variant, group = catalog[quote.group.variant], quote.group
        shape, batch_s = call_shape(variant, group), {}
        for kind in kinds:
            where = quoted_on(variant, kind, device)
            clips = quote.tasks / quote.batches
            cost = predict(variant, where, shape, group.steps, group.guidance, quote.batch_size, load=Load.WARM)
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


def _load(pool: ActorPool, variant: Variant) -> Charge:
    """Of all of a pool's actors, once."""
    return charge(pool.load_s * pool.actors, variant.price_usd_per_gpu_hour, gpus=variant.needs.gpus)


def _group_order(group: Group) -> tuple[Any, ...]:
    # The longest clips first within a variant, so that the tail of the run is made of short ones.
    # Clips to which nothing is done before the same ones to which something is: those are then found.
    return group.variant, -group.shape.pixels * group.frames * group.steps, len(group.finish), group.key
