"""Plan a whole manifest with Ray Data: chunks in, render batches and row parts in the store, counts on the driver."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from actors.moderator import moderated_by, open_prompt_moderation
from cluster.topology import Topology
from models.weights import missing
from pipelines.catalogs import check_variant
from pipelines.chunk import Chunk
from pipelines.index_source import IndexSource, LocalIndex, RemoteIndex
from pipelines.plan import PlanRules
from pipelines.plan_stage import ChunkPlan, PlanStage, rank_by_price
from pipelines.read import find_chunks
from pipelines.row_media import RowMedia
from pipelines.rows import FIELDS, nearest_field
from pipelines.run_plan import RunPlan, notes_of, summed, unknown_counts
from pipelines.streaming import streamed
from prompts.templates import read_templates
from schemas.catalog import Catalog, Variant
from schemas.config import Config, read_config
from schemas.errors import ConfigError
from schemas.run import RunOptions
from schemas.task import Group
from storage import keys
from storage.compaction import compact
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store

# Planned sooner than a Ray worker has started.
_MOST_ROWS_HERE = 10_000


def fits_here(chunks: list[Chunk]) -> bool:
    """Whether a manifest is so small that planning it in this process is quickest."""
    return sum(chunk.cut.rows for chunk in chunks) <= _MOST_ROWS_HERE


def plan_run(
    options: RunOptions,
    catalog: Catalog,
    topology: Topology,
    *,
    out: str | None,
    done_in: str | None = None,
    auto_by: Catalog | None = None,
    config: Config | None = None,
    attempt: str = "",
    on_progress: Callable[[int, int, int], None] = lambda chunks, of, rows: None,
    in_process: bool = False,
    chunks: list[Chunk] | None = None,
) -> RunPlan:
    """Plan a manifest on the connected Ray cluster, or `in_process` without one; its `chunks` where they are known.

    What the ledger in `done_in` holds is left out; with `out` None nothing is written. `auto` is chosen by the costs of
    `auto_by`, where `catalog`'s change from run to run.

    Raises ConfigError for an empty or unreadable manifest, or when a variant that rows name cannot run here.
    """
    started_s = time.perf_counter()
    config = config or read_config()
    check_variant(options.variant, catalog)
    if chunks is None:
        chunks = find_chunks(options.manifest, options.limit, encoding=options.encoding, out=options.out or None)
    moderation = open_prompt_moderation(options.moderation, config)
    rules = PlanRules(
        catalog=catalog,
        rank=partial(_rank, auto_by or catalog, topology.accelerator, options.device),
        may_run=partial(can_run, topology, options.device),
        variant=options.variant,
        snap=options.snap,
        fit_sizes=options.fit,
        loras=options.loras,
        clip_format=options.clip_format,
        media=RowMedia(config, out),
        max_batch=options.max_concurrent,
        moderate=moderation,
        templates=read_templates(options.templates),
    )
    # One that is believed dead may still read what it planned.
    plan_id = f"{options.run_id}-{attempt}" if attempt else options.run_id
    if out is not None:
        _forget(open_store(out), options, plan_id)
        # Loose records are read once, here; what is left to read afterwards is sorted and small.
        compact(Ledger(open_store(out)), min_loose=1)
    told = IndexSource(
        done_in,
        options.retry_quarantined,
        catalog,
        config.cache_dir,
        with_sha256=options.verify,
        by_keys=out is None,
        refused_by=moderated_by(options.moderation),
    )
    index = LocalIndex(told) if in_process else RemoteIndex.started(told)
    stage = PlanStage(rules, topology.accelerator, options.device, out, options, plan_id, index)
    plans: list[ChunkPlan] = []
    try:
        for plan in _planned(stage, chunks, options.limit, in_process):
            plans.append(plan)
            on_progress(len(plans), len(chunks), sum(p.rows for p in plans))
    finally:
        if moderation is not None:
            moderation.close()
    if not sum(plan.rows for plan in plans):
        raise ConfigError(f"{options.manifest}: no rows in the manifest")
    index.stop()
    if options.strict:
        _refuse_unknown(options.manifest, plans)
    plans.sort(key=lambda plan: plan.chunk)
    whole = summed(plans, catalog, topology, options, time.perf_counter() - started_s, plan_id)
    return replace(whole, notes=notes_of(plans, list(dict.fromkeys(chunk.file for chunk in chunks))))


def _planned(stage: PlanStage, chunks: list[Chunk], limit: int | None, in_process: bool) -> Iterator[ChunkPlan]:
    # With a limit the chunks go one by one, since each must know how many rows the ones before it had.
    waves = [chunks] if limit is None and not in_process else [[chunk] for chunk in chunks]
    left = limit
    for wave in waves:
        if left == 0:
            return
        for plan in streamed(stage, [(chunk, left) for chunk in wave]):
            left = None if left is None else left - plan.read
            yield plan


def _rank(catalog: Catalog, accelerator: str, device: str, variant: Variant, group: Group) -> float:
    return rank_by_price(accelerator, device, catalog[variant.name], group)


def can_run(topology: Topology, device: str, variant: Variant) -> bool:
    """Whether one actor of the variant can be placed at all, and what it is made of is there."""
    return topology.why_not(variant, device) is None and missing(variant) is None


def _counted(name: str, rows: int) -> str:
    near = nearest_field(name)
    meant = f", did you mean {near!r}?" if near else ""
    return f"{name!r} ({rows} row{'s' if rows != 1 else ''}{meant})"


def _refuse_unknown(manifest: str, plans: list[ChunkPlan]) -> None:
    counts = unknown_counts(plans)
    if counts:
        names = ", ".join(_counted(name, rows) for name, rows in counts[:8])
        raise ConfigError(
            f"{manifest}: --strict: columns that are no fields: {names}; available: {', '.join(sorted(FIELDS))}"
        )


def _forget(store: ObjectStore, options: RunOptions, plan_id: str) -> None:
    """Drop the plan of an earlier try: the manifest may have changed since."""
    for prefix in (keys.plan(plan_id, ""), keys.rejects_prefix(options.run_id)):
        store.delete([info.key for info in store.list(prefix)])
