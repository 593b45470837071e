"""Ray Data's link to a worker: an actor that holds one variant and renders the ranges of batch parts it is handed.

What an actor is about to do is told to the run's monitor first: when the process dies, its successor learns there
which tasks have cost a process already.
"""

import logging
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import datetime
from time import time
from typing import Any

import ray

from actors.audit_trail import RunAudit, Trail, actor_trail, task_ended
from actors.embeddings import StoredEmbeddings
from actors.failures import explain
from actors.media_reader import ConfinedMediaReader
from actors.media_source import MediaSource
from actors.moderator import open_moderator
from actors.monitor import KILLS_TO_QUARANTINE
from actors.provenance import open_provenance
from actors.publisher import Publisher
from actors.renderer import Renderer, TaskFailure
from actors.weights import StoredWeights
from actors.work import BatchEnd, ItemEnd, ItemProgress, WorkBatch, WorkItem
from actors.worker import Worker, WorkerSettings
from models.extraction import Extractors
from models.finishing import Finishing
from models.loader import load_model
from models.model import Cancelled, Frames, Model, OnStep, PromptCounts, Sounding, TaskMedia
from schemas.catalog import Variant
from schemas.clip import Record, Status
from schemas.config import Config
from schemas.errors import PermanentError, QuarantinedError, RushesError, VariantLoadError, is_transient
from schemas.finish import FLOOR, Finisher
from schemas.moderation import ModerationSettings
from schemas.task import Group, RenderBatch
from schemas.trust import TrustSettings
from storage.batch_parts import BatchPart
from storage.ledger import Ledger
from storage.store import open_store

log = logging.getLogger(__name__)

_LOOK_S = 1.0


@dataclass(frozen=True)
class StageSpec:
    """What a pool's actors are: small enough to travel with their constructor."""

    variant: Variant
    out: str
    config: Config
    device: str
    started_at: str
    stall_timeout_s: float
    trust: TrustSettings
    audit: RunAudit
    moderation: ModerationSettings = field(default_factory=ModerationSettings)
    finishers: Mapping[str, Finisher] = field(default_factory=lambda: FLOOR)
    # The digest of it, as the driver has worked it out.
    moderated_by: str = ""
    # What stands between the model and its callers: nothing in production, scripted faults in tests.
    wrap: Callable[[Model], Model] | None = None

    @property
    def started_at_s(self) -> float:
        """The run's start on the wall clock."""
        return datetime.fromisoformat(self.started_at).timestamp()


class RenderStage:
    """One actor. `monitor` is the handle of the run's RunMonitor."""

    def __init__(self, spec: StageSpec, monitor: Any) -> None:
        self._monitor = monitor
        actor = ray.get_runtime_context().get_actor_id()
        ray.get(monitor.loading.remote(actor, spec.variant.name))
        model = _loaded(spec, monitor)
        self._store = open_store(spec.out)
        ledger = Ledger(self._store)
        provenance = open_provenance(spec.trust, spec.config.state_dir)
        publisher = Publisher(
            self._store,
            spec.variant,
            model.revision,
            provenance=provenance,
            moderated_by=spec.moderated_by,
            finishing=Finishing(spec.finishers, _device(spec), spec.config.cache_dir, StoredWeights()),
            recorded=ledger.get,
        )
        media = ConfinedMediaReader(
            MediaSource(spec.config),
            spec.config.media_timeout_s,
            ingredients=provenance.has_ingredients,
            extractors=Extractors(spec.config.cache_dir, StoredWeights(), _device(spec)),
        )
        self._link = _RunLink(spec, monitor, actor, ledger, publisher, actor_trail(self._store, spec.audit, actor))
        settings = WorkerSettings(
            stall_s=spec.stall_timeout_s,
            quarantine_losses=KILLS_TO_QUARANTINE,
            load_s=model.load_s,
            bill_refused=spec.moderation.bill_refused_output,
        )
        # Prompts were moderated when the run was planned.
        moderator = open_moderator(spec.moderation.of_frames, spec.config)
        self._worker = Worker(Renderer(model), publisher, media, self._link, settings, moderator=moderator)
        self._part: tuple[str, BatchPart] | None = None
        self._model, self._told, self._telling = model, PromptCounts(), threading.Lock()
        self._worker.start()
        monitor.loaded.remote(actor)

    def __call__(self, items: dict[str, Any]) -> Iterator[dict[str, list[int]]]:
        """Render some ranges of a part; yields how many clips there are now, how many tasks failed, and how many texts
        were encoded or taken from what was kept since the last yield."""
        for part, start, stop in zip(items["part"], items["start"], items["stop"], strict=True):
            try:
                clips, failed = self._render_slice(str(part), int(start), int(stop))
            except Exception as error:
                # Tasks keep their troubles to themselves; what gets here concerns the whole run (the store refuses).
                ray.get(self._monitor.stop.remote(f"{type(error).__name__}: {error}"))
                raise
            texts = self._texts()
            yield {"clips": [clips], "failed": [failed], "encoded": [texts.encoded], "reused": [texts.reused]}

    def _texts(self) -> PromptCounts:
        with self._telling:  # two calls run at once
            now = self._model.prompt_counts
            since, self._told = now - self._told, now
            return since

    def _render_slice(self, part: str, start: int, stop: int) -> tuple[int, int]:
        again = ray.get(self._monitor.open_slice.remote(f"{part}:{start}")) > 1
        work = _Slice(self._part_at(part).batches(start, stop), again)
        self._link.add(work)
        while not wait((work.counts,), _LOOK_S).done:
            self._worker.check()
        return work.counts.result()

    def _part_at(self, key: str) -> BatchPart:
        held = self._part
        if held is None or held[0] != key:
            held = self._part = key, BatchPart(self._store.get(key))
        return held[1]


