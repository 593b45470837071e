"""`/v1/routers`: a client's saved ways of choosing a model, and the log of what they chose."""

import uuid
from dataclasses import replace

from fastapi import APIRouter, Request
from pydantic import JsonValue
from starlette.responses import Response

from schemas.errors import InvalidRequestError
from serve.context import Context
from serve.http.errors import NotFoundError, envelope
from serve.http.routes import Caller, body_of, context_of, documented, in_thread, is_id, json_answer, no_content
from serve.store.contract import ApiKey, RouterConfig
from serve.wire.base import WireError, issue, wire_issues
from serve.wire.routers import NewRouter, RouterPatch, RouterSettings, merged, router_body

router = APIRouter(tags=["routers"])

MAX_PAGE = 100
_MOST_TRIES = 5
_KEPT_UNKNOWN = 50
_BODY = {
    "slug": "production-video",
    "settings": {"optimizeFor": "cost", "maxCreditsPerGeneration": {"video": 50}, "fallback": {"onCapacity": True}},
}
_ANSWER = {
    "id": "0b5cb1f0-8a02-4b39-9f55-3bd9a39a2d3f",
    "slug": "production-video",
    "name": "production-video",
    "settings": {"schemaVersion": 1, "optimizeFor": "cost"},
    "version": 1,
    "createdAt": "2030-01-31T12:00:00.000Z",
    "updatedAt": "2030-01-31T12:00:00.000Z",
}


@router.post("/v1/routers", **documented(NewRouter, "Make a router", _BODY, _ANSWER))
async def create(request: Request, key: Caller) -> Response:
    body = await body_of(request, NewRouter)
    context = context_of(request)
    _check_models(context, body.settings)
    now = context.now()
    made = RouterConfig(
        id=str(uuid.uuid4()),
        key_id=key.id,
        slug=body.slug,
        name=body.name or body.slug,
        description=body.description,
        settings=body.settings.as_json(),
        version=1,
        created_at=now,
        updated_at=now,
    )
    if not await in_thread(context.store.routers.create, made):
        taken = issue("taken", "slug", f"there is a router {body.slug!r} already; slugs are unique")
        return envelope(request, 409, "The slug is taken", [taken], {"x-should-retry": "false"})
    return json_answer(router_body(made))


@router.get(
    "/v1/routers", **documented(None, "Your routers, newest first", answer={"data": [_ANSWER], "nextCursor": None})
)
async def every(request: Request, key: Caller, limit: int = 20, cursor: str | None = None) -> Response:
    context = context_of(request)
    _check_limit(limit)
    found, following = await in_thread(context.store.routers.list, key.id, limit, cursor)
    return json_answer({"data": [router_body(one) for one in found], "nextCursor": following})


@router.get("/v1/routers/{router_id}", **documented(None, "A router", answer=_ANSWER))
async def retrieve(router_id: str, request: Request, key: Caller) -> Response:
    return json_answer(router_body(await in_thread(_get, context_of(request), key, router_id)))


@router.patch(
    "/v1/routers/{router_id}",
    **documented(RouterPatch, "Change a router", {"settings": {"maxCreditsPerGeneration": {"video": None}}}, _ANSWER),
)
async def update(router_id: str, request: Request, key: Caller) -> Response:
    body = await body_of(request, RouterPatch)
    context = context_of(request)

    def change() -> RouterConfig | None:
        for _ in range(_MOST_TRIES):  # somebody else may change it at the same time
            before = _get(context, key, router_id)
            settings = merged(before.settings, body.settings or {})
            _check_models(context, settings)
            kept = settings.as_json()
            changed = kept != {**RouterSettings().as_json(), **before.settings}
            after = replace(
                before,
                name=before.name if body.name is None else body.name,
                description=body.description if "description" in body.model_fields_set else before.description,
                settings=kept if changed else before.settings,
                version=before.version + changed,
                updated_at=context.now(),
            )
            if context.store.routers.update(after, before.version):
                return after
        return None

    after = await in_thread(change)
    if after is None:
        return envelope(request, 409, "the router is being changed by somebody else; try again")
    return json_answer(router_body(after))


@router.delete("/v1/routers/{router_id}", **documented(None, "Delete a router and its log", status=204))
async def delete(router_id: str, request: Request, key: Caller) -> Response:
    context = context_of(request)
    if not is_id(router_id) or not await in_thread(context.store.routers.delete, key.id, router_id):
        raise NotFoundError(f"there is no router {router_id[:100]!r}")
    return no_content()


@router.get(
    "/v1/routers/{router_id}/requests",
    **documented(None, "What a router decided, newest first", answer={"data": [], "nextCursor": None}),
)
async def decisions(
    router_id: str, request: Request, key: Caller, limit: int = 20, cursor: str | None = None
) -> Response:
    context = context_of(request)
    _check_limit(limit)

    def read() -> tuple[list[JsonValue], str | None]:
        found = _get(context, key, router_id)
        entries: list[JsonValue] = []
        skip = 0
        if cursor is None or not cursor.startswith("unknown-"):
            page, following = context.store.routers.decisions(found.id, limit, cursor)
            entries = [dict(entry.body) for entry in page]
            if following is not None:
                return entries, following
        else:
            skip = int(cursor[8:]) if cursor[8:].isdecimal() and len(cursor) < 16 else 0
        # Before there was a router of this slug it was asked for in vain.
        earlier = unknown(context, key.id, found.slug)[skip:]
        room = limit - len(entries)
        entries += earlier[:room]
        return entries, f"unknown-{skip + room}" if len(earlier) > room else None

    entries, following = await in_thread(read)
    return json_answer({"data": entries, "nextCursor": following})


def unknown(context: Context, key_id: str, slug: str) -> list[JsonValue]:
    """Requests for a slug that no router had, newest first."""
    kept = context.store.notes.read(_note(key_id))
    entries = kept if isinstance(kept, list) else []
    return [one["entry"] for one in entries if isinstance(one, dict) and one.get("slug") == slug]


def note_unknown(context: Context, key_id: str, slug: str, entry: dict[str, JsonValue]) -> None:
    """A request named a slug that no router has. The last few of a key are kept."""
    kept = context.store.notes.read(_note(key_id))
    entries = kept if isinstance(kept, list) else []
    newest: JsonValue = {"slug": slug, "entry": entry}
    context.store.notes.write(_note(key_id), [newest, *entries][:_KEPT_UNKNOWN])


def _note(key_id: str) -> str:
    return f"routers/unknown/{key_id}"


def _get(context: Context, key: ApiKey, router_id: str) -> RouterConfig:
    found = context.store.routers.get(key.id, router_id) if is_id(router_id) else None
    if found is None:
        raise NotFoundError(f"there is no router {router_id[:100]!r}")
    return found


def _check_models(context: Context, settings: RouterSettings) -> None:
    """Raises WireError for ids that nobody knows."""
    for number, name in enumerate(settings.models.ids if settings.models else ()):
        try:
            context.admission.names.listed("ids", (name,))
        except InvalidRequestError as error:
            path = ("settings", "models", "ids", number)
            raise WireError([one.model_copy(update={"path": path}) for one in wire_issues(error.issues)]) from error


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise WireError([issue("out_of_range", "limit", f"must be 1 to {MAX_PAGE}")], "Validation of query failed")
