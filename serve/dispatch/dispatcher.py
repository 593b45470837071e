"""The one Serve deployment that hosts the scheduler: replicas pull from it, ingresses wake it, its threads keep time.

It may die at any moment: Serve starts another, which reads the queue from the store while replicas keep what they have.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from time import time

import ray
from ray import serve as ray_serve

from cluster.topology import topology_of
from schemas.catalog import Catalog
from schemas.errors import RushesError
from serve.config import DAY_S, ServeConfig
from serve.dispatch.audit_chainer import AuditChainer
from serve.dispatch.driver import SchedulerDriver
from serve.dispatch.messages import Beat, Begun, Hello, LoadFailure, Results, Work
from serve.dispatch.orphans import OrphanCollector, sweep
from serve.dispatch.replica import POLL_S
from serve.dispatch.retention import Housekeeper
from serve.dispatch.scaler import Scaler
from serve.keys import load_secret
from serve.observability.logs import configure
from serve.observability.metrics import DispatchMetrics
from serve.store.contract import Store
from serve.store.engine import open_store
from serve.webhooks import Deliverer
from storage.store import open_store as open_objects
from trust.actor import service

log = logging.getLogger(__name__)

_TICK_S = 0.25
_SCALE_S = 1.0
_SWEEP_S = DAY_S / 4
_HEARD_BEATS = 3


class Dispatcher:
    """Constructor arguments are small and picklable: the store is opened here, on the node where this runs."""

    def __init__(self, config: ServeConfig, served: Catalog) -> None:
        configure()
        self._config = config
        self._store: Store = open_store(config.database_url, config.audit, service("dispatcher"))
        load_secret(self._store)
        self._objects = open_objects(config.out)
        topology = topology_of(ray.nodes())
        accelerator = config.pools.accelerator or topology.accelerator
        self._metrics = DispatchMetrics()
        self._loop = asyncio.get_running_loop()
        self._awaited: dict[str, asyncio.Event] = {}
        self._driver = SchedulerDriver(
            config,
            served,
            self._store,
            accelerators=tuple(dict.fromkeys(("cpu", accelerator, *topology.accelerators))),
            metrics=self._metrics,
            on_work=self._announce,
            on_cancelled=OrphanCollector(self._objects).remove,
        )
        context = ray_serve.get_replica_context()
        self._scaler = Scaler(context.app_name)
        self._heartbeat_s = config.queue.heartbeat_s
        self._woken = threading.Event()
        self._stop = threading.Event()
        deliverer = Deliverer(self._store, config)
        housekeeper = Housekeeper(self._store, self._objects, config.retention)
        audit = AuditChainer(self._store, self._objects, config)
        for name, target in (
            ("pump", self._pump),
            ("scale", self._scale),
            ("webhooks", lambda: deliverer.run(self._stop)),
            ("sweep", self._sweep),
            ("retention", lambda: housekeeper.run(self._stop)),
            ("audit", lambda: audit.run(self._stop)),
        ):
            threading.Thread(target=self._kept_alive, args=(name, target), name=name, daemon=True).start()

    # -- replicas ------------------------------------------------------------------------------------------------

    async def pull(self, hello: Hello) -> Work | None:
        """A replica's next batch; waits for one for `POLL_S`."""
        event = self._awaited.setdefault(hello.replica, asyncio.Event())
        event.clear()
        work = await asyncio.to_thread(self._driver.pull, hello)
        if work is not None:
            return work
        try:
            await asyncio.wait_for(event.wait(), POLL_S)
        except TimeoutError:
            return None
        return await asyncio.to_thread(self._driver.pull, hello)

    async def begun(self, said: Begun) -> None:
        self._driver.begun(said)  # at once: a model waits for this

    async def beat(self, beat: Beat) -> tuple[str, ...]:
        return await asyncio.to_thread(self._driver.beat, beat)

    async def done(self, results: Results) -> None:
        await asyncio.to_thread(self._driver.done, results)
        self._woken.set()

    async def failed_to_load(self, failure: LoadFailure) -> None:
        await asyncio.to_thread(self._driver.failed_to_load, failure)

    async def gone(self, replica: str) -> None:
        await asyncio.to_thread(self._driver.gone, replica)
        self._awaited.pop(replica, None)

    def _announce(self, replica: str) -> None:
        """From whichever thread: a batch is ready for the replica, which may be waiting for it."""

        def tell() -> None:
            event = self._awaited.get(replica)
            if event is not None:
                event.set()

        self._loop.call_soon_threadsafe(tell)

    # -- others --------------------------------------------------------------------------------------------------

    async def wake(self) -> None:
        """The store has something new."""
        self._woken.set()

    async def metrics(self) -> bytes:
        return await asyncio.to_thread(self._metrics.text)

    async def report(self) -> dict[str, object]:
        """The fleet as it is now, as JSON."""
        return (await asyncio.to_thread(self._driver.report)).model_dump(mode="json")

    async def settings(self) -> ServeConfig:
        """The endpoint's, for processes of bulk runs. By this call alone: a job's command line is for all to see."""
        return self._config

    async def running(self) -> int:
        """Tasks that somebody holds."""
        return len(await asyncio.to_thread(self._store.tasks.running))

    async def drain(self) -> None:
        """Give out no more work; what runs is finished."""
        await asyncio.to_thread(self._driver.drain)

    # -- threads -------------------------------------------------------------------------------------------------

    def _kept_alive(self, name: str, target: Callable[[], None]) -> None:
        """A store that is away for a while must not end a thread."""
        while not self._stop.is_set():
            try:
                target()
            except Exception:
                log.exception("%s: goes on in a second", name)
                self._stop.wait(1.0)

    def _pump(self) -> None:
        while not self._stop.is_set():
            self._woken.wait(_TICK_S)
            self._woken.clear()
            self._driver.pump()

    def _scale(self) -> None:
        # Replicas that render for a dispatcher of before are heard first.
        self._stop.wait(_HEARD_BEATS * self._heartbeat_s)
        while not self._stop.wait(_SCALE_S):
            topology = topology_of(ray.nodes())
            self._scaler.apply(dict(self._driver.sizes(topology.gpus, topology.cpus)))

    def _sweep(self) -> None:
        # What the dispatcher of before was about to remove is found as well.
        while not self._stop.is_set():
            try:
                removed = sweep(self._store.tasks, self._objects, time())
            except RushesError as error:
                log.warning("what was stored for tasks that ended without a clip stays for now: %s", error)
            else:
                if removed:
                    log.info("removed %d objects of tasks that ended without a clip", removed)
            self._stop.wait(_SWEEP_S)

    def __del__(self) -> None:
        self._stop.set()
        self._woken.set()
