"""A Serve deployment's replica: one loaded variant, rendering what the dispatcher gives it.

Serve starts, places, checks and stops it; batches do not come as requests but are pulled, so that the dispatcher knows
who renders what, and a replica that dies takes no request of a client with it.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from ray import serve as ray_serve

from actors.media_source import MediaSource
from actors.publisher import Publisher
from actors.renderer import Renderer
from actors.weights import StoredWeights
from models.loader import load
from models.model import Model
from schemas.catalog import Variant
from schemas.config import read_config
from schemas.errors import RushesError, is_transient
from serve.config import ServeConfig
from serve.logs import configure
from serve.messages import Beat, Begun, Hello, LoadFailure, Results, Work
from serve.render_loop import RenderLoop
from storage import keys
from storage.store import open_store

log = logging.getLogger(__name__)

DISPATCHER = "Dispatcher"
POLL_S = 2.0
_CALL_S = 30.0
_BEGUN_S = 2.0  # a dispatcher that is away keeps nobody from rendering

Wrap = Callable[[Model], Model]


def dispatcher_of(app: str) -> Any:
    """Its Serve handle, which finds it again after a restart.

    By gRPC: an answer by way of Ray waits for the caller's receipt, on the event loop of the one who answers, so that
    one caller that is stopped, or cut off, would stop the dispatcher for all.
    """
    return ray_serve.get_deployment_handle(DISPATCHER, app).options(_by_reference=False)


class DispatcherLink:
    """The dispatcher, for a replica."""

    def __init__(self, app: str) -> None:
        self._handle = dispatcher_of(app)

    def pull(self, hello: Hello) -> Work | None:
        return self._handle.pull.remote(hello).result(timeout_s=POLL_S + _CALL_S)

    def begun(self, said: Begun) -> None:
        self._handle.begun.remote(said).result(timeout_s=_BEGUN_S)

    def beat(self, beat: Beat) -> tuple[str, ...]:
        return self._handle.beat.remote(beat).result(timeout_s=_CALL_S)

    def done(self, results: Results) -> None:
        self._handle.done.remote(results).result(timeout_s=_CALL_S)

    def failed_to_load(self, failure: LoadFailure) -> None:
        self._handle.failed_to_load.remote(failure).result(timeout_s=_CALL_S)

    def gone(self, replica: str) -> None:
        self._handle.gone.remote(replica).result(timeout_s=_CALL_S)


class Replica:
    """Loads its variant and renders until it is stopped. `wrap` stands between the model and its callers: scripted
    faults in tests, nothing in production."""

    def __init__(self, variant: Variant, config: ServeConfig, wrap: Wrap | None = None) -> None:
        configure()
        context = ray_serve.get_replica_context()
        self._config = config
        self._name = context.replica_id.unique_id
        self._link = DispatcherLink(context.app_name)
        try:
            loaded: Model = load(
                variant,
                device="cpu" if not variant.needs.gpus else None,
                cache=read_config().cache_dir,
                store=StoredWeights(),
            )
            model = loaded if wrap is None else wrap(loaded)
        except RushesError as error:
            # Serve tries again with a growing pause; until then the variant's tasks go elsewhere.
            self._link.failed_to_load(LoadFailure(self._name, variant.name, str(error), not is_transient(error)))
            raise
        load_s = loaded.load_s
        objects = open_store(config.out)
        publisher = Publisher(objects, _NoLedger(), variant, model.revision, names=keys.TASK_NAMES)
        renderer = Renderer(model, read_media=MediaSource(read_config()))
        hello = Hello(self._name, variant.name, load_s)
        self._loop = RenderLoop(renderer, publisher, self._link, hello, config.queue)
        self._stopped = threading.Lock()
        self._loop.start()
        log.info("replica %s of %s renders", self._name, variant.name)

    def check_health(self) -> None:
        """Serve replaces a replica for which this raises."""
        self._loop.check()

    def __del__(self) -> None:
        """Serve has taken this replica out: what it holds is finished first, within Serve's own limit."""
        loop = getattr(self, "_loop", None)
        if loop is None or not self._stopped.acquire(blocking=False):
            return
        loop.stop(self._config.queue.drain_s)
        try:
            self._link.gone(self._name)
        except Exception:
            log.info("the dispatcher does not answer: it will notice by itself")


class _NoLedger:
    """Endpoint tasks are recorded in the task store, by the dispatcher."""

    def write(self, record: object) -> None:
        """Nothing: the record travels in the results."""
