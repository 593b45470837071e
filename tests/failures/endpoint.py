"""A whole endpoint on a local Ray, whose models follow a script: what goes wrong is written down, and waited for.

The script is a folder that every process reads and writes, so that it outlives those that die. A model stops where a
task's deeds say so, until the test lets it go on; nothing here sleeps and hopes.
"""

import hashlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import ray
from ray import serve as ray_serve
from ray.exceptions import RayActorError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from models.model import Cancelled, Frames, Model, OnStep, TaskMedia, WrappedModel
from schemas.catalog import parse_catalog
from schemas.clip import Status
from schemas.errors import OutOfMemoryError, PermanentError, StorageUnavailableError, VariantLoadError
from schemas.task import RenderBatch
from serve.app import APP, application
from serve.config import Pools, Queue, ServeConfig
from serve.replica import DISPATCHER
from serve.scaler import pool_name
from serve.store.contract import Store
from serve.store.engine import open_store
from serve.tasks import LIVE, StoredTask
from storage import keys
from storage.store import open_store as open_objects

PATIENCE_S = 300.0
STEPS = 4
_TURN_S = 0.02

# Where a model stops: the call has begun, one step is done, the frames are there, the encoder asks for them.
Point = Literal["called", "step", "rendered", "encoding"]

# What is raised: by the model, or while the clip is encoded.
Fault = Literal["memory", "storage"]

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


# -- the script ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deeds:
    """What happens to a task, in each model call that it is part of."""

    hold: tuple[Point, ...] = ()
    die: int = 0  # in so many calls
    fail: tuple[Fault, ...] = ()  # one a call


@dataclass(frozen=True)
class Script:
    """The folder. A prompt names its task, so it is used once."""

    folder: Path

    def __call__(self, model: Model) -> "ScriptedModel":
        name = model.variant.name
        self.tell("loading", name)
        wait_until(lambda: not (self.folder / f"hold.{name}").exists())
        if (self.folder / f"fail.{name}").exists():
            raise VariantLoadError(f"the script says that {name} cannot be loaded")
        return ScriptedModel(model, self)

    # what the test says

    def plan(self, prompt: str, **deeds: Any) -> None:
        (self.folder / f"{prompt}.json").write_text(json.dumps(deeds))

    def go_on(self, prompt: str, point: Point) -> None:
        (self.folder / f"{prompt}.{point}.go").touch()

    @contextmanager
    def nothing_held(self) -> Iterator[None]:
        """Whoever stops anywhere goes on."""
        sign = self.folder / "all.go"
        sign.touch()
        try:
            yield
        finally:
            sign.unlink()

    @contextmanager
    def loading(self, variant: str, what: Literal["hold", "fail"]) -> Iterator[None]:
        """Replicas of the variant do not get past loading."""
        sign = self.folder / f"{what}.{variant}"
        sign.touch()
        try:
            yield
        finally:
            sign.unlink()

    def wait(self, what: str, name: str, count: int = 1) -> dict[str, Any]:
        """The `count`th event of its kind, of a task or a variant."""
        wait_until(lambda: len(self.events(what, name)) >= count, f"{what} of {name}, {count} times")
        return self.events(what, name)[count - 1]

    def events(self, what: str, name: str) -> list[dict[str, Any]]:
        log = self.folder / "events.jsonl"
        if not log.exists():
            return []
        told = [json.loads(line) for line in log.read_text().splitlines()]
        return [event for event in told if event["what"] == what and name in event["names"]]

    # what the models say

    def deeds_of(self, prompt: str) -> Deeds:
        path = self.folder / f"{prompt}.json"
        if not path.exists():
            return Deeds()
        return Deeds(
            **{name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(path.read_text()).items()}
        )

    def tell(self, what: str, *names: str, **more: Any) -> None:
        line = json.dumps({"what": what, "names": names, "pid": os.getpid(), "at": time.time(), **more})
        with (self.folder / "events.jsonl").open("a") as log:
            log.write(line + "\n")

    def hold(self, prompt: str, point: Point, stopped: Callable[[], bool] = lambda: False) -> None:
        if point not in self.deeds_of(prompt).hold or self._may_go(prompt, point):
            return
        self.tell(f"at {point}", prompt)
        told = False
        while not self._may_go(prompt, point):
            if not told and stopped():
                told = True
                self.tell("told to stop", prompt)
            threading.Event().wait(_TURN_S)

    def _may_go(self, prompt: str, point: Point) -> bool:
        return any((self.folder / name).exists() for name in (f"{prompt}.{point}.go", "all.go"))


