"""Every error as Runway's envelope: `{"error", "issues": [{"code", "path", "message", …}], "docUrl", "requestId"}`.

What went wrong inside is logged, not told.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from schemas.errors import (
    ConfigError,
    InvalidRequestError,
    MediaError,
    ObjectMissingError,
    RushesError,
    TransientError,
)
from serve.errors import AddressError, IdempotencyError, LimitError, StoreUnavailableError, UnauthorizedError
from serve.wire.base import Path, WireError, WireIssue, closest, wire_issues
from serve.wire.field_names import WIRE_NAMES

log = logging.getLogger(__name__)

RETRY_S = 2


class NotFoundError(Exception):
    """404, in words for the client."""


def envelope(
    request: Request,
    status: int,
    error: str,
    issues: Sequence[WireIssue] = (),
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """The answer."""
    context = getattr(request.app.state, "context", None)
    origin = context.config.origin if context is not None else ""
    body: dict[str, Any] = {"error": error}
    if issues:
        body["issues"] = [issue.as_json() for issue in issues]
    body["docUrl"] = f"{origin}/docs"
    request_id = request.scope.get("state", {}).get("request_id")
    if request_id:
        body["requestId"] = request_id
    body.update(more or {})
    return Response(to_json(body), status, dict(headers or {}), "application/json")


def as_response(request: Request, error: Exception) -> Response:
    """The answer to any error."""
    if isinstance(error, WireError):
        return envelope(request, 400, error.error, error.issues)
    if isinstance(error, InvalidRequestError):
        return envelope(request, 400, "Validation of body failed", wire_issues(error.issues, WIRE_NAMES))
    if isinstance(error, RequestValidationError):
        return envelope(request, 400, "Validation of request failed", _fastapi_issues(error))
    if isinstance(error, HTTPException):
        return envelope(request, error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, NotFoundError):
        return envelope(request, 404, str(error))
    if isinstance(error, UnauthorizedError):
        return envelope(request, 401, str(error), headers={"WWW-Authenticate": "Bearer"})
    if isinstance(error, IdempotencyError):
        # Trying again cannot help: the client is told not to.
        return envelope(request, 409, str(error), headers={"x-should-retry": "false"})
    if isinstance(error, LimitError):
        context = request.app.state.context
        wait_s = max(1, math.ceil(error.retry_at - context.now()))
        headers = {"Retry-After": str(wait_s), **({"x-should-retry": "false"} if wait_s > 60 else {})}
        return envelope(request, 429, str(error), headers=headers)
    if isinstance(error, MediaError | AddressError):
        code = "asset_invalid" if isinstance(error, MediaError) else "asset_url"
        path = getattr(error, "path", None)
        return envelope(
            request,
            400,
            "Validation of body failed",
            [WireIssue(code=code, path=tuple(path) if path else (), message=str(error))],
        )
    if isinstance(error, ObjectMissingError):
        return envelope(request, 404, "there is nothing at this address")
    if isinstance(error, TransientError):
        log.warning("not available now: %s", error)
        known = not isinstance(error, StoreUnavailableError) and not _is_storage(error)
        text = str(error) if known else "the endpoint's store does not answer; try again"
        return envelope(request, 503, text, headers={"Retry-After": str(RETRY_S)})
    if isinstance(error, ConfigError):
        log.error("misconfigured: %s", error)
        return envelope(request, 500, "the endpoint is misconfigured; its log says how")
    log.error("a request failed", exc_info=(type(error), error, error.__traceback__))
    return envelope(request, 500, "Internal error; give the requestId to whoever runs this endpoint")


def _is_storage(error: RushesError) -> bool:
    return type(error).__name__.startswith("Storage")


def _fastapi_issues(error: RequestValidationError) -> list[WireIssue]:
    """FastAPI's complaints: the first part of its path says where the value was."""
    found = []
    for entry in error.errors():
        path: Path = tuple(entry["loc"][1:] if entry["loc"] and entry["loc"][0] == "body" else entry["loc"][-1:])
        given, context = entry.get("input"), entry.get("ctx") or {}
        expected = str(context.get("expected", ""))
        choices = tuple(part.strip(" '") for part in expected.replace(" or ", ", ").split(",") if part.strip(" '"))
        found.append(
            WireIssue(
                code=str(entry["type"]),
                path=path,
                message=str(entry["msg"]).removeprefix("Value error, "),
                choices=choices,
                suggestion=closest(given, choices),
            )
        )
    return found


def install(app: FastAPI) -> None:
    """FastAPI has answers of its own for these two; everything else reaches the outermost middleware."""

    async def answer(request: Request, error: Exception) -> Response:
        return as_response(request, error)

    app.add_exception_handler(HTTPException, answer)
    app.add_exception_handler(RequestValidationError, answer)
