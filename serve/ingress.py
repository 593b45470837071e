"""The ingress deployment: the HTTP application over a context of its own, in each replica."""

import asyncio
import logging
from time import time
from typing import Any

from ray import serve as ray_serve

from actors.moderator import open_moderator
from prompts.templates import read_templates
from schemas.catalog import Catalog
from schemas.config import read_config
from serve.admission.admission import Admission
from serve.bulk import BulkLauncher
from serve.config import ServeConfig
from serve.context import Context
from serve.dispatch.replica import dispatcher_of
from serve.http.app import build
from serve.keys import load_secret
from serve.media.intake import Intake
from serve.observability.logs import configure
from serve.store.engine import open_store
from storage.store import open_store as open_objects
from trust.actor import service

log = logging.getLogger(__name__)

INGRESS = "Ingress"
_METRICS_S = 2.0
_WAKE_S = 0.05


def ingress_app(config: ServeConfig, catalog: Catalog, bulk: BulkLauncher | None = None) -> Any:
    """The ASGI application of this process. Called inside the replica: nothing of it travels."""
    configure()
    store = open_store(config.database_url, config.audit, service("ingress"))
    objects = open_objects(config.out)
    waker = _Dispatcher(ray_serve.get_replica_context().app_name)
    context = Context(
        config=config,
        catalog=catalog,
        store=store,
        objects=objects,
        admission=Admission(config, catalog, store, time),
        intake=Intake(config, store, objects),
        moderator=open_moderator(config.moderation.of_text, read_config()),
        templates=read_templates(config.templates),
        wake=waker.wake,
        secret=load_secret(store),
    )
    app = build(context)
    app.state.dispatch_metrics = waker.metrics
    app.state.bulk = bulk
    return app


class _Dispatcher:
    """What an ingress asks of the dispatcher, none of which a client waits for."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._handle: Any = None
        self._next: asyncio.TimerHandle | None = None
        self._last_s = 0.0

    def _reached(self) -> Any:
        if self._handle is None:
            self._handle = dispatcher_of(self._app)
        return self._handle

    def wake(self) -> None:
        """There is work: told at once, but then not again for `_WAKE_S`; what comes meanwhile is one call after that.

        A call costs both sides milliseconds, and the dispatcher reads all that is new each time. A lost one costs a
        tick: it looks by itself too. Called on the event loop.
        """
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.call_at(max(loop.time(), self._last_s + _WAKE_S), self._tell, loop)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next, self._last_s = None, loop.time()
        try:
            self._reached().wake.remote()
        except Exception:
            log.debug("the dispatcher could not be woken", exc_info=True)

    async def metrics(self) -> bytes:
        """Its own figures; raises when it does not answer."""
        return bytes(await asyncio.wait_for(self._reached().metrics.remote(), _METRICS_S))
