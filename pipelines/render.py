"""Render a planned run: one streaming Ray Data execution, an actor pool per variant and accelerator type, in a union.

Every item that Ray Data moves is a reference to some render batches in the store; every item that comes back is a
handful of counts. Frames never leave the actor that rendered them.
"""

import _thread
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy

from actors.audit_trail import RunAudit
from actors.moderator import moderated_by
from actors.monitor import RunMonitor, Snapshot
from actors.ray_data import RenderStage, StageSpec
from cluster.connect import answers
from models.model import Model
from pipelines.plan_stage import Span
from pipelines.progress import Progress, RunStoppedError
from pipelines.run_plan import PoolSpans, RunPlan
from pipelines.streaming import quiet_context
from schemas.catalog import Catalog, Variant
from schemas.config import Config
from schemas.errors import RushesError
from schemas.run import RunOptions

# What Ray Data hands out: enough items for the last ones to be spread evenly, few enough to schedule for nothing.
_ITEMS_AN_ACTOR = 64
_ITEMS_IN_ALL = 4096
# Short batches go together up to about this much work, so that handing them out costs little.
_ITEM_S = 2.0
_BATCHES_AN_ITEM = 64
_LOOK_EVERY_S = 0.5
_JOIN_S = 2.0


def render_plan(
    plan: RunPlan,
    options: RunOptions,
    catalog: Catalog,
    out: str,
    config: Config,
    audit: RunAudit,
    on_look: Callable[[Snapshot, Progress], None] = lambda snapshot, progress: None,
    wrap: Callable[[Model], Model] | None = None,
) -> tuple[Progress, Snapshot]:
    """Render everything that the plan holds. `on_look` is called twice a second from another thread.

    Raises RunStoppedError with the cause when the run cannot go on (storage refuses, a pool cannot come up), and
    KeyboardInterrupt on Ctrl-C; what was rendered until then is in the ledger either way.
    """
    monitor = ray.remote(num_cpus=0, max_concurrency=1)(RunMonitor).remote(len({pool.variant for pool in plan.pools}))
    state = _Watched()
    with _telling_why(state), _watch(monitor, state, on_look):
        try:
            for pools in waves(plan.pools, options.max_concurrent):
                dataset = _dataset(pools, options, catalog, out, config, audit, monitor, wrap)
                for block in dataset.iter_batches(batch_size=None, prefetch_batches=0):
                    state.add(*(int(sum(block[name])) for name in ("clips", "failed", "encoded", "reused")))
        except (ray.exceptions.RayError, RushesError) as error:
            reason = _look(monitor).stop_reason if answers() else None
            raise RunStoppedError(reason or _last_line(error)) from error
    snapshot = _look(monitor)
    if snapshot.stop_reason is not None:
        raise RunStoppedError(snapshot.stop_reason)
    ray.kill(monitor)
    return state.progress(), snapshot


