"""The face of rendering for Ray Data: an actor that holds one variant, renders batches and publishes their clips.

Ray calls it from two threads. One holds the turn and renders; the other's clips are encoded and stored meanwhile, so
the accelerator waits for neither. What an actor is about to do is told to the run's monitor first: when the process
dies, its successor learns there which tasks have cost a process already, and renders those alone.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import ray

from actors.media_source import MediaSource
from actors.monitor import KILLS_TO_QUARANTINE
from actors.publisher import Publisher
from actors.renderer import Rendered, Renderer, TaskFailure
from actors.stopwatch import Stopwatch
from actors.weights import StoredWeights
from models.loader import load
from models.model import Model
from schemas.catalog import Variant
from schemas.clip import Record, Status
from schemas.config import Config
from schemas.errors import BadOutputError, QuarantinedError, RushesError
from schemas.task import RenderBatch
from storage.batch_parts import BatchPart
from storage.ledger import Ledger
from storage.store import open_store

# Batches that may wait for the encoder: one, so that a slow store slows the model down before memory fills up.
_UNPUBLISHED_BATCHES = 2


@dataclass(frozen=True)
class StageSpec:
    """What a pool's actors are: small enough to travel with their constructor."""

    variant: Variant
    out: str
    config: Config
    device: str
    started_at: str
    stall_timeout_s: float
    # What stands between the model and its callers: nothing in production, scripted faults in tests.
    wrap: Callable[[Model], Model] | None = None

    @property
    def started_at_s(self) -> float:
        """The run's start on the wall clock."""
        return datetime.fromisoformat(self.started_at).timestamp()


