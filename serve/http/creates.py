"""`/v1/text_to_video`, `/v1/image_to_video`, `/v1/video_to_video`: a task, durable before the answer leaves."""

import hashlib
from collections.abc import Sequence

from fastapi import APIRouter, Request
from pydantic import JsonValue
from starlette.responses import Response

from schemas.footage import FOOTAGE
from serve.admission.allowance import Allowance
from serve.admission.submission import Submission, footage_submission, moderated, of_size, read_body, submission_of
from serve.http.batched_store import SubmitCall
from serve.http.refusals import refusals
from serve.http.routes import Caller, batched_store_of, context_of, documented, in_thread, json_answer, json_of
from serve.store.contract import ApiKey, Batch, Idempotency, Submitted
from serve.tasks import NewTask, StoredTask
from serve.wire.base import WireError, issue
from serve.wire.creates import Creates, ImageToVideo, TextToVideo, VideoToVideo
from serve.wire.tasks import created, estimated_cost
from serve.wire.upscale import VideoUpscale

router = APIRouter(tags=["create"])

_TEXT_EXAMPLE = {
    "model": "embedded",
    "promptText": "a red circle moving left on a blue background",
    "ratio": "1280:720",
    "duration": 2,
    "seed": 7,
}
_ANSWER_EXAMPLE = {
    "id": "17f20503-6c24-4c16-946b-35dbbce2af2f",
    "estimatedCost": {"credits": 0, "usd": 0.0},
    "status": "PENDING",
    "quote": {"usd": 0.0, "credits": 0, "gpuSeconds": 0.51, "waitSeconds": 0.0},
    "eta": "2030-01-31T12:00:01.000Z",
    "etaP90": "2030-01-31T12:00:02.000Z",
    "queuePosition": 0,
    "variant": "shapes",
    "reason": "first_choice",
    "rendered": {"width": 128, "height": 64, "frames": 17, "fps": 8, "durationSeconds": 2.125, "steps": 16},
    "seed": 7,
}


@router.post("/v1/text_to_video", **documented(TextToVideo, "A video from a text", _TEXT_EXAMPLE, _ANSWER_EXAMPLE))
async def text_to_video(request: Request, key: Caller) -> Response:
    return await _make(request, key, TextToVideo)


@router.post(
    "/v1/image_to_video",
    **documented(
        ImageToVideo,
        "A video that begins with an image",
        {**_TEXT_EXAMPLE, "promptImage": "https://example.com/first-frame.png"},
        _ANSWER_EXAMPLE,
    ),
)
async def image_to_video(request: Request, key: Caller) -> Response:
    return await _make(request, key, ImageToVideo)


@router.post(
    "/v1/video_to_video",
    **documented(
        VideoToVideo,
        "A video made anew",
        {"model": "tiny-random", "promptText": "the same in winter", "videoUri": "https://example.com/clip.mp4"},
        _ANSWER_EXAMPLE,
    ),
)
async def video_to_video(request: Request, key: Caller) -> Response:
    return await _make(request, key, VideoToVideo)


@router.post(
    "/v1/video_upscale",
    **documented(
        VideoUpscale,
        "A video made larger, or smoother",
        {"model": "enhance_frame_rate", "videoUri": "https://example.com/clip.mp4", "targetFramerate": "60"},
        _ANSWER_EXAMPLE,
    ),
)
async def video_upscale(request: Request, key: Caller) -> Response:
    async with refusals(request, key):
        return await replayed(request, key) or await _upscale(request, key)


async def _upscale(request: Request, key: ApiKey) -> Response:
    context = context_of(request)
    if context.admission.served.find(FOOTAGE) is None:
        text = f"this endpoint only renders: its pools do not name {FOOTAGE!r}"
        raise WireError([issue("unsupported", "model", text)])
    body = read_body(VideoUpscale, await json_of(request), context)
    submission = await footage_submission(body, key).with_media_taken(context.intake)
    shown = await context.intake.shown(submission.request.inputs[0].uri)
    submission = of_size(submission, body, shown)
    stored = await store(request, key, submission.decide(context, "video_upscale"))
    return answer_of(stored.tasks, stored.replayed)


