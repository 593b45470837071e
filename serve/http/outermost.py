"""The outermost layer: a request id, limits on what comes in, every error as the envelope, and one count an answer.

Plain ASGI: it sees each message as it passes and holds none back.
"""

import re
import secrets
from time import perf_counter
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import logs
from serve.config import ServeConfig
from serve.http import hot
from serve.http.errors import as_response, envelope
from serve.http.receiving import on_demand

_OURS_TO_TAKE = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_MULTIPART_BYTES = 1 << 20  # what a form adds to the file in it; the receiver counts exactly


class Answered(Protocol):
    """As `serve.metrics.IngressMetrics.answered`."""

    def __call__(self, method: str, route: str, status: int, seconds: float) -> None: ...


class _TooLargeError(Exception):
    """The body went over its limit while it was read."""


class Outermost:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, config: ServeConfig, answered: Answered | None = None) -> None:
        self._app = app
        self._limits = config.limits
        self._upload_bytes = config.media.upload_bytes + _MULTIPART_BYTES
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id, header_bytes, declared = _read_headers(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        limit = self._upload_bytes if scope["path"].startswith("/uploads/") else self._limits.max_body_bytes
        exchange = _Exchange(on_demand(receive), send, request_id, limit)
        with logs.context(request_id=request_id):
            try:
                if header_bytes > self._limits.max_header_bytes:
                    raise _RefusedError(431, f"the headers are larger than {self._limits.max_header_bytes} bytes")
                if declared > limit:
                    raise _RefusedError(413, f"the body is larger than {limit} bytes")
                response = await hot.answer(scope, exchange.receive)
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
            self._answered(scope["method"], _route(scope), exchange.status, perf_counter() - began)

    async def _answer(self, request: Request, exchange: "_Exchange", error: Exception) -> None:
        if exchange.too_large:
            exchange.too_large = False
            error = _RefusedError(413, f"the body is larger than {exchange.limit} bytes")
        if isinstance(error, _RefusedError):
            response = envelope(request, error.status, str(error), headers={"Connection": "close"})
        else:
            response = as_response(request, error)
        await response(request.scope, exchange.receive, exchange.send)


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class _Exchange:
    """One request's messages: the body is counted as it comes, the id goes into the answer."""

    __slots__ = ("_got", "_id", "_receive", "_send", "limit", "status", "too_large")

    def __init__(self, receive: Receive, send: Send, request_id: str, limit: int) -> None:
        self._receive, self._send, self._id = receive, send, (b"x-request-id", request_id.encode())
        self._got = 0
        self.limit = limit
        self.status = 0
        self.too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            if self._got > self.limit:
                self.too_large = True
                raise _TooLargeError
        return message

    async def send(self, message: Message) -> None:
        if self.too_large and not self.status:
            # Somebody caught the error and answers something else: ours is sent in its place.
            raise _TooLargeError
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), self._id]
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


def _route(scope: Scope) -> str:
    """The template of the route: a path would make a series for each task."""
    path = scope.get("route_path") or getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"
