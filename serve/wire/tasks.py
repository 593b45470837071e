"""A task as clients see it: Runway's shape for each status, and ours beside it."""

import math
from collections.abc import Callable, Sequence

from pydantic import JsonValue

from schemas.clip import Clip, Status
from schemas.request import Request
from schemas.task import Group
from serve.tasks import CREDITS_PER_USD, LIVE, Offer, StoredTask
from serve.wire.instants import iso

Json = dict[str, JsonValue]
Sign = Callable[[str], str]
"""An absolute URL for a stored clip."""


def estimated_cost(offer: Offer, samples: int = 1) -> Json:
    return {"credits": samples * offer.credits, "usd": samples * offer.usd}


def quote(offer: Offer) -> Json:
    """What was promised at acceptance; it never changes afterwards."""
    return {
        "usd": offer.usd,
        "credits": offer.credits,
        "gpuSeconds": offer.gpu_s,
        "waitSeconds": offer.wait_s,
        "eta": iso(offer.eta_at),
        "etaP90": iso(offer.eta_p90_at),
        "variant": offer.variant,
        "pool": offer.pool,
    }


def bill_credits(usd: float, offer: Offer) -> int:
    """Whole credits, never more than were estimated."""
    return min(math.ceil(max(0.0, usd) * CREDITS_PER_USD - 1e-9), offer.credits)


def prompts_shown(request: Request) -> Json:
    """Several prompts as they are rendered; nothing where there is one."""
    texts, turns_s = request.told
    if not turns_s:
        return {}
    told: list[JsonValue] = [{"fromSeconds": at, "text": text} for at, text in zip((0.0, *turns_s), texts, strict=True)]
    return {"prompts": told}


def rendered(group: Group) -> Json:
    """What is really rendered, where the request was snapped to what the variant can do."""
    return {
        "width": group.width,
        "height": group.height,
        "frames": group.frames,
        "fps": group.fps,
        "durationSeconds": round(group.frames / group.fps, 3),
        "steps": group.steps,
        **({"audio": True} if group.audio else {}),
        **({"chunks": len(group.cuts)} if group.chunks is not None else {}),
        **({"finish": [stage.told for stage in group.finish], "clip": _finished(group)} if group.finish else {}),
    }


def _finished(group: Group) -> Json:
    shape, fps = group.clip_shape, group.clip_fps
    return {"width": shape.width, "height": shape.height, "frames": shape.frames, "fps": fps}


def created(task: StoredTask, position: int) -> Json:
    """The answer to a create."""
    offer = task.offer
    promise = quote(offer)
    return {
        "id": task.id,
        "estimatedCost": estimated_cost(offer),
        "status": task.status.value,
        "quote": promise,
        "eta": promise["eta"],
        "etaP90": promise["etaP90"],
        "queuePosition": position,
        "variant": offer.variant,
        "reason": offer.reason,
        "sentence": offer.sentence,
        "rendered": rendered(task.group),
        "seed": task.seed,
    }


def shown(task: StoredTask, *, position: int | None, now: float, sign: Sign) -> Json:
    """A task as `GET /v1/tasks/{id}` gives it. `position`: PENDING tasks before it, None where nobody asked."""
    offer, status = task.offer, task.status
    body: Json = {
        "id": task.id,
        "status": status.value,
        "createdAt": iso(task.created_at),
        "model": task.model,
        "variant": task.variant or offer.variant,
        "kind": task.kind,
        "promptText": task.request.prompt,
        **prompts_shown(task.request),
        "seed": task.seed,
        "shape": str(task.group.shape),
        "rendered": rendered(task.group),
        "quote": quote(offer),
        "reason": offer.reason,
        "sentence": offer.sentence,
        "attempts": task.attempts,
        "story": list(task.story or offer.story),
    }
    if task.started_at is not None:
        body["startedAt"] = iso(task.started_at)
    if task.fallback:
        body["offeredVariant"] = offer.variant
        body["fallbackReason"] = task.fallback
        body["fallback"] = {"from": offer.variant, "reason": task.fallback}
    if task.batch_id is not None:
        body["batchId"] = task.batch_id
    if status in LIVE:
        body["estimatedCost"] = estimated_cost(offer)
        eta_at, bound_at = _live_eta(task, now)
        body["eta"], body["etaP90"] = iso(eta_at), iso(bound_at)
        if status is Status.RUNNING:
            body["progress"] = task.progress
            body["stage"] = task.stage
        elif position is not None:
            body["queuePosition"] = position
        return body
    return _ended(body, task, sign)


def _ended(body: Json, task: StoredTask, sign: Sign) -> Json:
    outcome = task.outcome
    billed_usd = outcome.billed_usd if outcome else 0.0
    body["cost"] = {"credits": bill_credits(billed_usd, task.offer), "usd": billed_usd}
    if task.finished_at is not None:
        body["finishedAt"] = iso(task.finished_at)
        body["seconds"] = round(task.finished_at - task.created_at, 3)
    if outcome is None:
        if task.status is Status.FAILED:
            body["failure"] = "the task failed"
        return body
    body["bill"] = {
        "usd": billed_usd,
        "finishUsd": outcome.billed_finish_usd,
        "credits": bill_credits(billed_usd, task.offer),
        "gpuSeconds": outcome.billed_gpu_s,
        "timings": {
            "queueSeconds": outcome.timings.queue_s,
            "loadSeconds": outcome.timings.load_s,
            "renderSeconds": outcome.timings.render_s,
            "finishSeconds": outcome.timings.finish_s,
            "encodeSeconds": outcome.timings.encode_s,
            "storeSeconds": outcome.timings.store_s,
        },
    }
    if task.status is Status.SUCCEEDED:
        clip = outcome.clip
        body["output"] = [sign(clip.uri)] if clip else []
        if clip:
            body["clip"] = _clip(clip)
            if clip.poster_uri:
                body["poster"] = sign(clip.poster_uri)
    elif task.status is Status.FAILED:
        body["failure"] = outcome.failure or "the task failed"
        body["failureCode"] = outcome.failure_code or "INTERNAL"
    return body


def _clip(clip: Clip) -> Json:
    return {
        "sha256": clip.sha256,
        "bytes": clip.clip_bytes,
        "width": clip.width,
        "height": clip.height,
        "frames": clip.frames,
        "fps": clip.fps,
        "signedBy": clip.signed_by,
    }


def _live_eta(task: StoredTask, now: float) -> tuple[float, float]:
    """As promised, while that can be; once it is overdue, from what is left to do."""
    offer = task.offer
    eta_at, bound_at = offer.eta_at, offer.eta_p90_at
    if task.status is Status.RUNNING:
        # What was done in so long, continued; at the beginning the quote still knows better.
        since_s = now - (task.started_at or now)
        left_s = offer.gpu_s * (1 - task.progress)
        if task.progress > 0.1:
            left_s = since_s * (1 - task.progress) / task.progress
        eta_at = now + max(0.0, left_s)
    elif eta_at <= now:
        eta_at = now + offer.gpu_s
    return eta_at, max(bound_at, eta_at)


def page(tasks: Sequence[Json], cursor: str | None) -> Json:
    return {"tasks": list(tasks), "nextCursor": cursor}