async def _make(request: Request, key: ApiKey, model: type[Creates]) -> Response:
    async with refusals(request, key):
        return await replayed(request, key) or await _create(request, key, model)


async def _create(request: Request, key: ApiKey, model: type[Creates]) -> Response:
    context = context_of(request)
    submission = submission_of(await json_of(request), context, key, model)
    (submission,) = await with_prompts_moderated(request, [submission])
    if submission.media:
        submission.consider(context.admission)  # what is refused anyway is not fetched first
        submission = await submission.with_media_taken(context.intake)
    stored = await store(request, key, submission.decide(context, submission.mode.value))
    return answer_of(stored.tasks, stored.replayed)


async def with_prompts_moderated(request: Request, submissions: Sequence[Submission]) -> list[Submission]:
    """Each with what moderation finds of its prompt, counted. What is refused becomes a task all the same, one that has
    failed: so Runway's clients learn its failure code."""
    context = context_of(request)
    if context.moderator is None:
        return list(submissions)
    found = await in_thread(moderated, submissions, context)
    for one in found:
        request.app.state.metrics.moderated(one.moderation)
    return found


def answer_of(tasks: Sequence[StoredTask], is_replayed: bool, **more: JsonValue) -> Response:
    """What a client is told of the tasks that its request made, one for each sample."""
    task, *others = tasks
    body = created(task, task.offer.position)
    if others:
        body["estimatedCost"] = estimated_cost(task.offer, len(tasks))
        body["samples"] = [{"id": one.id, "seed": one.seed} for one in tasks]
    headers = {"Idempotent-Replayed": "true"} if is_replayed else None
    return json_answer({**body, **more}, headers=headers)


async def replayed(request: Request, key: ApiKey) -> Response | None:
    """The answer of then, where the client's Idempotency-Key was seen before: whatever may have changed since."""
    tasks = await replayed_tasks(request, key)
    return answer_of(tasks, True) if tasks else None


async def replayed_tasks(request: Request, key: ApiKey) -> tuple[StoredTask, ...]:
    """What an earlier request with this Idempotency-Key made; nothing for most requests."""
    idempotency = await idempotency_of(request)
    if idempotency is None:
        return ()
    return await in_thread(context_of(request).store.tasks.replay, key.id, idempotency) or ()


async def store(request: Request, key: ApiKey, tasks: list[NewTask], batch: Batch | None = None) -> Submitted:
    """Keep the tasks, and the batch that they are of, within the key's limits; when it returns they are durable. An
    Idempotency-Key is heeded."""
    context = context_of(request)
    now = context.now()
    allowance = Allowance.of(key, context.config.limits)
    stored = await batched_store_of(request).submit.ask(
        SubmitCall(
            tuple(tasks),
            now,
            await idempotency_of(request),
            max_live=allowance.max_concurrent,
            max_since=allowance.daily(now),
            max_month_usd=allowance.month_usd,
            batch=batch,
        )
    )
    if not stored.replayed:
        context.admission.accepted(stored.tasks)
        request.app.state.metrics.accepted(tasks[0].kind, len(tasks))
        request.app.state.work_notifier.notify()
    return stored


async def idempotency_of(request: Request) -> Idempotency | None:
    """The client's own key for this very request. Raises WireError."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    if not 1 <= len(given) <= 255 or not given.isprintable():
        raise WireError(
            [issue("invalid_header", ("Idempotency-Key",), "must be 1 to 255 printable characters")],
            "Validation of headers failed",
        )
    digest = hashlib.sha256(request.url.path.encode() + b"\0" + await request.body()).hexdigest()
    return Idempotency(key=given, digest=digest)
