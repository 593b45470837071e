"""For probes and scrapers: `/healthz` (the process lives), `/readyz` (it can take work), `/metrics`.

On `app.state`: `metrics`, this ingress's own; `dispatch_metrics`, a callable that gives the dispatcher's text, plain or
to be awaited. Neither route needs a key, and neither says anything about clients.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from pydantic import JsonValue
from starlette.responses import JSONResponse, Response

from schemas.errors import RushesError
from serve.context import Context
from serve.dispatch.fleet import NOTE, FleetReport
from serve.http.fleet import is_stale
from serve.observability.metrics import CONTENT_TYPE_LATEST, IngressMetrics

log = logging.getLogger("serve.http.health")

DispatchText = Callable[[], bytes | Awaitable[bytes]]

_STORE_S = 2.0
_DISPATCHER_S = 2.0

router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="The process lives")
async def healthz() -> dict[str, JsonValue]:
    return {"status": "ok"}


@router.get("/readyz", summary="It can take work", responses={503: {"description": "not now; the body says why"}})
async def readyz(request: Request) -> Response:
    context: Context = request.app.state.context
    checks: dict[str, str] = {"store": "ok", "dispatcher": "ok", "draining": "no"}
    ready = True
    try:
        fleet = await asyncio.wait_for(asyncio.to_thread(_look, context), _STORE_S)
    except (RushesError, TimeoutError) as error:
        log.warning("not ready: the store does not answer", extra={"cause": str(error)})
        return _answer(False, {"store": "does not answer", "dispatcher": "unknown", "draining": "unknown"})
    age_s = context.now() - fleet.at
    if is_stale(fleet, context.now()):
        checks["dispatcher"] = f"silent for {age_s:.0f} s" if fleet.at else "not seen yet"
        ready = False
    if fleet.draining:
        checks["draining"] = "yes"
        ready = False
    return _answer(ready, checks)


@router.get("/metrics", summary="Prometheus' text format", response_class=Response)
async def metrics(request: Request) -> Response:
    own: IngressMetrics | None = getattr(request.app.state, "metrics", None)
    ask: DispatchText | None = getattr(request.app.state, "dispatch_metrics", None)
    theirs = b""
    if ask is not None:
        try:
            said = ask()
            theirs = await asyncio.wait_for(said, _DISPATCHER_S) if inspect.isawaitable(said) else said
        except Exception as error:
            # A scrape must not fail because the dispatcher is away: that is when it is read.
            log.warning("the dispatcher gives no metrics", extra={"cause": f"{type(error).__name__}: {error}"})
    if own is None:
        return Response(theirs, media_type=CONTENT_TYPE_LATEST)
    own.dispatcher_up(bool(theirs))
    return Response(own.text() + theirs, media_type=CONTENT_TYPE_LATEST)


def _look(context: Context) -> FleetReport:
    """Reads the store, whatever admission remembers."""
    note = context.store.notes.read(NOTE)
    return FleetReport.read(note) or FleetReport()


def _answer(ready: bool, checks: dict[str, str]) -> Response:
    return JSONResponse({"ready": ready, "checks": checks}, 200 if ready else 503, {"Cache-Control": "no-store"})
