"""`POST /v1/generate/video`: a saved router chooses the model, and writes down why."""

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from fastapi import APIRouter, Request
from pydantic import JsonValue
from starlette.responses import Response

from cluster.routing import Choice
from cluster.story import Candidate
from cluster.terms import Preference
from schemas.errors import InvalidRequestError
from schemas.request import Mode
from schemas.request import Request as Wanted
from serve.context import Context
from serve.decision import NoCapacityError, RefusedError
from serve.http.creates import check_webhook, constraints_of, refusals, replayed_tasks, store, take, why_refused
from serve.http.errors import WIRE_NAMES, envelope, wire_issues
from serve.http.routers import note_unknown
from serve.http.routes import Caller, body_of, context_of, documented, in_thread, json_answer
from serve.store.contract import ApiKey, RouterConfig, RouterDecision
from serve.tasks import CREDITS_PER_USD, Constraints, StoredTask
from serve.wire.base import WireError, WireIssue, issue
from serve.wire.creates import GenerateInput, GenerateVideo
from serve.wire.routers import PROVIDER, RouterSettings, log_entry, pipeline
from serve.wire.tasks import created, estimated_cost

router = APIRouter(tags=["create"])

LINES = {"480p": 480, "720p": 720, "1080p": 1080, "4k": 2160}
NAMES: Mapping[str, str] = {
    **WIRE_NAMES,
    "variant": "configId",
    "mode": "configId",
    "allow": "configId",
    "prompt": "input.promptText",
    "negative_prompt": "input.negativePrompt",
    "image": "input.referenceImages",
    "video": "input.referenceVideos",
    "width": "input.resolution",
    "height": "input.resolution",
    "num_frames": "input.duration",
    "duration_s": "input.duration",
}
_BODY = {
    "configId": "production-video",
    "input": {"promptText": "a red circle moving left", "aspectRatio": "16:9", "duration": 2},
}
_ANSWER = {
    "id": "17f20503-6c24-4c16-946b-35dbbce2af2f",
    "routing": {
        "configId": "production-video",
        "model": "shapes",
        "provider": PROVIDER,
        "estimatedCost": {"credits": 0},
        "resolvedInput": {"duration": 2.125, "ratio": "96:64", "resolution": "64p"},
        "resolvedSettings": {"optimizeFor": "cost", "priceCeiling": None},
    },
}


class _UnknownRouterError(Exception):
    """No router has this slug."""

    def __init__(self, slug: str) -> None:
        self.slug = slug
        super().__init__(slug)


@dataclass(frozen=True)
class Asked:
    """A body of `generate/video`, and the router that it names."""

    body: GenerateVideo
    config: RouterConfig
    settings: RouterSettings


@router.post("/v1/generate/video", **documented(GenerateVideo, "A video, by a router's choice", _BODY, _ANSWER))
async def generate_video(request: Request, key: Caller) -> Response:
    with refusals(request):
        return await _generate(request, key)


async def _generate(request: Request, key: ApiKey) -> Response:
    context = context_of(request)
    try:
        asked = await _asked(request, key)
        earlier = await replayed_tasks(request, key)
        if earlier:
            return _answer(asked, earlier[0], replayed=True)
        check_webhook(context, asked.body.webhook_url)
        wanted = await _wanted(context, key, asked.body.input)
    except _UnknownRouterError as error:
        entry = _entry(request, "router_config_not_found", reason=f"there is no router {error.slug!r}")
        await in_thread(note_unknown, context, key.id, error.slug, entry)
        more = {"code": "router_config_not_found"}
        return envelope(request, 404, f"there is no router {error.slug!r}", more=more)
    except (WireError, InvalidRequestError) as error:
        await _log_invalid(request, key, str(error))
        raise
    constraints = _constraints(context, asked, wanted)
    try:
        decision = await in_thread(context.admission.consider, wanted, constraints)
    except (RefusedError, NoCapacityError) as error:
        return await _refuse(request, asked, error, _inexact(context, wanted, constraints.allow))
    except InvalidRequestError as error:
        await _log_invalid(request, key, str(error))
        raise WireError(_issues(error)) from error
    task = decision.as_task(
        key_id=key.id,
        kind="generate",
        model=decision.offer.variant,
        router_id=asked.config.id,
        webhook_url=asked.body.webhook_url,
    )
    stored = await store(request, key, [task])
    kept = stored.tasks[0]
    busy, exhausted = _capacity(decision.choice)
    if not stored.replayed:
        told, _ = pipeline(
            decision.offer.story,
            skipped=busy,
            all_exhausted=exhausted,
            capacity=asked.settings.on_capacity,
            unable=_inexact(context, wanted, constraints.allow),
        )
        entry = _entry(
            request,
            "routed",
            told=told,
            model=decision.offer.variant,
            credits=decision.offer.credits,
            reason=decision.offer.sentence,
            reason_code=decision.offer.reason,
            task_id=kept.id,
        )
        await in_thread(context.store.routers.log, _decision(asked.config, context, entry))
    return _answer(asked, kept, busy, exhausted, replayed=stored.replayed)


