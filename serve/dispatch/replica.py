"""A Serve deployment's replica: one loaded variant, rendering what the dispatcher gives it.

Serve starts, places, checks and stops it; batches do not come as requests but are pulled, so that the dispatcher knows
who renders what, and a replica that dies takes no request of a client with it.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray import serve as ray_serve

from actors.media_reader import ConfinedMediaReader
from actors.media_source import MediaSource
from actors.moderator import open_moderator
from actors.provenance import open_provenance
from actors.publisher import Publisher
from actors.renderer import Renderer
from actors.weights import StoredWeights
from actors.worker import Worker, WorkerSettings
from models.extraction import Extractors
from models.finishing import Finishing
from models.loader import load_model
from models.model import Model
from schemas.catalog import Variant
from schemas.config import read_config
from schemas.errors import RushesError, is_transient
from schemas.finish import FLOOR, Finisher
from serve.config import ServeConfig
from serve.dispatch.messages import Beat, Begun, Hello, LoadFailure, Results, Work
from serve.dispatch.replica_link import ReplicaLink
from serve.observability.logs import configure
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


class _DispatcherCalls:
    """The dispatcher's methods, by its handle."""

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

    def __init__(
        self,
        variant: Variant,
        config: ServeConfig,
        wrap: Wrap | None = None,
        finishers: Mapping[str, Finisher] = FLOOR,
    ) -> None:
        configure()
        context = ray_serve.get_replica_context()
        self._config = config
        self._name = context.replica_id.unique_id
        self._dispatcher = _DispatcherCalls(context.app_name)
        try:
            loaded: Model = load_model(
                variant,
                device="cpu" if not variant.needs.gpus else None,
                cache=read_config().cache_dir,
                store=StoredWeights(),
                prompt_bytes=read_config().prompt_cache_bytes,
            )
            model = loaded if wrap is None else wrap(loaded)
        except Exception as error:
            # Serve tries again with a growing pause; until then the variant's tasks go elsewhere.
            said = str(error) if isinstance(error, RushesError) else f"{type(error).__name__}: {error}"
            self._dispatcher.failed_to_load(LoadFailure(self._name, variant.name, said, not is_transient(error)))
            raise
        load_s = loaded.load_s
        objects = open_store(config.out)
        settings, trust = read_config(), config.trust
        provenance = open_provenance(trust, settings.state_dir)
        device = "cuda" if variant.needs.gpus else "cpu"
        publisher = Publisher(
            objects,
            variant,
            model.revision,
            names=keys.TASK_NAMES,
            provenance=provenance,
            finishing=Finishing(finishers, device, settings.cache_dir, StoredWeights()),
        )
        media = ConfinedMediaReader(
            MediaSource(settings),
            settings.media_timeout_s,
            ingredients=provenance.has_ingredients,
            extractors=Extractors(settings.cache_dir, StoredWeights(), device),
        )
        link = ReplicaLink(self._dispatcher, Hello(self._name, variant.name, load_s), publisher)
        queue = config.queue
        rules = WorkerSettings(
            stall_s=queue.stall_s,
            beat_s=queue.heartbeat_s,
            ask_late=True,
            bill_refused=config.moderation.bill_refused_output,
        )
        moderator = open_moderator(config.moderation.of_frames, settings)
        self._worker = Worker(Renderer(model), publisher, media, link, rules, moderator=moderator)
        self._stopped = threading.Lock()
        self._worker.start()
        log.info("replica %s of %s renders", self._name, variant.name)

    def check_health(self) -> None:
        """Serve replaces a replica for which this raises."""
        self._worker.check()

    def __del__(self) -> None:
        """Serve has taken this replica out: what it holds is finished first, within Serve's own limit."""
        worker = getattr(self, "_worker", None)
        if worker is None or not self._stopped.acquire(blocking=False):
            return
        worker.stop(self._config.queue.drain_s)
        try:
            self._dispatcher.gone(self._name)
        except Exception:
            log.info("the dispatcher does not answer: it will notice by itself")
