"""Requests that make no task: counted by why, and told of in the audit log before their client is."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Request
from pydantic_core import from_json

from schemas.audit import Told
from schemas.errors import InvalidRequestError, RushesError, TransientError
from serve.context import Context
from serve.errors import LimitError, StoreUnavailableError
from serve.http.micro_batcher import MicroBatcher
from serve.http.routes import context_of
from serve.store.audit_entries import task_refused
from serve.store.contract import ApiKey
from serve.wire.base import WireError
from trust.redaction import words_of

log = logging.getLogger(__name__)

Refused = WireError | InvalidRequestError | LimitError | TransientError
_MOST_READ_BYTES = 8 << 20  # of a body that is looked into for its prompt: one with a video in it is not
_MOST_REASONS = 20


@asynccontextmanager
async def refusals(request: Request, key: ApiKey) -> AsyncIterator[None]:
    """Whatever makes no task within this is counted and told of."""
    try:
        yield
    except (WireError, InvalidRequestError, LimitError, TransientError) as error:
        await refused(request, key, error)
        raise


async def refused(request: Request, key: ApiKey, error: Refused) -> None:
    """Count it, and tell the audit log. Where its store is away our own log has it, and the client its answer."""
    why = why_refused(error)
    request.app.state.metrics.refused(why)
    if isinstance(error, StoreUnavailableError):
        return  # nothing was decided
    issues = error.issues if isinstance(error, WireError | InvalidRequestError) else ()
    context, given = context_of(request), await _given(request)
    told = task_refused(
        key.id,
        issues[0].code if issues else why,
        [str(error)] if not issues else [one.message for one in issues[:_MOST_REASONS]],
        _words(given),
        context.config.audit.prompts,
        context.now(),
        why=why,
        path=request.url.path,
        model=_text(given, "model"),
        router=_text(given, "configId"),
        request=str(request.scope.get("state", {}).get("request_id", "")),
    )
    try:
        await request.app.state.refusals.ask(told)
    except RushesError as failed:
        log.error("a refusal is not in the audit log (%s): %s", failed, told.entry.canonical)


def why_refused(error: Refused) -> str:
    """As `IngressMetrics.refused` counts it."""
    if isinstance(error, LimitError):
        return "limit"
    if isinstance(error, TransientError):
        return "unavailable"
    codes = {one.code for one in error.issues}
    return next((why for why in ("price", "deadline") if any(code.startswith(why) for code in codes)), "invalid")


def batcher(context: Context) -> "MicroBatcher[Told, None]":
    """Tells many at once: under a flood of refusals they share transactions."""

    def work(told: Sequence[Told]) -> list[Exception | None]:
        context.store.audit.tell(told)
        return [None] * len(told)

    return MicroBatcher("refusals", work)


async def _given(request: Request) -> dict[str, object]:
    """The body as far as it is a JSON object; empty else."""
    try:
        body = await request.body()
        given = from_json(body) if len(body) <= _MOST_READ_BYTES else None
    except (ValueError, RecursionError, RuntimeError):
        return {}
    return given if isinstance(given, dict) else {}


def _words(given: dict[str, object]) -> str:
    inner = given.get("input")
    asked = inner if isinstance(inner, dict) else given
    prompt, negative = _text(asked, "promptText"), _text(asked, "negativePrompt")
    return words_of(prompt, negative) if prompt or negative else ""


def _text(given: dict[str, object], name: str) -> str:
    value = given.get(name)
    return value if isinstance(value, str) else ""
