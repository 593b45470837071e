"""A whole endpoint on a local Ray, whose models follow a script: what goes wrong is written down, and waited for."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve as ray_serve
from ray.exceptions import RayActorError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from models.model import Model
from schemas.catalog import parse_catalog
from schemas.clip import Status
from serve.app import APP, application
from serve.config import Pools, Queue, ServeConfig
from serve.dispatch.replica import DISPATCHER
from serve.dispatch.scaler import pool_name
from serve.store.contract import Store
from serve.store.engine import open_store
from serve.tasks import LIVE, StoredTask
from storage import keys
from storage.store import open_store as open_objects
from tests.failures.held_model import held
from tests.failures.processes import DEAR_TURN_S, PATIENCE_S, free_port, wait_until
from tests.failures.script import Point, Script

STEPS = 4
ScriptedWrap = Callable[..., Model]
"""A model and a script in, the model that follows it out."""

_VARIANT = """
[variants.{name}]
pipeline = "WanPipeline"
weights = "embedded:tiny-random"
modes = ["text_to_video"]
dtype = "float32"
steps = {steps}
guidance = 1.0
fps = 8
max_batch = 4
batch_curve = [{{ tokens = 1, batch = 4, speedup = 3.9 }}]
cost = {{ accelerator = "cpu", measured = true, fixed_s = 0.05, step_s_per_token = 0.001, load_cold_s = 0.5 }}
fallbacks = {fallbacks}
shape.divisor = 16
shape.frame_step = 4
shape.frame_offset = 1
shape.min_frames = 5
shape.max_frames = 9
shape.max_pixels = 4096
shape.native = [[32, 32, 5]]
latent = {{ channels = 16, spatial = 8, temporal = 4 }}
needs = {{ gpus = 0, cpus = 0.5 }}
"""


def catalog_text(**fallbacks: list[str]) -> str:
    """Variants with their fallbacks."""
    return "".join(
        _VARIANT.format(name=name, steps=STEPS, fallbacks=json.dumps(others)) for name, others in fallbacks.items()
    )


@dataclass
class Endpoint:
    """A running one, its store, its objects and its script."""

    folder: Path
    config: ServeConfig
    script: Script
    store: Store
    client: httpx.Client

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.store.close()

    def submit(self, prompt: str, model: str = "small", *, key: str | None = None, **fields: Any) -> str:
        """Accepted: the id of the task."""
        answer = self.post(prompt, model, key=key, **fields)
        assert answer.status_code == 200, f"{answer.text}\n{ingress_errors()}"
        return str(answer.json()["id"])

    def post(self, prompt: str, model: str = "small", *, key: str | None = None, **fields: Any) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"promptText": prompt, "model": model, "seed": 1, **fields}
        return self.client.post("/v1/text_to_video", json=body, headers=headers)

    def holding(self, *prompts: str, point: Point = "called", **fields: Any) -> list[str]:
        """Tasks of which each holds a replica of its own."""
        ids = []
        for prompt in prompts:
            self.script.plan(prompt, hold=[point])
            ids.append(self.submit(prompt, **fields))
            self.script.wait(f"at {point}", prompt)
        return ids

    def cancel(self, task_id: str) -> None:
        assert self.client.delete(f"/v1/tasks/{task_id}").status_code == 204

    def tasks(self, ids: Sequence[str]) -> list[StoredTask]:
        return list(self.store.tasks.get_many(ids))

    def task(self, task_id: str) -> StoredTask:
        return self.tasks([task_id])[0]

    def ended(self, *ids: str) -> list[StoredTask]:
        """The tasks when none of them waits or runs any more."""
        wait_until(
            lambda: all(task.status not in LIVE for task in self.tasks(ids)),
            lambda: "\n".join(_line(task) for task in self.tasks(ids)),
        )
        return self.tasks(ids)

    def succeeded(self, *ids: str) -> list[StoredTask]:
        """The tasks, each with its one clip."""
        tasks = self.ended(*ids)
        for task in tasks:
            assert task.status is Status.SUCCEEDED, _line(task)
            self.check_clip(task)
        return tasks

    def check_clip(self, task: StoredTask) -> None:
        """Exactly one clip is stored for the task, and it is the one that the task tells of."""
        assert task.outcome is not None
        assert task.outcome.clip is not None
        objects = open_objects(self.config.out)
        stored = sorted(info.key for info in objects.list(keys.task_prefix(task.id)))
        assert stored == [f"{keys.task_prefix(task.id)}{name}" for name in ("clip.mp4", "poster.jpg")]
        assert task.outcome.clip.uri == objects.uri(stored[0])
        assert hashlib.sha256(objects.get(stored[0])).hexdigest() == task.outcome.clip.sha256

    def clip_of(self, task_id: str) -> Path:
        return Path(self.config.out, keys.task_prefix(task_id), "clip.mp4")

    def objects_of(self, task_id: str) -> list[str]:
        return [info.key for info in open_objects(self.config.out).list(keys.task_prefix(task_id))]

    def statuses(self, *ids: str) -> list[Status]:
        return [task.status for task in self.tasks(ids)]

    def report(self) -> dict[str, dict[str, Any]]:
        """The pools as the dispatcher sees them, by variant."""
        report = self.ask("report")
        return {pool["variant"]: pool for pool in report["pools"]}

    def shown(self) -> dict[str, dict[str, Any]]:
        """The pools as the ingress sees them, by variant."""
        return {pool["variant"]: pool for pool in self.client.get("/v1/pools").json()["pools"]}

    def ask(self, method: str) -> Any:
        """The dispatcher."""
        handle = ray_serve.get_deployment_handle(DISPATCHER, APP)
        return getattr(handle, method).remote().result(timeout_s=PATIENCE_S)

    def wait_for_pools(self, **replicas: int) -> None:
        def there() -> bool:
            pools = self.report()
            return all(pools[name]["replicas"] == count for name, count in replicas.items())

        wait_until(there, lambda: str(self.report()), turn_s=DEAR_TURN_S)


@contextmanager
def endpoint(
    folder: Path, catalog: str, pools: Pools, queue: Queue, wrap: ScriptedWrap = held, **more: Any
) -> Iterator[Endpoint]:
    """An endpoint on the Ray that this process has. Serve is gone at the end. `more` is for its config."""
    (folder / "script").mkdir(parents=True, exist_ok=True)
    config = ServeConfig(out=str(folder / "out"), port=free_port(), auth=False, pools=pools, queue=queue, **more)
    script = Script(folder / "script")
    ray_serve.start(http_options={"host": config.host, "port": config.port}, proxy_location="HeadOnly")
    try:
        deploy(config, catalog, script, wrap)
        client = httpx.Client(base_url=config.origin, timeout=PATIENCE_S)
        with Endpoint(folder, config, script, open_store(config.database_url), client) as found:
            yield found
    finally:
        with script.nothing_held():
            ray_serve.shutdown()


def deploy(config: ServeConfig, catalog: str, script: Script | None, wrap: ScriptedWrap = held) -> None:
    app = application(
        config, parse_catalog(catalog, "endpoint.toml"), wrap=None if script is None else partial(wrap, script=script)
    )
    ray_serve.run(app, name=APP, route_prefix="/", external_scaler_enabled=True)


def pid_of(deployment: str) -> int:
    """The process of a deployment's only replica."""
    (pid,) = pids_of(deployment)
    return pid


