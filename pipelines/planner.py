"""Plan a whole manifest with Ray Data: chunks in, render batches and row parts in the store, counts on the driver."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import ray

from cluster.topology import Topology
from pipelines.index import FingerprintIndex, pack
from pipelines.plan import PlanRules
from pipelines.plan_stage import ChunkPlan, PlanStage, rank_by_price
from pipelines.read import Chunk, find_chunks
from pipelines.run_plan import RunPlan, summed
from pipelines.streaming import streamed
from schemas.catalog import Catalog, Variant
from schemas.errors import ConfigError
from schemas.run import RunOptions
from schemas.task import Group
from storage import keys
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store


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
    return summed(sorted(plans, key=lambda p: p.chunk), catalog, topology, options, time.perf_counter() - started_s)


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


def _rank(catalog: Catalog, accelerator: str, device: str, variant: Variant, group: Group) -> float:
    return rank_by_price(accelerator, device, catalog[variant.name], group)


def can_run(topology: Topology, device: str, variant: Variant) -> bool:
    """Whether one actor of the variant can be placed at all."""
    return topology.why_not(variant, device) is None


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
