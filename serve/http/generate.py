"""`POST /v1/generate/video`: a saved router chooses the model, and writes down why."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request
from pydantic import JsonValue
from starlette.responses import Response

from cluster.routing.decision_trace import Candidate
from cluster.routing.router import Choice
from cluster.routing.terms import Preference
from schemas.errors import InvalidRequestError
from serve.admission.offer import NoCapacityError
from serve.admission.submission import Submission, SubmissionRefusedError, submission_of
from serve.context import Context
from serve.http.creates import answer_of, replayed_tasks, store, with_prompts_moderated
from serve.http.errors import envelope
from serve.http.refusals import refusals, refused
from serve.http.routers import note_unknown
from serve.http.routes import Caller, context_of, documented, in_thread, json_of
from serve.store.contract import ApiKey, RouterConfig, RouterDecision
from serve.tasks import CREDITS_PER_USD, StoredTask
from serve.wire.base import WireError, issue
from serve.wire.creates import GenerateVideo
from serve.wire.routers import PROVIDER, RouterSettings, log_entry, pipeline
from serve.wire.tasks import estimated_cost

router = APIRouter(tags=["create"])

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
        super().__init__(f"there is no router {slug!r}")


@dataclass(frozen=True)
class _RouterCall:
    """A body of `generate/video`, and the router that it names."""

    submission: Submission
    config: RouterConfig
    settings: RouterSettings
    allowed: tuple[str, ...] | None = None  # as the request called them
    passed_over: tuple[str, ...] = ()  # models that cannot render it, or would change its shape where others would not

    @property
    def resolution(self) -> str | None:
        return self.submission.routed.resolution if self.submission.routed else None


@router.post("/v1/generate/video", **documented(GenerateVideo, "A video, by a router's choice", _BODY, _ANSWER))
async def generate_video(request: Request, key: Caller) -> Response:
    async with refusals(request, key):
        return await _generate(request, key)


async def _generate(request: Request, key: ApiKey) -> Response:
    context, given = context_of(request), await json_of(request)
    try:
        asked = await _router_call(context, submission_of(given, context, key, GenerateVideo))
        earlier = await replayed_tasks(request, key)
        if earlier:
            return _answer(asked, earlier, replayed=True)
        asked = _narrowed(context, asked)
        (submission,) = await with_prompts_moderated(request, [asked.submission])
        submission = await submission.with_media_taken(context.intake)
        decision = await in_thread(submission.consider, context.admission)
    except _UnknownRouterError as error:
        entry = _entry(request, "router_config_not_found", reason=str(error))
        await in_thread(note_unknown, context, key.id, error.slug, entry)
        return envelope(request, 404, str(error), more={"code": "router_config_not_found"})
    except (SubmissionRefusedError, NoCapacityError) as error:
        return await _refuse(request, asked, error)
    except (WireError, InvalidRequestError) as error:
        await _log_invalid(request, key, given, str(error))
        raise
    tasks = submission.tasks(
        decision,
        context,
        "generate",
        model=_named(context, asked, decision.offer.variant),
        router_id=asked.config.id,
    )
    stored = await store(request, key, tasks)
    kept = stored.tasks[0]
    busy, exhausted = _capacity(decision.choice)
    if not stored.replayed:
        told, _ = pipeline(
            decision.offer.story,
            skipped=busy,
            all_exhausted=exhausted,
            capacity=asked.settings.on_capacity,
            unable=asked.passed_over,
        )
        entry = _entry(
            request,
            "routed",
            told=told,
            model=kept.model,
            credits=decision.offer.credits * len(stored.tasks),
            reason=decision.offer.sentence,
            reason_code=decision.offer.reason,
            task_id=kept.id,
        )
        await in_thread(context.store.routers.log, _decision(asked.config, context, entry))
    return _answer(asked, stored.tasks, busy, exhausted, replayed=stored.replayed)


def _named(context: Context, asked: _RouterCall, variant: str) -> str:
    """A variant as the router's list calls it, or the request's; a client knows the names that it gave."""
    models = asked.settings.models
    listed = () if models is None or models.mode == "allow_new_except" else models.ids
    names = (*listed, *(asked.allowed or ()))
    found = ((name, context.catalog.find(name)) for name in names)
    return next((name for name, one in found if one is not None and one.name == variant), variant)


def _answer(
    asked: _RouterCall,
    tasks: Sequence[StoredTask],
    busy: tuple[str, ...] = (),
    exhausted: bool = False,
    *,
    replayed: bool,
) -> Response:
    return answer_of(tasks, replayed, routing=_routing(asked, tasks, busy, exhausted))


async def routed_submission(given: object, context: Context, key: ApiKey) -> Submission:
    """Any body that asks for a clip, as its route would put it to admission. Raises WireError, also where there is no
    such router."""
    if not isinstance(given, dict) or "configId" not in given:
        return submission_of(given, context, key)
    try:
        asked = await _router_call(context, submission_of(given, context, key, GenerateVideo))
        return _narrowed(context, asked).submission
    except _UnknownRouterError as error:
        raise WireError([issue("router_config_not_found", "configId", str(error))], str(error)) from error


async def _router_call(context: Context, submission: Submission) -> _RouterCall:
    assert submission.routed is not None
    slug = submission.routed.slug
    config = await in_thread(context.store.routers.by_slug, submission.key.id, slug)
    if config is None:
        raise _UnknownRouterError(slug)
    settings = RouterSettings.model_validate(config.settings)
    prefer = submission.routed.prefer or settings.prefer
    constraints = submission.constraints.model_copy(update={"prefer": prefer})
    return _RouterCall(replace(submission, constraints=constraints), config, settings)


def _narrowed(context: Context, asked: _RouterCall) -> _RouterCall:
    """The router's settings, and whatever the request says beside them: the narrower of the two."""
    submission, settings, names = asked.submission, asked.settings, context.admission.names
    own = submission.constraints
    allow = None if own.allow is None else names.listed("allow", own.allow)
    deny = own.deny
    if settings.models is not None:
        ids = names.listed("allow", settings.models.ids)
        if settings.models.mode == "allow_new_except":
            deny = (*deny, *ids)
        else:
            allow = ids if allow is None else tuple(name for name in ids if name in allow)
    able = context.admission.able(submission.request, submission.clip_format)
    exact = [name for name, is_near in able.items() if is_near and (allow is None or name in allow)]
    taken = exact or able
    passed_over = tuple(name for name in context.admission.served.variants if name not in taken) if taken else ()
    # The cap is of each clip, the request's own limit of all its samples.
    cap_usd = math.inf if settings.video_cap is None else settings.video_cap / CREDITS_PER_USD
    constraints = own.model_copy(
        update={
            "allow": allow,
            "deny": tuple(dict.fromkeys((*deny, *passed_over))),
            "max_usd": min(own.max_usd, cap_usd * submission.request.samples),
            "skip_busy": own.skip_busy or settings.on_capacity,
        }
    )
    narrowed = replace(submission, constraints=constraints)
    return replace(asked, submission=narrowed, allowed=own.allow, passed_over=passed_over)


