"""A whole endpoint without models: a real uvicorn server over the real store, and a finisher in place of a fleet."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn

from actors.moderator import open_moderator
from cluster.scheduling import events
from cluster.scheduling.memory import FixedMemory
from cluster.scheduling.snapshot import PlanSnapshot
from prompts.templates import read_templates
from schemas.catalog import Catalog, load_catalog
from schemas.clip import Clip, Status, Timings
from schemas.config import read_config
from serve import keys
from serve.admission.admission import Admission
from serve.config import Limits, Pools, ServeConfig
from serve.context import Context
from serve.dispatch.fleet import NOTE, FleetReport, PoolReport
from serve.dispatch.pools import make_scheduler
from serve.http.app import build
from serve.media.intake import Intake
from serve.store.contract import ApiKey, Store
from serve.store.engine import open_store
from serve.tasks import NewTask, Outcome, StoredTask
from storage.store import open_store as open_objects

CATALOG = Path(__file__).resolve().parents[3] / "rushes" / "catalog.toml"
CLIP = b"\x00\x00\x00\x18ftypmp42 not really a film"


class KeptIntake:
    """Takes everything as it is, and what says 'bad' not at all."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []

    async def take(self, uri: str, kind: str, key: ApiKey, path: tuple[str, ...]) -> str:
        from schemas.errors import MediaError

        if "bad" in uri:
            raise MediaError("not an image")
        self.taken.append((uri, kind))
        return f"s3://bucket/inputs/{kind}"


class OwnIntake:
    """The endpoint's own, made once there is an endpoint."""

    own: Intake

    async def take(self, *asked: Any) -> str:
        return await self.own.take(*asked)


def catalog_with(prices: dict[str, float] | None = None, **changes: dict[str, Any]) -> Catalog:
    """The shipped catalog, with prices by variant and whatever else by `name={field: value}`."""
    catalog = load_catalog(CATALOG)
    variants = dict(catalog.variants)
    for name, price in (prices or {}).items():
        variants[name] = variants[name].model_copy(update={"price_usd_per_gpu_hour": price})
    for name, update in changes.items():
        name = name.replace("_", "-")
        # Without its examples, which it may not be able to render any more.
        variants[name] = variants[name].model_copy(update={"examples": (), **update})
    return Catalog(variants=variants)


def pool(variant: str, **changes: Any) -> PoolReport:
    base = PoolReport(
        variant=variant,
        accelerator="cpu",
        replicas=1,
        starting=0,
        busy=0,
        queued=0,
        backlog_s=0.0,
        load_s=8.0,
        healthy=True,
    )
    return base.model_copy(update=changes)


def report_of(
    config: ServeConfig, served: Catalog, pools: tuple[PoolReport, ...], at: float, **more: Any
) -> FleetReport:
    """What a dispatcher would note whose pools are like these: a pool without a replica loads for `load_s` first, one
    that is not named here is not loaded, and an unhealthy one has failed to load."""
    scheduler = make_scheduler(config, served, {pool.variant: pool.accelerator for pool in pools}, None, at)
    for pool in pools:
        scheduler.variants[pool.variant].start_s = pool.load_s
        for _ in range(0 if pool.healthy else 3):
            scheduler.record(events.LoadFailed(pool.variant, "cannot be loaded"), at)
    scheduler.record(events.Tick(), at)
    for pool in pools:
        memory = FixedMemory(scheduler.planner.numbers[pool.variant])
        for number in range(pool.replicas if pool.healthy else 0):
            name = f"{pool.variant}-{number}"
            scheduler.record(events.WorkerUp(name, pool.accelerator, memory, pool.variant), at)
            if pool.backlog_s:
                scheduler.planner.occupy(name, pool.backlog_s, at)
    return FleetReport(at=at, pools=pools, plan=PlanSnapshot.of(scheduler.planner, at), **more)


def stored(task: NewTask, seq: int, at: float) -> StoredTask:
    """As the store would give it back."""
    told = {name: getattr(task, name) for name in NewTask.model_fields}
    return StoredTask(**told, seq=seq, status=Status.PENDING, created_at=at)


@dataclass
class Endpoint:
    """A running server, and what is behind it."""

    url: str
    context: Context
    secret: str
    key: ApiKey
    app: Any
    said: list[str] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.context.store

    def note(self, *pools: PoolReport, **changes: Any) -> None:
        """As if the dispatcher had written it just now, knowing every task there is, and it was read."""
        context = self.context
        now = context.now()
        report = report_of(context.config, context.admission.served, pools, now, **changes)
        known = max((task.seq for task in self.store.tasks.recent(1)), default=0)
        report = report.model_copy(update={"at": now + 0.3, "last_seq": known})
        self.store.notes.write(NOTE, report.model_dump(mode="json"))
        self.context.admission.refresh()

    def another_key(self, **limits: int) -> str:
        return keys.create(self.store, "another", self.context.now(), **limits)[1]

    def finish(self, task_id: str, status: Status = Status.SUCCEEDED, **outcome: Any) -> None:
        """What a dispatcher and a replica would do: lease the task, render it, end it."""
        lease, variant = self.lease(task_id)
        clip = None
        if status is Status.SUCCEEDED:
            key = f"clips/{variant}/{task_id}.mp4"
            self.context.objects.put(key, CLIP, "video/mp4")
            clip = Clip(
                uri=self.context.objects.uri(key), sha256="0" * 64, clip_bytes=len(CLIP), width=64, height=64,
                frames=17, fps=8,
            )  # fmt: skip
        ended = Outcome(status=status, variant=variant, clip=clip, timings=Timings(render_s=0.5), **outcome)
        assert self.store.tasks.finish(task_id, lease, ended, self.context.now())

    def lease(self, task_id: str) -> tuple[int, str]:
        task = self.store.tasks.get(task_id)
        assert task is not None
        now = self.context.now()
        (lease,) = self.store.tasks.lease([task.seq], "replica-1", task.offer.variant, now + 60, now)
        return lease.epoch, task.offer.variant


@contextmanager
def endpoint(
    folder: Path,
    catalog: Catalog | None = None,
    intake: Any = None,
    *,
    auth: bool = True,
    now: Callable[[], float] = time.time,
    **changes: Any,
) -> Iterator[Endpoint]:
    """A server on a free port over a fresh store, by the clock `now`."""
    changes.setdefault("pools", Pools(variants=("embedded", "embedded-turbo", "tiny-random")))
    limits = changes.pop("limits", Limits())
    config = ServeConfig(out=str(folder / "out"), port=0, auth=auth, limits=limits, **changes)
    catalog = catalog or catalog_with()
    store = open_store(config.database_url)
    secret = keys.load_secret(store)
    context = Context(
        config=config,
        catalog=catalog,
        store=store,
        objects=open_objects(config.out),
        admission=Admission(config, catalog, store, now),
        intake=intake or KeptIntake(),
        moderator=open_moderator(config.moderation.of_text, read_config()),
        templates=read_templates(config.templates),
        secret=secret,
        now=now,
    )
    if isinstance(intake, OwnIntake):
        intake.own = Intake(config, store, context.objects)
    key, bearer = keys.create(store, "test", now())
    with listening(context) as (url, app, context):
        yield Endpoint(url, context, bearer, key, app)
    store.close()


@contextmanager
def listening(context: Context) -> Iterator[tuple[str, Any, Context]]:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        context = replace(context, config=context.config.model_copy(update={"port": port}))
        app = build(context)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60.0
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield url, app, context
        finally:
            server.should_exit = True
            thread.join(10)
