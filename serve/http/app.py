"""The endpoint's HTTP face: `build(context)` gives the ASGI application.

HOW TO HANG ROUTES IN. A module of routes is named in `PARTS` below and has

    router = APIRouter()                                   # its paths are whole: "/v1/estimates"
    def include(app: FastAPI, context: Context) -> None:   # optional: mounts, state, start-up work

Inside a route:

    from serve.http.routes import Caller, body_of, context_of, in_thread, json_answer

    @router.post("/v1/things", **documented(ThingBody, "Make a thing", example={…}, answer={…}))
    async def make(request: Request, key: Caller) -> Response:
        body = await body_of(request, ThingBody)            # ThingBody(serve.wire.base.Wire): camelCase, 400 on its own
        context = context_of(request)
        things = await in_thread(context.store.things.all)  # the store waits: never call it on the event loop
        return json_answer({"things": things})

FastAPI's own bodies and response models work too. Whatever a route raises becomes Runway's envelope
(`serve.http.errors.as_response`): InvalidRequestError, WireError, MediaError, AddressError → 400; UnauthorizedError →
401; NotFoundError, ObjectMissingError → 404; IdempotencyError → 409; DailyLimitError → 429; TransientError → 503;
anything else → 500, logged. A MediaError or AddressError with an attribute `path` (a tuple) names the field.

`app.state`: `context` (Context), `metrics` (IngressMetrics), `work_notifier` (`.notify()` wakes the dispatcher),
`refusals` (what the audit log is told of requests that make nothing).
`request.state.request_id` is the id of the request.
A task on the wire is `serve.wire.tasks.shown(task, position=…, now=…, sign=serve.http.tasks.signer(context))`.
Start-up and shutdown: append to `app.state.starting` and `app.state.stopping` (async functions without arguments).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from schemas.errors import RushesError
from serve.admission.admission import LEAST_REFRESH_S, REFRESH_S
from serve.context import Context
from serve.http import (
    batches,
    creates,
    errors,
    estimates,
    events,
    fleet,
    generate,
    guides,
    health,
    organization,
    page,
    refusals,
    routers,
    tasks,
    unavailable,
    uploads,
)
from serve.http.batched_store import BatchedStore
from serve.http.document import BODIES, COMPONENTS, DESCRIPTION
from serve.http.micro_batcher import CoalescedNotifier
from serve.http.request_limits import RequestLimits
from serve.media import outputs
from serve.media import uploads as receiver
from serve.observability.metrics import IngressMetrics

log = logging.getLogger(__name__)

PARTS: tuple[ModuleType, ...] = (
    tasks,  # first: asked for most often, and routes are tried in order
    creates,
    uploads,
    organization,
    routers,
    generate,
    estimates,
    guides,
    fleet,
    batches,
    events,
    health,
    page,
    receiver,
    outputs,
)


def build(context: Context) -> FastAPI:
    """The application over `context`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for hook in app.state.starting:
            await hook()
        yield
        for hook in reversed(app.state.stopping):
            await hook()

    app = FastAPI(
        title="Rushes",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        openapi_url="/openapi.json",
        docs_url=None,  # `serve.http.page` has it, without anything from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # `RequestLimits` sees to those
    )
    app.state.context = context
    app.state.metrics = IngressMetrics()
    app.state.batched_store = BatchedStore(context.store.tasks)
    app.state.refusals = refusals.batcher(context)
    app.state.work_notifier = CoalescedNotifier(lambda: app.state.context.wake())
    app.state.starting = []
    app.state.stopping = []
    _keep_fresh(app, context)
    errors.install(app)
    for part in PARTS:
        _hang_in(app, context, part)
    unavailable.include(app)
    app.add_middleware(RequestLimits, config=context.config, answered=app.state.metrics.answered)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _keep_fresh(app: FastAPI, context: Context) -> None:
    """While the application runs, the fleet's state is read beside the requests, not by them."""
    reading: list[asyncio.Task[None]] = []

    async def start() -> None:
        await asyncio.to_thread(context.admission.refresh)
        context.admission.kept_fresh = True
        reading.append(asyncio.create_task(_refresh_forever(context)))

    async def stop() -> None:
        context.admission.kept_fresh = False
        for task in reading:
            task.cancel()
        app.state.batched_store.close()
        app.state.refusals.close()

    app.state.starting.append(start)
    app.state.stopping.append(stop)


async def _refresh_forever(context: Context) -> None:
    is_away, pause_s = False, LEAST_REFRESH_S
    while True:
        await asyncio.sleep(pause_s)
        began = time.monotonic()
        try:
            await asyncio.to_thread(context.admission.refresh)
            is_away = False
        except Exception as error:
            # Whoever stores something meanwhile is told; quotes go by what was last seen.
            if not is_away:
                log.warning("the fleet's state cannot be read: %s", error, exc_info=not isinstance(error, RushesError))
            is_away = True
        # A large fleet is read less often: it takes a twentieth of the time at most.
        pause_s = min(REFRESH_S, max(LEAST_REFRESH_S, 20 * (time.monotonic() - began)))


def _hang_in(app: FastAPI, context: Context, part: ModuleType) -> None:
    app.include_router(part.router)
    if hasattr(part, "include"):
        part.include(app, context)


def _document(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with the bodies that routes read themselves."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            openapi_version="3.1.0",
        )
        _, schemas = models_json_schema(
            [(model, "validation") for model in BODIES], by_alias=True, ref_template="#/components/schemas/{model}"
        )
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(schemas.get("$defs", {}))
        for kind, entries in COMPONENTS.items():
            components.setdefault(kind, {}).update(entries)
        document["security"] = [{"key": []}]
        document["servers"] = [{"url": app.state.context.config.origin}]
        app.openapi_schema = document
    return app.openapi_schema