def _answer(
    asked: Asked, task: StoredTask, busy: tuple[str, ...] = (), exhausted: bool = False, *, replayed: bool
) -> Response:
    answer = created(task, task.offer.position)
    answer["routing"] = _routing(asked, task, busy, exhausted)
    return json_answer(answer, headers={"Idempotent-Replayed": "true"} if replayed else None)


async def estimated(request: Request, key: ApiKey) -> tuple[Wanted, Constraints, Mapping[str, str]]:
    """What `generate/video` would ask of admission for the body of this request, its media neither fetched nor kept.

    Raises WireError, also where there is no such router.
    """
    context = context_of(request)
    try:
        asked = await _asked(request, key)
    except _UnknownRouterError as error:
        text = f"there is no router {error.slug!r}"
        raise WireError([issue("router_config_not_found", "configId", text)], text) from error
    given = asked.body.input
    image = "estimate:media" if given.reference_images else None
    video = "estimate:media" if given.reference_videos else None
    wanted = _request(given, image, video)
    return wanted, _constraints(context, asked, wanted), NAMES


async def _asked(request: Request, key: ApiKey) -> Asked:
    body = await body_of(request, GenerateVideo)
    context = context_of(request)
    config = await in_thread(context.store.routers.by_slug, key.id, body.config_id)
    if config is None:
        raise _UnknownRouterError(body.config_id)
    return Asked(body, config, RouterSettings.model_validate(config.settings))


async def _wanted(context: Context, key: ApiKey, given: GenerateInput) -> Wanted:
    """The request, its media taken in."""
    image = video = None
    if given.reference_images:
        image = await take(context, given.reference_images[0].uri, "image", key, ("input", "referenceImages", 0, "uri"))
    if given.reference_videos:
        video = await take(context, given.reference_videos[0].uri, "video", key, ("input", "referenceVideos", 0, "uri"))
    return _request(given, image, video)


def _request(given: GenerateInput, image: str | None, video: str | None) -> Wanted:
    mode = Mode.TEXT_TO_VIDEO
    if video is not None:
        mode = Mode.VIDEO_TO_VIDEO
    elif image is not None:
        mode = Mode.IMAGE_TO_VIDEO
    return Wanted(
        mode=mode,
        ratio=ratio_of(given.aspect_ratio, given.resolution),
        duration_s=given.duration,
        prompt=given.prompt_text or "",
        negative_prompt=given.negative_prompt,
        seed=given.seed,
        image=image,
        video=video,
    )


def ratio_of(aspect: str | None, resolution: str | None) -> str | None:
    """'16:9' at '720p' is '1280:720'; a proportion alone stays one."""
    if resolution is None:
        return aspect
    across, down = (Fraction(part) for part in (aspect or "16:9").split(":"))
    lines = LINES[resolution]
    width, height = (lines * across / down, lines) if across >= down else (lines, lines * down / across)
    return f"{round(width / 2) * 2}:{round(height / 2) * 2}"


def _constraints(context: Context, asked: Asked, wanted: Wanted) -> Constraints:
    """The router's settings, and whatever the request says beside them: the narrower of the two."""
    body, settings, names = asked.body, asked.settings, context.admission.names
    own = constraints_of(body, prefer=settings.prefer)
    allow = None if own.allow is None else names.listed("allow", own.allow)
    deny = own.deny
    if settings.models is not None:
        ids = names.listed("allow", settings.models.ids)
        if settings.models.mode == "allow_new_except":
            deny = (*deny, *ids)
        else:
            allow = ids if allow is None else tuple(name for name in ids if name in allow)
    cap_usd = math.inf if settings.video_cap is None else settings.video_cap / CREDITS_PER_USD
    deny = (*deny, *_inexact(context, wanted, allow))
    return own.model_copy(
        update={
            "allow": allow,
            "deny": tuple(dict.fromkeys(deny)),
            "max_usd": min(own.max_usd, cap_usd),
            "skip_busy": own.skip_busy or settings.on_capacity,
        }
    )


def _inexact(context: Context, wanted: Wanted, allow: tuple[str, ...] | None) -> tuple[str, ...]:
    """Models that would change what is asked for, where others would not."""
    served = context.admission.served.variants
    exact = [name for name in context.admission.exact(wanted) if allow is None or name in allow]
    return tuple(name for name in served if name not in exact) if exact else ()