def _device(spec: StageSpec) -> str:
    return "cuda" if spec.variant.needs.gpus and spec.device != "cpu" else "cpu"


def _loaded(spec: StageSpec, monitor: Any) -> Model:
    """The variant's model; one that fails every task where it cannot be loaded and others can. Else raises."""
    try:
        model: Model = load_model(
            spec.variant,
            device=None if spec.device == "auto" else spec.device,
            cache=spec.config.cache_dir,
            store=StoredWeights(),
            prompt_bytes=spec.config.prompt_cache_bytes,
            embeddings=StoredEmbeddings(open_store(spec.out)),
        )
    except Exception as error:
        said = error if isinstance(error, RushesError) else f"{type(error).__name__}: {error}"
        reason = f"variant {spec.variant.name!r} cannot be loaded: {said}"
        if is_transient(error):
            ray.get(monitor.stop.remote(reason))
        if is_transient(error) or not ray.get(monitor.cannot_load.remote(spec.variant.name, reason)):
            raise
        log.error("%s: its rows fail, the others go on", reason)
        return _Unloaded(spec.variant, VariantLoadError(reason))
    return model if spec.wrap is None else spec.wrap(model)


@dataclass(frozen=True)
class _Unloaded:
    """Stands for a model that cannot be loaded."""

    variant: Variant
    error: VariantLoadError
    revision: str = ""
    load_s: float = 0.0
    notes: tuple[str, ...] = ()
    prompt_counts: PromptCounts = field(default_factory=PromptCounts)

    def render(
        self, batch: RenderBatch, _media: tuple[TaskMedia, ...], _on_step: OnStep, _cancelled: Cancelled
    ) -> tuple[Frames | Sounding | PermanentError, ...]:
        return (self.error,) * len(batch.tasks)


class _Slice:
    """A range of render batches; `counts` are its clips and its failures once all of it has ended. Given out by one
    thread while another tells of ends."""

    def __init__(self, batches: Iterator[RenderBatch], again: bool) -> None:
        """`again`: it was handed out before, to a process that died."""
        self.again = again
        self.counts: Future[tuple[int, int]] = Future()
        self._batches = batches
        self._lock = threading.Lock()
        self._open = 1  # tasks that have not ended, and one for the batches that have not been given out
        self._clips = self._failed = 0

    def next(self) -> RenderBatch | None:
        batch = next(self._batches, None)
        with self._lock:
            self._open += len(batch.tasks) if batch is not None else -1
        self._count()
        return batch

    def ended(self, clips: int, failed: int) -> None:
        with self._lock:
            self._open -= clips + failed
            self._clips += clips
            self._failed += failed
        self._count()

    def stop(self, error: Exception) -> None:
        """For a reason that concerns the whole run."""
        with self._lock:
            if not self.counts.done():
                self.counts.set_exception(error)

    def _count(self) -> None:
        with self._lock:
            if not self._open and not self.counts.done():
                self.counts.set_result((self._clips, self._failed))


