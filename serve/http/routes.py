"""How a route reads its body, calls the store and answers: what every module of routes here needs."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar

import anyio.to_thread
from fastapi import Depends, Request
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

from serve.context import Context
from serve.http.batched_store import BatchedStore
from serve.keys import caller
from serve.store.contract import ApiKey
from serve.wire.base import Model, WireError, issue, parse, validate

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

P = ParamSpec("P")
T = TypeVar("T")

Caller = Annotated[ApiKey, Depends(caller)]


def context_of(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


def batched_store_of(request: Request) -> BatchedStore:
    found: BatchedStore = request.app.state.batched_store
    return found


def is_id(text: str) -> bool:
    """Whether it may be the id of anything; what cannot be is not looked for."""
    return _ID.fullmatch(text) is not None


async def body_of(request: Request, model: type[Model], empty: bytes = b"") -> Model:
    """The body as `model`; `empty` is read where there is none. Raises WireError with every issue."""
    context = context_of(request)
    limits = {"max_prompt_chars": context.config.limits.max_prompt_chars, "now": context.now()}
    return validate(model, await json_of(request, empty), limits)


async def json_of(request: Request, empty: bytes = b"") -> object:
    """The JSON in the body. Raises WireError."""
    raw = await request.body() or empty
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise WireError(
            [issue("content_type", (), "the body must be application/json", ("application/json",), kind)],
            "Validation of headers failed",
        )
    return parse(raw)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A call of the store that may wait for a disk or a server."""
    return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs))


def json_answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(body), status, headers, "application/json")


def no_content() -> Response:
    return Response(status_code=204)


def any_body(names: Sequence[str], example: object) -> dict[str, Any]:
    """The part of the document on a route that takes one of several bodies, by the names of their schemas."""
    schema = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


def documented(
    model: type[BaseModel] | None, summary: str, example: object = None, answer: object = None, status: int = 200
) -> dict[str, Any]:
    """The arguments of a route that reads its body itself: its schema and examples for the document."""
    extra: dict[str, Any] = {}
    if model is not None:
        content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
        if example is not None:
            content["example"] = example
        extra["requestBody"] = {"required": True, "content": {"application/json": content}}
    responses: dict[int | str, dict[str, Any]] = {
        400: {"$ref": "#/components/responses/Refused"},
        401: {"$ref": "#/components/responses/Refused"},
        404: {"$ref": "#/components/responses/Refused"},
        413: {"$ref": "#/components/responses/Refused"},
        503: {"$ref": "#/components/responses/Refused"},
    }
    if answer is not None:
        extra_answer = {"content": {"application/json": {"schema": {"type": "object"}, "example": answer}}}
        responses[status] = {"description": summary, **extra_answer}
    return {"summary": summary, "openapi_extra": extra, "responses": responses, "status_code": status}