def waves(pools: Sequence[PoolSpans], max_concurrent: int | None) -> list[list[PoolSpans]]:
    """The pools that run at the same time, wave after wave: no more tasks are rendered at once than may be."""
    if max_concurrent is None:
        return [list(pools)]
    found: list[list[PoolSpans]] = []
    room = 0
    for pool in pools:
        size = max(span.batch_size for span in pool.spans)
        actors = max(1, min(pool.actors, max_concurrent // size))
        if actors * size > room:
            found.append([])
            room = max_concurrent
        found[-1].append(replace(pool, actors=actors))
        room -= actors * size
    return found


def _dataset(
    pools: Sequence[PoolSpans],
    options: RunOptions,
    catalog: Catalog,
    out: str,
    config: Config,
    audit: RunAudit,
    monitor: Any,
    wrap: Callable[[Model], Model] | None,
) -> ray.data.Dataset:
    context = quiet_context()
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    # Our own watchdog knows a slow step from a dead one; Ray Data's only knows that no block came.
    context.execution_no_progress_timeout_s = 7 * 24 * 3600
    digest = moderated_by(options.moderation)
    branches = []
    for pool in pools:  # in this order: actors that find no room wait until a pool before them has drained
        variant = catalog[pool.variant]
        items = cut_spans(pool.spans, pool.actors)
        size = min(pool.actors, len(items))
        spec = StageSpec(
            variant,
            out,
            config,
            options.device,
            started_at,
            options.stall_timeout_s,
            options.trust,
            audit,
            options.moderation,
            moderated_by=digest,
            finishers=catalog.finishers,
            wrap=wrap,
        )
        branches.append(
            ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                RenderStage,
                batch_size=1,
                # Two calls on an actor: the next item's first batch is prepared while the last of the present one
                # renders and is stored. A third waits at the door.
                compute=ActorPoolStrategy(
                    size=size,
                    max_tasks_in_flight_per_actor=3,
                    max_concurrent_calls_per_actor=2,
                    enable_true_multi_threading=True,
                ),
                fn_constructor_kwargs={"spec": spec, "monitor": monitor},
                **_resources(variant, options.device, pool.accelerator),
                # Every task may cost two processes before it is quarantined; beyond that something else is wrong.
                max_restarts=2 + 2 * sum(item["tasks"] for item in items),
                max_task_retries=2 + 2 * max(item["tasks"] for item in items),
            )
        )
    return branches[0].union(*branches[1:]) if len(branches) > 1 else branches[0]


def _resources(variant: Variant, device: str, accelerator: str | None) -> dict[str, Any]:
    needs = variant.needs
    resources: dict[str, Any] = {"num_cpus": needs.cpus}
    if needs.gpus and device != "cpu":
        resources["num_gpus"] = needs.gpus
        if kind := accelerator or needs.accelerator_type:
            resources["accelerator_type"] = kind
    if needs.memory_gib:
        resources["memory"] = int(needs.memory_gib * 2**30)
    return resources


def cut_spans(spans: Sequence[Span], actors: int) -> list[dict[str, Any]]:
    """What is handed out: pieces of spans, each about the same work, `tasks` the most that one can hold."""
    work_s = sum((span.stop - span.start) * span.batch_s for span in spans)
    piece_s = work_s / max(1, min(_ITEMS_IN_ALL, _ITEMS_AN_ACTOR * actors))
    items: list[dict[str, Any]] = []
    for span in spans:
        batch_s = max(span.batch_s, 1e-6)
        batches = max(1, math.ceil(piece_s / batch_s), min(_BATCHES_AN_ITEM, int(_ITEM_S / batch_s)))
        for start in range(span.start, span.stop, batches):
            stop = min(start + batches, span.stop)
            items.append({"part": span.part, "start": start, "stop": stop, "tasks": (stop - start) * span.batch_size})
    return items


class _Watched:
    """Counts shared by the consuming thread and the watching one."""

    def __init__(self) -> None:
        self._clips = self._failed = self._encoded = self._reused = 0
        self._started_s = time.monotonic()
        self.stop_reason: str | None = None

    def add(self, clips: int, failed: int, encoded: int, reused: int) -> None:
        self._clips += clips
        self._failed += failed
        self._encoded += encoded
        self._reused += reused

    def progress(self) -> Progress:
        elapsed_s = time.monotonic() - self._started_s
        return Progress(self._clips, self._failed, elapsed_s, self._encoded, self._reused)


@contextmanager
def _telling_why(state: _Watched) -> Iterator[None]:
    """What the watch interrupts has its reason. It interrupts wherever this thread is: in the run, or already in what
    is done about an error that came of the same."""
    try:
        yield
    except KeyboardInterrupt:
        if state.stop_reason is None:
            raise
        raise RunStoppedError(state.stop_reason) from None


@contextmanager
def _watch(monitor: Any, state: _Watched, on_look: Callable[[Snapshot, Progress], None]) -> Iterator[None]:
    """Look at the run twice a second: show it, and end it when there is a reason to."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY_S):
            try:
                snapshot = _look(monitor)
            except ray.exceptions.RayError:
                return
            on_look(snapshot, state.progress())
            if snapshot.stop_reason is not None and not over.is_set():
                state.stop_reason = snapshot.stop_reason
                _thread.interrupt_main()
                return

    watcher = threading.Thread(target=look, name="rushes-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(timeout=_JOIN_S)


def _look(monitor: Any) -> Snapshot:
    snapshot: Snapshot = ray.get(monitor.snapshot.remote())
    return snapshot


def _last_line(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    return str(cause).strip().splitlines()[-1][:500] if str(cause).strip() else type(cause).__name__