async def _refuse(
    request: Request, asked: Asked, error: RefusedError | NoCapacityError, unable: tuple[str, ...]
) -> Response:
    """Nobody would do: logged with what emptied the list, and told."""
    context = context_of(request)
    story = error.choice.story
    busy, exhausted = _capacity(error.choice)
    told, emptied = pipeline(
        story.as_log(),
        skipped=busy,
        all_exhausted=exhausted,
        capacity=asked.settings.on_capacity,
        unable=unable,
    )
    down = isinstance(error, NoCapacityError)
    status = "error" if down else "no_eligible_model"
    entry = _entry(request, status, told=told, emptied_by=emptied, reason=error.choice.sentence)
    await in_thread(context.store.routers.log, _decision(asked.config, context, entry))
    if isinstance(error, NoCapacityError):
        raise error
    request.app.state.metrics.refused(why_refused(error))
    more: dict[str, JsonValue] = {"code": status, "emptiedBy": emptied, "pipeline": told}
    return envelope(request, 400, "No eligible model for this request", _issues(error), more=more)


async def _log_invalid(request: Request, key: ApiKey, why: str) -> None:
    """A request that named a router and was not valid is in that router's log."""
    context = context_of(request)
    try:
        given = json.loads(await request.body())
        slug = given["configId"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    config = await in_thread(context.store.routers.by_slug, key.id, slug) if isinstance(slug, str) else None
    if config is not None:
        entry = _entry(request, "invalid_request", reason=why[:500])
        await in_thread(context.store.routers.log, _decision(config, context, entry))


def _issues(error: InvalidRequestError) -> list[WireIssue]:
    found = wire_issues(error.issues, NAMES)
    return [
        one.model_copy(update={"path": tuple(part for name in one.path for part in str(name).split("."))})
        for one in found
    ]


def _routing(asked: Asked, task: StoredTask, busy: tuple[str, ...], exhausted: bool) -> dict[str, JsonValue]:
    group, settings = task.group, asked.settings
    ceiling = task.constraints.max_usd * CREDITS_PER_USD
    body: dict[str, JsonValue] = {
        "configId": asked.config.slug,
        "model": task.offer.variant,
        "provider": PROVIDER,
        "estimatedCost": estimated_cost(task.offer),
        "resolvedInput": {
            "duration": round(group.frames / group.fps, 3),
            "ratio": f"{group.width}:{group.height}",
            "resolution": asked.body.input.resolution or f"{min(group.width, group.height)}p",
        },
        "resolvedSettings": {
            "optimizeFor": (asked.body.optimize_for or settings.prefer).value,
            "priceCeiling": round(ceiling, 6) if math.isfinite(ceiling) else None,
        },
        "version": asked.config.version,
    }
    if settings.on_capacity and (busy or exhausted):
        body["capacityFallback"] = {"skipped": list(busy), "allExhausted": exhausted}
    return body


def _capacity(choice: Choice) -> tuple[tuple[str, ...], bool]:
    """(models that were better but could not start now, whether none could)."""
    wanted, now = choice.wanted, choice.now_s
    able = [one for one in choice.candidates if one.usd <= wanted.max_usd]
    free = {one.variant for one in able if one.start_s <= now}
    if not able or not free:
        return (), bool(able)
    chosen = next((one for one in able if one.pool == choice.pool), None)
    if chosen is None:
        return (), False
    prefer = wanted.terms.prefer
    ahead = [one.variant for one in sorted(able) if _merit(one, prefer) < _merit(chosen, prefer)]
    return tuple(name for name in dict.fromkeys(ahead) if name not in free), False


def _merit(one: Candidate, prefer: Preference) -> tuple[float, float]:
    """The smaller the better, were nobody busy."""
    execution_s = one.completion_s - one.start_s if math.isfinite(one.start_s) else math.inf
    if prefer is Preference.COST:
        return one.usd, execution_s
    return (execution_s, one.usd) if prefer is Preference.LATENCY else (-one.quality, execution_s)


def _entry(request: Request, status: str, **more: object) -> dict[str, JsonValue]:
    request_id = str(request.scope.get("state", {}).get("request_id", ""))
    at = context_of(request).now()
    return log_entry(entry_id=str(uuid.uuid4()), at=at, request_id=request_id, status=status, **more)  # type: ignore[arg-type]


def _decision(config: RouterConfig, context: Context, entry: dict[str, JsonValue]) -> RouterDecision:
    return RouterDecision(id=str(entry["id"]), router_id=config.id, created_at=context.now(), body=entry)
