"""The outermost layer: a request id, limits on what comes in, every error as the envelope, and one count an answer.

Plain ASGI: it sees each message as it passes and holds none back.
"""

import asyncio
import re
import secrets
from time import perf_counter
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.config import ServeConfig
from serve.http import fast_path
from serve.http.errors import as_response, envelope
from serve.http.lazy_receive import lazy_receive
from serve.http.local_only import LocalOnly
from serve.observability import logs

_OURS_TO_TAKE = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_STREAMS = "/events"  # whose answers do not end
_FILES = ("/outputs/", "/page/", "/docs/")  # their names say exactly what is meant
_OUTPUTS = "/outputs/"  # which knows HEAD, and reads no file for it
_MULTIPART_BYTES = 1 << 20  # what a form adds to the file in it; the receiver counts exactly


class Answered(Protocol):
    """As `serve.observability.metrics.IngressMetrics.answered`."""

    def __call__(self, method: str, route: str, status: int, seconds: float) -> None: ...


class _RefusedError(Exception):
    """Answered here, whatever the route makes of it."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class RequestLimits:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, config: ServeConfig, answered: Answered | None = None) -> None:
        self._app = app
        self._limits = config.limits
        self._upload_bytes = config.media.upload_bytes + _MULTIPART_BYTES
        self._answered = answered
        self._local_only = LocalOnly(config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id, header_bytes, declared = _read_headers(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        method, path = scope["method"], scope["path"]
        is_head = method == "HEAD" and not path.endswith(_STREAMS) and not path.startswith(_OUTPUTS)
        if is_head or (path.endswith("/") and not path.startswith(_FILES)):
            # What answers GET answers HEAD, and a slash at the end changes nothing: a redirect would have to know
            # whether TLS ends before us.
            scope = {**scope, "method": "GET" if is_head else method, "path": _without_slash(path)}
        is_upload = path.startswith("/uploads/")  # has deadlines of its own
        limit = self._upload_bytes if is_upload else self._limits.max_body_bytes
        timeout_s = None if is_upload else self._limits.body_timeout_s
        exchange = _Exchange(lazy_receive(receive), send, request_id, limit, timeout_s, is_head=is_head)
        with logs.context(request_id=request_id):
            try:
                if header_bytes > self._limits.max_header_bytes:
                    raise _RefusedError(431, f"the headers are larger than {self._limits.max_header_bytes} bytes")
                if declared > limit:
                    raise _RefusedError(413, f"the body is larger than {limit} bytes")
                refusal = self._local_only.refusal(scope)
                if refusal is not None:
                    raise _RefusedError(*refusal)
                response = await fast_path.answer(scope, exchange.receive)
                if response is not None:
                    await response(scope, exchange.receive, exchange.send)
                else:
                    await self._app(scope, exchange.receive, exchange.send)
            except ClientDisconnect:
                pass
            except Exception as error:
                if exchange.status:
                    raise  # The answer has begun: the connection is cut, so that it is not taken for whole.
                await self._answer(Request(scope), exchange, error)
        if self._answered is not None:
            self._answered(method, _route(scope), exchange.status, perf_counter() - began)

    async def _answer(self, request: Request, exchange: "_Exchange", error: Exception) -> None:
        if exchange.refused is not None:
            error, exchange.refused = exchange.refused, None
        if isinstance(error, _RefusedError):
            response = envelope(request, error.status, str(error), headers={"Connection": "close"})
        else:
            response = as_response(request, error)
        await response(request.scope, exchange.receive, exchange.send)


class _Exchange:
    """One request's messages: the body is counted as it comes, the id goes into the answer."""

    __slots__ = (
        "_deadline_s",
        "_got",
        "_has_body",
        "_id",
        "_is_head",
        "_limit",
        "_receive",
        "_send",
        "refused",
        "status",
    )

    def __init__(
        self,
        receive: Receive,
        send: Send,
        request_id: str,
        limit: int,
        timeout_s: float | None,
        *,
        is_head: bool,
    ) -> None:
        """`timeout_s`: for the whole body. `is_head`: the answer goes out without its body."""
        self._receive, self._send, self._id = receive, send, (b"x-request-id", request_id.encode())
        self._limit, self._is_head = limit, is_head
        self._deadline_s = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        self._got = 0
        self._has_body = False
        self.status = 0
        self.refused: _RefusedError | None = None

    async def receive(self) -> Message:
        if self._has_body:
            return await self._receive()  # waits for the client to go
        try:
            async with asyncio.timeout_at(self._deadline_s):  # None: whoever reads has deadlines of its own
                message = await self._receive()
        except TimeoutError:
            self.refused = _RefusedError(408, "the body did not come in time")
            raise self.refused from None
        return self._counted(message)

    def _counted(self, message: Message) -> Message:
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            self._has_body = not message.get("more_body", False)
            if self._got > self._limit:
                self.refused = _RefusedError(413, f"the body is larger than {self._limit} bytes")
                raise self.refused
        return message

    async def send(self, message: Message) -> None:
        if self.refused is not None and not self.status:
            # Somebody caught the error and answers something else: ours is sent in its place.
            raise self.refused
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), self._id]
        elif self._is_head and message["type"] == "http.response.body":
            if message.get("more_body", False):
                return
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)


def _read_headers(scope: Scope) -> tuple[str, int, int]:
    """(request id, bytes of all headers, declared bytes of the body)."""
    total = declared = 0
    given = b""
    for name, value in scope["headers"]:
        total += len(name) + len(value) + 4
        if name == b"content-length":
            declared = int(value) if value.isdigit() and len(value) < 19 else 0
        elif name == b"x-request-id":
            given = value
    request_id = given.decode() if _OURS_TO_TAKE.fullmatch(given) else secrets.token_hex(12)
    return request_id, total + len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b""), declared


def _without_slash(path: str) -> str:
    return path.rstrip("/") or "/"


def _route(scope: Scope) -> str:
    """The template of the route: a path would make a series for each task."""
    path = scope.get("route_path") or getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"