class RenderStage:
    """One actor. `monitor` is the handle of the run's RunMonitor."""

    def __init__(self, spec: StageSpec, monitor: Any) -> None:
        self._spec = spec
        self._monitor = monitor
        self._actor = ray.get_runtime_context().get_actor_id()
        ray.get(monitor.loading.remote(self._actor, spec.variant.name))
        try:
            model: Model = load(
                spec.variant,
                device=None if spec.device == "auto" else spec.device,
                cache=spec.config.cache_dir,
                store=StoredWeights(),
            )
        except RushesError as error:
            ray.get(monitor.stop.remote(f"variant {spec.variant.name!r} cannot be loaded: {error}"))
            raise
        if spec.wrap is not None:
            model = spec.wrap(model)
        store = open_store(spec.out)
        self._renderer = Renderer(model, read_media=MediaSource(spec.config))
        self._ledger = Ledger(store)
        self._store = store
        self._publisher = Publisher(store, self._ledger, spec.variant, model.revision)
        self._unbilled_load_s = model.load_s
        self._turn = threading.Lock()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._unpublished: set[Future[list[Record]]] = set()
        self._part: tuple[str, BatchPart] | None = None
        monitor.loaded.remote(self._actor)

    def __call__(self, items: dict[str, Any]) -> Iterator[dict[str, list[int]]]:
        """Render some ranges of a part; yields how many clips there are now and how many tasks failed."""
        for part, start, stop in zip(items["part"], items["start"], items["stop"], strict=True):
            try:
                records = self._render_slice(str(part), int(start), int(stop))
            except RushesError as error:
                # Tasks keep their troubles to themselves; what gets here concerns the whole run (the store refuses).
                ray.get(self._monitor.stop.remote(f"{type(error).__name__}: {error}"))
                raise
            clips = sum(record.status is Status.SUCCEEDED for record in records)
            yield {"clips": [clips], "failed": [len(records) - clips]}

    def _render_slice(self, part: str, start: int, stop: int) -> list[Record]:
        again = ray.get(self._monitor.open_slice.remote(f"{part}:{start}")) > 1
        records: list[Record] = []
        pending: deque[Future[list[Record]]] = deque()
        for whole in self._part_at(part).batches(start, stop):
            batch = self._not_recorded(whole, records) if again else whole
            if not batch.tasks:
                continue
            with self._turn:
                if not any(self._begin(batch)):
                    pending.append(self._publish_later(batch, self._render(batch, {})))
                else:
                    self._monitor.end.remote(self._actor, batch.key)
                    records += self._render_suspects(batch)
            while len(pending) > _UNPUBLISHED_BATCHES - 1:
                records += pending.popleft().result()
        while pending:
            records += pending.popleft().result()
        return records

    def _render_suspects(self, batch: RenderBatch) -> list[Record]:
        """One task at a time, each published before the next, so that whoever kills the process is known."""
        wait(tuple(self._unpublished))
        records: list[Record] = []
        for task in batch.tasks:
            alone = RenderBatch(batch.group, (task,))
            (kills,) = self._begin(alone)
            if kills >= KILLS_TO_QUARANTINE:
                error = QuarantinedError(f"its process died {kills} times while rendering it")
                outcomes: list[Rendered | TaskFailure] = [TaskFailure(task, batch.group, error, attempts=kills)]
                records += self._publish(alone, outcomes, 0.0, 0.0, time.time())
            else:
                records += self._publish_later(alone, self._render(alone, {task.fingerprint: kills})).result()
        return records

    def _render(self, batch: RenderBatch, kills: dict[str, int]) -> "_Call":
        started_at_s, started = time.time(), time.perf_counter()
        with Stopwatch(self._spec.stall_timeout_s) as stopwatch:
            outcomes = self._renderer.render(batch, lambda done, total: stopwatch.restart())
        self._monitor.rendered.remote(self._actor, batch.key)
        load_s, self._unbilled_load_s = self._unbilled_load_s, 0.0
        return _Call(outcomes, started_at_s, time.perf_counter() - started, load_s, kills)

    def _publish_later(self, batch: RenderBatch, call: "_Call") -> Future[list[Record]]:
        future = self._encoder.submit(
            self._publish, batch, call.outcomes, call.busy_s, call.load_s, call.started_at_s, call.kills
        )
        self._unpublished.add(future)
        future.add_done_callback(self._unpublished.discard)
        return future

    def _publish(
        self,
        batch: RenderBatch,
        outcomes: list[Rendered | TaskFailure],
        busy_s: float,
        load_s: float,
        started_at_s: float,
        kills: dict[str, int] | None = None,
    ) -> list[Record]:
        queue_s = max(0.0, started_at_s - self._spec.started_at_s)
        records = []
        for outcome in outcomes:
            lost = (kills or {}).get(outcome.task.fingerprint, 0)
            if isinstance(outcome, Rendered):
                try:
                    load_share_s = load_s / len(outcomes)
                    record = self._publisher.publish(outcome, queue_s=queue_s, load_s=load_share_s, attempts=lost)
                except BadOutputError as error:
                    outcome = TaskFailure(outcome.task, outcome.group, error, outcome.render_s, outcome.attempts)
            if isinstance(outcome, TaskFailure):
                dead = isinstance(outcome.error, QuarantinedError)
                record = self._publisher.record_failure(outcome, attempts=0 if dead else lost, quarantined=dead)
            records.append(record)
        done = sum(record.status is Status.SUCCEEDED for record in records)
        # Not waited for: should it be lost with the process, what was only published is charged last.
        self._monitor.end.remote(self._actor, batch.key, busy_s, done, len(records) - done)
        return records

    def _begin(self, batch: RenderBatch) -> tuple[int, ...]:
        fingerprints = tuple(task.fingerprint for task in batch.tasks)
        kills: tuple[int, ...] = ray.get(self._monitor.begin.remote(self._actor, batch.key, fingerprints))
        return kills

    def _not_recorded(self, batch: RenderBatch, records: list[Record]) -> RenderBatch:
        """A slice that is handed out again was begun by a process that died: what it stored stays stored."""
        left = []
        for task in batch.tasks:
            record = self._ledger.get(task.fingerprint)
            if record is not None and record.finished_at >= self._spec.started_at:
                records.append(record)
            else:
                left.append(task)
        return RenderBatch(batch.group, tuple(left))

    def _part_at(self, key: str) -> BatchPart:
        held = self._part
        if held is None or held[0] != key:
            held = self._part = key, BatchPart(self._store.get(key))
        return held[1]


@dataclass(frozen=True)
class _Call:
    """A model call that is over, and what it took."""

    outcomes: list[Rendered | TaskFailure]
    started_at_s: float
    busy_s: float
    load_s: float
    kills: dict[str, int]