@dataclass(frozen=True, eq=False)
class _SliceItem(WorkItem):
    work: _Slice = field(kw_only=True, repr=False)


class _RunLink:
    """The Link over a run's monitor and its ledger."""

    def __init__(
        self, spec: StageSpec, monitor: Any, actor: str, ledger: Ledger, publisher: Publisher, trail: Trail
    ) -> None:
        self._spec, self._monitor, self._actor = spec, monitor, actor
        self._ledger, self._publisher, self._trail = ledger, publisher, trail
        self._slices: queue.SimpleQueue[_Slice] = queue.SimpleQueue()
        self._present: _Slice | None = None

    def add(self, work: _Slice) -> None:
        self._slices.put(work)

    def next(self, _held: tuple[_SliceItem, ...]) -> WorkBatch[_SliceItem] | None:
        work = self._present = self._present or self._slices.get()
        batch = work.next()
        if batch is None:
            self._present = None
            return None
        kills = (0,) * len(batch.tasks)
        if work.again:
            kills = ray.get(self._monitor.kills.remote(_fingerprints(batch)))
        since = self._spec.started_at_s
        items = tuple(
            _SliceItem(task, since, losses, work.again, work=work)
            for task, losses in zip(batch.tasks, kills, strict=True)
        )
        return WorkBatch(batch.group, items)

    def found(self, group: Group, item: _SliceItem) -> Record | None:
        """What a process that died had stored stays stored, and what it saw fail has failed."""
        record = self._ledger.get(item.task.fingerprint)
        if record is not None and record.finished_at >= self._spec.started_at:
            return record
        record = self._publisher.found(item.task, group)
        if record is not None:  # its process died between the clip and the record
            record = record.model_copy(update={"attempts": max(1, item.losses)})
            self._trail.tell([task_ended(item.task, record, self._spec.audit, time(), found=True)])
            self._ledger.write(record)
        return record

    def begin(self, batch: WorkBatch[_SliceItem]) -> None:
        ray.get(self._monitor.begin.remote(self._actor, batch.work.key, _fingerprints(batch.work)))

    def rendered(self, batch: WorkBatch[_SliceItem]) -> None:
        self._monitor.rendered.remote(self._actor, batch.work.key)

    def beat(self, _progress: tuple[ItemProgress[_SliceItem], ...]) -> Collection[_SliceItem]:
        return ()

    def ended(self, end: BatchEnd[_SliceItem]) -> None:
        work = end.ends[0].item.work
        try:
            records = [ended.end if isinstance(ended.end, Record) else self._failed(ended) for ended in end.ends]
            if not end.found:
                # One object a batch, and before any of its tasks counts. The audit log first: nothing is done of which
                # it does not tell.
                run, tasks = self._spec.audit, (ended.item.task for ended in end.ends)
                self._trail.tell([task_ended(*pair, run, time()) for pair in zip(tasks, records, strict=True)])
                self._ledger.write_many([*records, *(one for record in records for one in record.before)])
        except Exception as error:
            work.stop(error)
            return
        clips = sum(record.status is Status.SUCCEEDED for record in records)
        if not end.found:
            # Not waited for: should it be lost with the process, what was only published is charged last.
            self._monitor.end.remote(self._actor, end.work.key, end.busy_s, clips, len(records) - clips)
        work.ended(clips, len(records) - clips)

    def _failed(self, ended: ItemEnd[_SliceItem]) -> Record:
        """Record a failure. Raises it where it is the store's, which would fail the next task too."""
        failure = ended.end
        assert isinstance(failure, TaskFailure)
        if explain(failure.error).of_store:
            raise failure.error
        quarantined = isinstance(failure.error, QuarantinedError)
        return self._publisher.record_failure(failure, attempts=ended.item.losses, quarantined=quarantined)


def _fingerprints(batch: RenderBatch) -> tuple[str, ...]:
    return tuple(task.fingerprint for task in batch.tasks)
