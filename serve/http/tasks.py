"""`/v1/tasks`: what became of a task, and ending it."""

import logging

from fastapi import APIRouter, Request
from starlette.responses import Response

from schemas.clip import Status
from schemas.errors import RushesError
from serve.context import Context
from serve.dispatch.orphans import remove_objects
from serve.http.batched_store import LookupCall
from serve.http.errors import NotFoundError
from serve.http.routes import (
    Caller,
    batched_store_of,
    context_of,
    documented,
    in_thread,
    is_id,
    json_answer,
    no_content,
)
from serve.tasks import LIVE, StoredTask
from serve.wire.base import WireError, issue
from serve.wire.tasks import Json, Sign, page, shown

log = logging.getLogger(__name__)
router = APIRouter(tags=["tasks"])

MAX_PAGE = 200
_EXAMPLE = {
    "id": "17f20503-6c24-4c16-946b-35dbbce2af2f",
    "status": "SUCCEEDED",
    "createdAt": "2030-01-31T12:00:00.000Z",
    "output": ["http://127.0.0.1:8000/clips/shapes/17/17f20503-6c24-4c16-946b-35dbbce2af2f.mp4?expires=…&signature=…"],
    "cost": {"credits": 0, "usd": 0.0},
}


def signer(context: Context) -> Sign:
    """URLs of stored clips for clients."""
    from serve.media.urls import output_url

    return lambda uri: output_url(context, uri)


@router.get("/v1/tasks/{task_id}", **documented(None, "A task", answer=_EXAMPLE))
async def retrieve(task_id: str, request: Request, key: Caller) -> Response:
    context = context_of(request)
    found = await batched_store_of(request).look_up.ask(LookupCall(task_id, key.id)) if is_id(task_id) else None
    if found is None:
        raise NotFoundError(f"there is no task {task_id[:100]!r}")
    task, position = found

    def body() -> Json:
        return shown(task, position=position, now=context.now(), sign=signer(context))

    # Signing for a bucket may open a connection's worth of machinery first; ours is a hash.
    signed_elsewhere = task.outcome is not None and task.outcome.clip is not None and is_bucket(task.outcome.clip.uri)
    return json_answer(await in_thread(body) if signed_elsewhere else body())


@router.delete("/v1/tasks/{task_id}", **documented(None, "Cancel a task, or delete one that has ended", status=204))
async def cancel(task_id: str, request: Request, key: Caller) -> Response:
    context = context_of(request)

    def end() -> bool:
        tasks = context.store.tasks
        tasks.cancel(task_id, key.id, context.now())
        task = tasks.get(task_id, key.id)
        if task is None or not tasks.delete(task_id, key.id):
            return False
        if task.status not in LIVE and task.epoch > 0:  # else nobody ever began it
            try:
                remove_objects(context.objects, task_id, None if task.outcome is None else task.outcome.clip)
                tasks.purged([task_id])
            except RushesError as error:  # the row says that they are still to be removed: the dispatcher does it
                log.warning("task %s was deleted; what is stored for it stays for now: %s", task_id, error)
        return True

    if not is_id(task_id) or not await in_thread(end):
        raise NotFoundError(f"there is no task {task_id[:100]!r}")
    request.app.state.work_notifier.notify()
    return no_content()


@router.get(
    "/v1/tasks", **documented(None, "Your tasks, latest first", answer={"tasks": [_EXAMPLE], "nextCursor": None})
)
async def recent(
    request: Request, key: Caller, limit: int = 20, cursor: str | None = None, status: str | None = None
) -> Response:
    context = context_of(request)
    before_seq = _seq(cursor)
    if not 1 <= limit <= MAX_PAGE:
        raise WireError([issue("out_of_range", ("limit",), f"must be 1 to {MAX_PAGE}")], "Validation of query failed")
    statuses = _statuses(status)

    def read() -> list[tuple[StoredTask, int | None]]:
        tasks = context.store.tasks
        found = tasks.recent(limit + 1, statuses=statuses, key_id=key.id, before_seq=before_seq)
        places = zip(found, tasks.positions(found), strict=True)
        return [(task, position if task.status is Status.PENDING else None) for task, position in places]

    found = await in_thread(read)
    now, sign = context.now(), signer(context)
    bodies: list[Json] = await in_thread(
        lambda: [shown(task, position=position, now=now, sign=sign) for task, position in found[:limit]]
    )
    following = str(found[limit - 1][0].seq) if len(found) > limit else None
    return json_answer(page(bodies, following))


def is_bucket(uri: str) -> bool:
    return uri.startswith("s3://")


def _seq(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdecimal() or len(cursor) > 18:
        raise WireError([issue("invalid", ("cursor",), "is no cursor of an answer")], "Validation of query failed")
    return int(cursor)


def _statuses(text: str | None, *, may_be_rejected: bool = False) -> tuple[Status, ...]:
    if not text:
        return ()
    known = [status.value for status in Status if may_be_rejected or status is not Status.REJECTED]
    wrong = [part for part in text.split(",") if part not in known]
    if wrong:
        raise WireError(
            [issue("invalid", ("status",), f"{wrong[0][:40]!r} is no status", known, wrong[0])],
            "Validation of query failed",
        )
    return tuple(Status(part) for part in text.split(","))
