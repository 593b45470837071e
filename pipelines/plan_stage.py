"""Planning as a stage of Ray Data: what `plan.py` makes of a chunk goes to the store, its counts to the driver."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from cluster.cost import Load, best_batch, predict
from pipelines.index import DONE, DUPLICATE, NEW, pack
from pipelines.parts import row_table, task_array
from pipelines.plan import Planned, PlanRules, cut_batches, plan_rows
from pipelines.read import Chunk, read_chunk
from pipelines.rejects import write_rejects
from schemas.catalog import Variant
from schemas.task import Group
from storage import keys
from storage.batch_parts import BatchPartWriter
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
