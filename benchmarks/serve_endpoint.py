"""An endpoint to measure: the whole application on a Serve of its own, and a bare FastAPI no-op beside it."""

import functools
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve as ray_serve

from benchmarks.load_client import Client
from cluster.connect import connected
from models.model import Cancelled, Frames, Model, OnStep, Sounding, TaskMedia, WrappedModel
from schemas.errors import PermanentError
from schemas.task import RenderBatch
from serve import keys
from serve.app import APP, application, open_serve_catalog
from serve.config import Pools, ServeConfig
from serve.dispatch.replica import DISPATCHER
from serve.store.contract import Store
from serve.store.engine import open_store

_READY_S = 180.0


class Stamped(WrappedModel):
    """A model that notes when its first two steps were done: a line of JSON a call."""

    def __init__(self, model: Model, path: str) -> None:
        super().__init__(model)
        self._path = path

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | Sounding | PermanentError, ...]:
        called, steps = time.time(), list[float]()

        def told(done: int, total: int) -> None:
            steps.append(time.time())
            on_step(done, total)

        frames = self.inner.render(batch, media, told, cancelled)
        line = {"ids": [task.fingerprint for task in batch.tasks], "called": called, "steps": steps[:2]}
        with open(self._path, "a") as file:
            file.write(json.dumps(line) + "\n")
        return frames


@dataclass(frozen=True)
class Endpoint:
    """One that runs, with a key, and a store opened beside it: looking there costs the endpoint nothing."""

    config: ServeConfig
    headers: dict[str, str]
    key_id: str
    store: Store
    stamps: Path

    def client(self) -> Client:
        return Client(self.config.host, self.config.port, self.headers)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request, outside of any measurement."""
        connection = http.client.HTTPConnection(self.config.host, self.config.port, timeout=120)
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json", **self.headers})
        answer = connection.getresponse()
        told = answer.read()
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {told[:300]!r}")
        return json.loads(told) if told else None

    def drain(self) -> None:
        ray_serve.get_deployment_handle(DISPATCHER, APP).drain.remote().result(timeout_s=60)

    def forget_queue(self) -> None:
        """Cancel all that waits."""
        for task in self.store.tasks.pending(limit=10**6):
            self.store.tasks.cancel(task.id, None, time.time())


class _Bare:
    """All of it is in its FastAPI application."""


@contextmanager
def endpoint(folder: Path, variant: str, database: str | None, replicas: int = 1, *more: str) -> Iterator[Endpoint]:
    """The whole application with the variants, each with so many replicas, and the no-op at `/bare`; ready to render
    when it is yielded."""
    from fastapi import FastAPI

    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    each = dict.fromkeys((variant, *more), replicas)
    pools = Pools(variants=tuple(each), min_replicas=each, max_replicas=each)
    config = ServeConfig(out=str(folder / "out"), database=database, port=port, pools=pools)
    store = open_store(config.database_url)
    keys.load_secret(store)
    key, secret = keys.create(store, "load", time.time())
    bare: Any = FastAPI()

    @bare.get("/")
    async def nothing() -> dict[str, int]:
        return {"hello": 1}

    @bare.post("/")
    async def read_and_nothing(body: dict[str, Any]) -> dict[str, int]:
        return {"hello": len(body)}

    # As our ingress: one replica, as many at once, no line in a log for each request.
    no_op = ray_serve.deployment(ray_serve.ingress(bare)(_Bare)).options(
        name="Bare",
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False},
    )
    with connected(None):
        ray_serve.start(http_options={"host": config.host, "port": port}, proxy_location="HeadOnly")
        wrap = functools.partial(Stamped, path=str(folder / "stamps.jsonl"))
        app = application(config, open_serve_catalog(config), wrap=wrap)
        ray_serve.run(app, name=APP, route_prefix="/", external_scaler_enabled=True)
        ray_serve.run(no_op.bind(), name="bare", route_prefix="/bare")
        headers = {"Authorization": f"Bearer {secret}", "X-Runway-Version": "2024-11-06"}
        running = Endpoint(config, headers, key.id, store, folder / "stamps.jsonl")
        try:
            wait_until(
                lambda: sum(pool["replicas"] for pool in report()["pools"]) >= sum(each.values()), "replicas are up"
            )
            yield running
        finally:
            ray_serve.shutdown()
            store.close()


def report() -> dict[str, Any]:
    found: dict[str, Any] = ray_serve.get_deployment_handle(DISPATCHER, APP).report.remote().result(timeout_s=60)
    return found


def wait_until(happened: Callable[[], bool], what: str, every_s: float = 0.05, within_s: float = _READY_S) -> None:
    until = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > until:
            raise RuntimeError(f"waited {within_s:.0f} s until {what}")
        time.sleep(every_s)