async def _refuse(request: Request, asked: _RouterCall, error: SubmissionRefusedError | NoCapacityError) -> Response:
    """Nobody would do: logged with what emptied the list, and told."""
    context = context_of(request)
    busy, exhausted = _capacity(error.choice)
    told, emptied = pipeline(
        error.choice.story.as_log(),
        skipped=busy,
        all_exhausted=exhausted,
        capacity=asked.settings.on_capacity,
        unable=asked.passed_over,
    )
    down = isinstance(error, NoCapacityError)
    status = "error" if down else "no_eligible_model"
    entry = _entry(request, status, told=told, emptied_by=emptied, reason=error.choice.sentence)
    await in_thread(context.store.routers.log, _decision(asked.config, context, entry))
    if isinstance(error, NoCapacityError):
        raise error
    await refused(request, asked.submission.key, error)
    more: dict[str, JsonValue] = {"code": status, "emptiedBy": emptied, "pipeline": told}
    return envelope(request, 400, "No eligible model for this request", error.issues, more=more)


async def _log_invalid(request: Request, key: ApiKey, given: object, why: str) -> None:
    """A request that named a router and was not valid is in that router's log."""
    context = context_of(request)
    slug = given.get("configId") if isinstance(given, dict) else None
    config = await in_thread(context.store.routers.by_slug, key.id, slug) if isinstance(slug, str) else None
    if config is not None:
        entry = _entry(request, "invalid_request", reason=why[:500])
        await in_thread(context.store.routers.log, _decision(config, context, entry))


def _routing(
    asked: _RouterCall, tasks: Sequence[StoredTask], busy: tuple[str, ...], exhausted: bool
) -> dict[str, JsonValue]:
    task, settings = tasks[0], asked.settings
    group = task.group
    ceiling = task.constraints.max_usd * CREDITS_PER_USD
    body: dict[str, JsonValue] = {
        "configId": asked.config.slug,
        "model": task.model,
        "provider": PROVIDER,
        "estimatedCost": estimated_cost(task.offer, len(tasks)),
        "resolvedInput": {
            "duration": round(group.frames / group.fps, 3),
            "ratio": f"{group.width}:{group.height}",
            "resolution": asked.resolution or f"{min(group.width, group.height)}p",
        },
        "resolvedSettings": {
            "optimizeFor": asked.submission.constraints.prefer.value,
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
