"""Planning as a stage of Ray Data: what `plan.py` makes of a chunk goes to the store, its counts to the driver."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from cluster.cost.model import Load, best_batch, call_shape, predict
from cluster.cost.quote import quote
from pipelines.chunk import Chunk
from pipelines.index import DONE, DUPLICATE, NEW, REPLACE, pack
from pipelines.parts import row_table, task_array
from pipelines.plan import Planned, PlanRules, cut_batches, plan_rows
from pipelines.read import read_chunk
from pipelines.rejects import write_rejects
from pipelines.rows import most_unknown
from prompts.diagnosis import asked_of, diagnose_all
from schemas.catalog import Variant
from schemas.clip import Record, Status
from schemas.finish import finish_s
from schemas.run import RunOptions
from schemas.task import Group
from storage import keys
from storage.batch_parts import BatchPartWriter
from storage.clip_digests import differing
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
    # Of `usd`, what is done to the clips afterwards; and its seconds, which hold no accelerator.
    finish_usd: float = 0.0
    finish_s: float = 0.0


@dataclass(frozen=True)
class FoundInPrompts:
    """How many new tasks of a variant have prompts with one kind of finding (`prompts.diagnosis`), and the first."""

    variant: str
    code: str
    tasks: int
    first: str  # file:line: what was found


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
    blank: int = 0
    lost: int = 0
    diagnosed: tuple[FoundInPrompts, ...] = ()
    unknown: tuple[tuple[str, int], ...] = ()
    # Rows of the manifest: fewer than `rows` where some have several samples.
    read: int = 0


class Index(Protocol):
    """What the stage asks of what all planners share (`pipelines.index_source`), here or in another process."""

    def claim(self, chunk: int, fingerprints: Any) -> Any: ...
    def recorded(self, fingerprints: Any) -> Any: ...
    def sha256(self, fingerprints: Any) -> list[str]: ...
    def revoke(self, chunk: int, fingerprints: Any) -> None: ...
    def content(self, variant: str) -> str: ...


class PlanStage:
    """Ray Data's face of planning: a chunk becomes a `ChunkPlan`, its batches and rows go to the store.

    With `options.verify` the clips of tasks that are done are read and hashed.
    """

    def __init__(
        self,
        rules: PlanRules,
        accelerator: str,
        device: str,
        out: str | None,
        options: RunOptions,
        plan_id: str,
        index: Index,
    ) -> None:
        self._rules = replace(rules, content=index.content)
        self._accelerator = accelerator
        self._device = device
        self._out = out
        self._run_id, self._plan_id = options.run_id, plan_id
        self._index = index
        self._verify = options.verify

    def __call__(self, item: tuple[Chunk, int | None]) -> ChunkPlan:
        """Plan the first rows of a chunk, or all when there is no limit."""
        chunk, limit = item
        rows = read_chunk(chunk)
        if limit is not None:
            rows.cut(limit)
        planned = plan_rows(rows, self._rules)
        accepted = np.flatnonzero(np.asarray(planned.group_of, dtype=np.int64) >= 0)
        packed = pack([planned.fingerprints[i] for i in accepted])
        verdict = self._index.claim(chunk.index, packed)
        store = open_store(self._out) if self._out is not None else None
        if self._verify and store is not None:
            clips = {planned.fingerprints[i]: self._clip(planned, i) for i in accepted[verdict == DONE]}
            wrong = self._wrong(store, clips)
            if wrong:
                self._index.revoke(chunk.index, pack(wrong))
                verdict = self._index.claim(chunk.index, packed)
        lost = 0
        if (replaced := accepted[verdict == REPLACE]).size:
            lost = self._replace(store, planned, replaced)
        fresh = accepted[(verdict == NEW) | (verdict == REPLACE)]
        counts, quotes = self._write_batches(chunk, planned, fresh, store)
        if store is not None:
            name = keys.plan(self._plan_id, f"rows-{chunk.index:05d}.parquet")
            write_table(store, name, row_table(planned, quotes))
            write_rejects(store, self._run_id, chunk.index, planned)
        return ChunkPlan(
            chunk=chunk.index,
            rows=len(planned.rows),
            read=len(rows),
            done=int(np.count_nonzero(verdict == DONE)),
            duplicates=int(np.count_nonzero(verdict == DUPLICATE)),
            rejected=len(planned.rejects),
            groups=tuple(counts),
            rejected_sample=tuple(r.said(rows.uri) for r in planned.rejects[:5]),
            blank=rows.blank,
            lost=lost,
            diagnosed=self._diagnosed(planned, fresh),
            unknown=most_unknown(rows.unknown),
        )

    def _diagnosed(self, planned: Planned, fresh: Any) -> tuple[FoundInPrompts, ...]:
        """What looks like a mistake in the prompts of new tasks."""
        asked = [asked_of(group, self._rules.catalog[group.variant]) for group in planned.groups]
        found: dict[tuple[str, str], FoundInPrompts] = {}
        prompts, negatives, rows = planned.column("prompt"), planned.column("negative_prompt"), planned.rows
        for position in fresh:
            number = planned.group_of[position]
            variant = self._rules.catalog[planned.groups[number].variant]
            seen: set[str] = set()
            texts = (prompts[position] or "", *planned.later(position))
            for one in diagnose_all(texts, negatives[position] or "", asked[number], variant):
                if one.code in seen:
                    continue
                seen.add(one.code)
                key = variant.name, one.code
                before = found.get(key)
                first = before.first if before else f"{rows.uri}:{rows.lines[position]}: {one}"
                found[key] = FoundInPrompts(*key, (before.tasks if before else 0) + 1, first)
        return tuple(found.values())

    def _wrong(self, store: ObjectStore, clips: dict[str, str]) -> list[str]:
        """The tasks whose clip is not what the ledger recorded."""
        recorded = self._index.sha256(pack(clips))
        wanted = {clips[task]: digest for task, digest in zip(clips, recorded, strict=True) if digest}
        bad = differing(store, wanted)
        return [task for task, key in clips.items() if key in bad]

    def _replace(self, store: ObjectStore | None, planned: Planned, positions: Any) -> int:
        """Make room for clips that are to be rendered though something is stored of them: what is there is not what was
        recorded, or nobody recorded it. Returns how many had been recorded."""
        tasks = [planned.fingerprints[i] for i in positions]
        recorded = self._index.recorded(pack(tasks))
        if store is None:
            return int(np.count_nonzero(recorded))
        posters = [keys.poster(self._group(planned, i).variant, planned.fingerprints[i]) for i in positions]
        store.delete([*(self._clip(planned, i) for i in positions), *posters])
        # Should rendering fail now, the ledger must not say that there is a clip.
        revoked_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        revocations = [
            Record(
                fingerprint=planned.fingerprints[i],
                status=Status.PENDING,
                variant=self._group(planned, i).variant,
                seed=planned.seeds[i],
                attempts=0,
                error_class="ClipMissing",
                error="the clip that was recorded is not there, or is damaged",
                finished_at=revoked_at,
            )
            for i, known in zip(positions, recorded, strict=True)
            if known
        ]
        Ledger(store).write_many(revocations)
        return len(revocations)

    def _clip(self, planned: Planned, position: int) -> str:
        suffix = self._rules.clip_format.suffix
        return keys.clip(self._group(planned, position).variant, planned.fingerprints[position], suffix)

    def _group(self, planned: Planned, position: int) -> Group:
        return planned.groups[planned.group_of[position]]

    def _write_batches(
        self, chunk: Chunk, planned: Planned, fresh: np.ndarray[Any, Any], store: ObjectStore | None
    ) -> tuple[list[GroupCount], list[tuple[float, float, float]]]:
        """Cut every group's new tasks into batches; returns counts by group and each group's quote a task."""
        group_of = np.asarray(planned.group_of, dtype=np.int64)[fresh]
        priority = np.asarray(planned.priorities, dtype=np.int64)[fresh]
        order = np.lexsort((fresh, -priority, group_of))
        bounds = np.searchsorted(group_of[order], np.arange(len(planned.groups) + 1))
        quotes: list[tuple[float, float, float]] = []
        for group in planned.groups:
            gpu_s, usd, _ = self._quote(group, None)
            _, finish_usd = finish_s(group.finish, self._rules.catalog.finishers)
            quotes.append((gpu_s, usd + finish_usd, finish_usd))
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
            own_s, own_usd = finish_s(group.finish, self._rules.catalog.finishers)
            tasks = len(members)
            all_usd = (usd + own_usd) * tasks
            counts.append(
                GroupCount(group, tasks, len(cuts), size, gpu_s * tasks, all_usd, span, own_usd * tasks, own_s * tasks)
            )
        for variant, writer in writers.items():
            assert store is not None
            store.put(self._part(chunk, variant), writer.finish())
        return counts, quotes

    def _part(self, chunk: Chunk, variant: str) -> str:
        return keys.plan(self._plan_id, f"batches-{chunk.index:05d}-{variant}.parquet")

    def _quote(self, group: Group, tasks: int | None) -> tuple[float, float, int]:
        """(accelerator-seconds a task, USD for them, batch size) of a group, without what is done to its clips."""
        variant = self._rules.catalog[group.variant]
        accelerator = quoted_on(variant, self._accelerator, self._device)
        shape = call_shape(variant, group)
        size = best_batch(variant, shape, accelerator=accelerator, steps=group.steps, guidance=group.guidance)
        size = min(size, tasks or size, self._rules.max_batch or size)
        cost = predict(variant, accelerator, shape, group.steps, group.guidance, size, load=Load.NONE)
        said = quote(cost, variant.price_usd_per_gpu_hour, gpus=variant.needs.gpus)
        return said.gpu_s, said.usd, size

    def _gpus(self, group: Group) -> float:
        return self._rules.catalog[group.variant].needs.gpus or 1.0


def quoted_on(variant: Variant, accelerator: str, device: str) -> str:
    """What a variant's seconds are quoted on: the cluster's accelerator, or 'cpu' when it holds none."""
    return "cpu" if device == "cpu" or not variant.needs.gpus else accelerator


def rank_by_price(accelerator: str, device: str, variant: Variant, group: Group) -> float:
    """What `auto` goes by in bulk: the cheapest variant. Free ones, which are for trying things out, come after all
    that have a price, the quicker first."""
    where = quoted_on(variant, accelerator, device)
    shape = call_shape(variant, group)
    seconds = predict(variant, where, shape, group.steps, group.guidance, load=Load.NONE).per_clip_s
    return seconds * variant.price_usd_per_gpu_hour or _FREE_RANK + seconds
