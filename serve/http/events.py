"""Server-sent events: `GET /v1/tasks/{id}/events`, `/v1/batches/{id}/events`, and `/v1/events` for all tasks of a key.

Each event's data is what a GET would have answered then. A stream of a task or batch ends with its end; a comment every
`HEARTBEAT_S` keeps proxies from closing a quiet one. On `app.state`: `feed`, made at first use; `metrics`, if there.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress

from fastapi import APIRouter, FastAPI, Request
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse

from schemas.clip import Status
from schemas.errors import TransientError
from serve.context import Context
from serve.errors import UnauthorizedError
from serve.http.batches import batch_view
from serve.http.change_feed import ChangeFeed, Watch, WatchKind
from serve.http.errors import NotFoundError, envelope
from serve.http.routes import Caller, context_of, documented, in_thread
from serve.http.tasks import signer
from serve.keys import keyring
from serve.store.contract import ApiKey
from serve.tasks import LIVE
from serve.wire.tasks import shown

HEARTBEAT_S = 15.0
KEY_CHECK_S = 3.0  # a key that was revoked hears no more
MOST_STREAMS = 16  # of one key on one ingress
MOST_S = 3600.0  # then the client opens another: balancers forget, and streams spread over ingresses again

router = APIRouter(tags=["events"])


def include(app: FastAPI, context: Context) -> None:  # noqa: ARG001
    """Streams end when the process is told to go: nobody waits an hour for them."""

    async def close() -> None:
        feed: ChangeFeed | None = getattr(app.state, "feed", None)
        if feed is not None:
            feed.close()

    app.state.stopping.append(close)


@router.get("/v1/tasks/{task_id}/events", **documented(None, "A task as it changes, until its end"))
async def of_task(request: Request, task_id: str, key: Caller) -> Response:
    if await in_thread(context_of(request).store.tasks.get, task_id, key.id) is None:
        raise NotFoundError(f"there is no task {task_id[:100]!r}")
    return await _open(request, key, WatchKind.TASK, task_id)


@router.get("/v1/batches/{batch_id}/events", **documented(None, "A batch as it changes, until its end"))
async def of_batch(request: Request, batch_id: str, key: Caller) -> Response:
    if await in_thread(context_of(request).store.batches.get, batch_id, key.id) is None:
        raise NotFoundError(f"there is no batch {batch_id[:100]!r}")
    return await _open(request, key, WatchKind.BATCH, batch_id)


# Not in the document: a client made from it would wait for an answer that does not end.
@router.get("/v1/events", include_in_schema=False)
async def of_key(request: Request, key: Caller) -> Response:
    return await _open(request, key, WatchKind.KEY, key.id)


def feed_of(request: Request) -> ChangeFeed:
    """The process's own."""
    state = request.app.state
    found: ChangeFeed | None = getattr(state, "feed", None)
    if found is None:
        found = state.feed = ChangeFeed(state.context.store, state.context.now)
    return found


async def _open(request: Request, key: ApiKey, kind: WatchKind, ident: str) -> Response:
    state = request.app.state
    streams: Counter[str] | None = getattr(state, "streams", None)
    if streams is None:
        streams = state.streams = Counter()
    if streams[key.id] >= MOST_STREAMS:
        return envelope(
            request, 429, f"this key has {MOST_STREAMS} event streams open already", headers={"Retry-After": "5"}
        )
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(request, key, kind, ident, streams), 200, headers, "text/event-stream")


async def _stream(
    request: Request, key: ApiKey, kind: WatchKind, ident: str, streams: "Counter[str]"
) -> AsyncIterator[bytes]:
    """Runs until the end of what is watched, or until the client goes: then it is cancelled where it waits."""
    context: Context = request.app.state.context
    metrics = getattr(request.app.state, "metrics", None)
    until = context.now() + MOST_S
    streams[key.id] += 1
    try:
        with metrics.stream() if metrics else nullcontext(), feed_of(request).follow(kind, ident) as watch:
            yield b"retry: 2000\n\n"
            told: dict[str, Status] = {}
            quiet_s = 0.0
            while context.now() < until:
                if not await _may_listen(request):
                    yield b": this API key was revoked\n\n"
                    return
                step_s = min(KEY_CHECK_S, HEARTBEAT_S)
                if not await watch.wait(step_s):
                    quiet_s += step_s
                    if quiet_s >= HEARTBEAT_S:
                        quiet_s = 0.0
                        yield b": still here\n\n"
                    continue
                lines, ended = await in_thread(_said, context, watch, told)
                if lines:
                    yield lines
                if ended or watch.closed:
                    return
    finally:
        streams[key.id] -= 1
        if streams[key.id] <= 0:
            del streams[key.id]


async def _may_listen(request: Request) -> bool:
    """Whether the key that opened the stream is still one. A store that is away takes nobody's key."""
    if not request.app.state.context.config.auth:
        return True
    with suppress(TransientError):
        try:
            await keyring(request).find(request.headers.get("authorization"))
        except UnauthorizedError:
            return False
    return True


def _said(context: Context, watch: Watch, told: dict[str, Status]) -> tuple[bytes, bool]:
    """(events of what changed, whether that was the end). In a thread: positions are read from the store."""
    out: list[bytes] = []
    ended = False
    batch = watch.take_batch()
    if batch is not None:
        out.append(_event(_name(told, batch.id, batch.status), batch_view(context, batch)))
        ended = batch.status not in LIVE
    changed = watch.take()
    waiting = [task for task in changed.values() if task is not None and task.status is Status.PENDING]
    positions = dict(zip((task.id for task in waiting), context.store.tasks.positions(waiting), strict=True))
    for task_id, task in changed.items():
        if task is None:
            out.append(_event("deleted", {"id": task_id}))
            told.pop(task_id, None)
        else:
            view = shown(task, position=positions.get(task_id), now=context.now(), sign=signer(context))
            out.append(_event(_name(told, task_id, task.status), view))
            if task.status not in LIVE:
                told.pop(task_id, None)
        ended = ended or (watch.kind is WatchKind.TASK and (task is None or task.status not in LIVE))
    return b"".join(out), ended


def _name(told: dict[str, Status], ident: str, status: Status) -> str:
    """'status' when it is another than the last that was told."""
    before = told.get(ident)
    told[ident] = status
    return "progress" if before is status else "status"


def _event(name: str, data: object) -> bytes:
    # JSON has no raw line breaks, so one data line is enough.
    return b"event: %s\ndata: %s\n\n" % (name.encode(), to_json(data))
