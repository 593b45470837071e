"""The routes that are asked for all the time, without FastAPI's machinery around them; it still documents them."""

from collections.abc import Awaitable, Callable

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from serve.http import creates, tasks
from serve.keys import caller
from serve.store.contract import ApiKey

_TASKS = "/v1/tasks/"
_CREATES: dict[str, Callable[[Request, ApiKey], Awaitable[Response]]] = {
    "/v1/text_to_video": creates.text_to_video,
    "/v1/image_to_video": creates.image_to_video,
    "/v1/video_to_video": creates.video_to_video,
}


async def answer(scope: Scope, receive: Receive) -> Response | None:
    """The answer, or None where this is no such route. `scope["route_path"]` becomes the template."""
    path, method = scope["path"], scope["method"]
    if method == "GET" and path.startswith(_TASKS):
        task_id = path[len(_TASKS) :]
        if task_id and "/" not in task_id:
            scope["route_path"] = "/v1/tasks/{task_id}"
            request = Request(scope, receive)
            return await tasks.retrieve(task_id, request, await caller(request))
    elif method == "POST" and path in _CREATES:
        scope["route_path"] = path
        request = Request(scope, receive)
        return await _CREATES[path](request, await caller(request))
    return None