def pids_of(deployment: str) -> list[int]:
    prefix = f"SERVE_REPLICA::{APP}#{deployment}#"
    found = ray.util.list_named_actors(all_namespaces=True)
    pids = []
    for actor in found:
        if actor["name"].startswith(prefix):
            with suppress(RayActorError, ValueError):  # it has died meanwhile
                handle = ray.get_actor(actor["name"], actor["namespace"])
                pids.append(int(ray.get(handle.__ray_call__.remote(lambda self: os.getpid()), timeout=PATIENCE_S)))
    return pids


def ingress_errors() -> str:
    """The end of what this Ray's ingresses have logged: a client is not told why something failed."""
    logs = Path(ray._private.worker._global_node.get_logs_dir_path(), "serve")
    return "\n".join(path.read_text()[-8000:] for path in logs.glob(f"replica_{APP}_Ingress_*.log"))


def controller_pid() -> int:
    controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    return int(ray.get(controller.__ray_call__.remote(lambda self: os.getpid())))


def pool_pids(variant: str) -> list[int]:
    return pids_of(pool_name(variant))


def _line(task: StoredTask) -> str:
    why = task.outcome.failure if task.outcome else ""
    return (
        f"{task.request.prompt}: {task.status.value} attempts={task.attempts} epoch={task.epoch} on {task.variant}"
        f" by {task.holder} {task.stage} {task.last_error} {why}"
    )