class ScriptedModel(WrappedModel):
    """The model, until the script says otherwise."""

    def __init__(self, model: Model, script: Script) -> None:
        super().__init__(model)
        self._script = script

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | PermanentError, ...]:
        script = self._script
        prompts = [task.prompt for task in batch.tasks]
        ids = {task.prompt: task.fingerprint for task in batch.tasks}
        script.tell("called", *prompts, variant=self.variant.name)

        def hold_all(point: Point) -> None:
            for prompt in prompts:
                script.hold(prompt, point, lambda prompt=prompt: ids[prompt] in cancelled())

        for prompt in prompts:
            calls, deeds = len(script.events("called", prompt)), script.deeds_of(prompt)
            if calls <= deeds.die:
                os.kill(os.getpid(), signal.SIGKILL)
            if calls <= len(deeds.fail) and deeds.fail[calls - 1] == "memory":
                raise OutOfMemoryError(f"the script says so for {prompt!r}")
        hold_all("called")

        def step(done: int, total: int) -> None:
            script.tell("step", *prompts, done=done, total=total)
            on_step(done, total)
            if done == 1:
                hold_all("step")

        clips = self.inner.render(batch, media, step, cancelled)
        hold_all("rendered")
        return tuple(
            _HeldFrames.of(clip, script, prompt) if isinstance(clip, np.ndarray) else clip
            for clip, prompt in zip(clips, prompts, strict=True)
        )


class _HeldFrames(np.ndarray):
    """Frames that stop whoever encodes them."""

    _meet: Callable[[], None] | None = None

    @classmethod
    def of(cls, frames: Frames, script: Script, prompt: str) -> "_HeldFrames":
        held = frames.view(cls)

        def meet() -> None:
            script.hold(prompt, "encoding")
            call, deeds = len(script.events("called", prompt)), script.deeds_of(prompt)
            if call <= len(deeds.fail) and deeds.fail[call - 1] == "storage":
                raise StorageUnavailableError(f"the script says so for {prompt!r}")
            script.tell("encoded", prompt)

        held._meet = meet
        return held

    def __iter__(self) -> Iterator[Any]:
        meet, self._meet = self._meet, None
        if meet is not None:
            meet()
        return iter(self.view(np.ndarray))


# -- the endpoint --------------------------------------------------------------------------------------------------


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
        assert answer.status_code == 200, answer.text
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

        wait_until(there, lambda: str(self.report()))


@contextmanager
def endpoint(folder: Path, catalog: str, pools: Pools, queue: Queue) -> Iterator[Endpoint]:
    """An endpoint on the Ray that this process has. Serve is gone at the end."""
    (folder / "script").mkdir(parents=True, exist_ok=True)
    config = ServeConfig(out=str(folder / "out"), port=free_port(), auth=False, pools=pools, queue=queue)
    script = Script(folder / "script")
    ray_serve.start(http_options={"host": config.host, "port": config.port}, proxy_location="HeadOnly")
    try:
        deploy(config, catalog, script)
        client = httpx.Client(base_url=config.origin, timeout=PATIENCE_S)
        with Endpoint(folder, config, script, open_store(config.database_url), client) as found:
            yield found
    finally:
        with script.nothing_held():
            ray_serve.shutdown()


def deploy(config: ServeConfig, catalog: str, script: Script | None) -> None:
    app = application(config, parse_catalog(catalog, "endpoint.toml"), wrap=script)
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


def controller_pid() -> int:
    controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    return int(ray.get(controller.__ray_call__.remote(lambda self: os.getpid())))


def pool_pids(variant: str) -> list[int]:
    return pids_of(pool_name(variant))


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), f"the end of process {pid}")


def try_kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def family_of(pid: int) -> list[int]:
    """A process and all that come from it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                parent = int(Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(met: Callable[[], bool], what: str | Callable[[], str] = "", patience_s: float = PATIENCE_S) -> None:
    """Until a condition that other processes bring about is met; fails loudly when it never is."""
    deadline = time.monotonic() + patience_s
    while not met():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:g} s for {what if isinstance(what, str) else what()}")
        threading.Event().wait(_TURN_S)


def _line(task: StoredTask) -> str:
    why = task.outcome.failure if task.outcome else ""
    return (
        f"{task.request.prompt}: {task.status.value} attempts={task.attempts} epoch={task.epoch} on {task.variant}"
        f" by {task.holder} {task.stage} {task.last_error} {why}"
    )
