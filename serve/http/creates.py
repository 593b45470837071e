"""`/v1/text_to_video`, `/v1/image_to_video`, `/v1/video_to_video`: a task, durable before the answer leaves."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from cluster.terms import Preference
from schemas.clip import ClipFormat
from schemas.errors import InvalidRequestError, MediaError, TransientError
from schemas.request import Mode
from schemas.request import Request as Wanted
from serve.context import Context
from serve.errors import AddressError, DailyLimitError
from serve.http.errors import WIRE_NAMES, wire_issues
from serve.http.rounds import Submission
from serve.http.routes import Caller, body_of, context_of, documented, in_thread, json_answer, rounds_of
from serve.store.contract import ApiKey, Idempotency, Submitted
from serve.tasks import CREDITS_PER_USD, Constraints, NewTask, StoredTask
from serve.webhooks import check_webhook_url
from serve.wire.base import Path, WireError, issue
from serve.wire.creates import Creates, ImageToVideo, Own, TextToVideo, VideoToVideo
from serve.wire.instants import midnight
from serve.wire.tasks import created

router = APIRouter(tags=["create"])

FORMATS = {
    "mp4": ClipFormat.MP4,
    "webm": ClipFormat.WEBM,
    "gif": ClipFormat.GIF,
    "png_sequence": ClipFormat.PNG,
}
_TO_COME = "file:///to-come"
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


async def _make(request: Request, key: ApiKey, model: type[Creates]) -> Response:
    with refusals(request):
        return await replayed(request, key) or await _create(request, key, await body_of(request, model))


@contextmanager
def refusals(request: Request) -> Iterator[None]:
    """Requests that make no task are counted by why."""
    try:
        yield
    except (WireError, InvalidRequestError, DailyLimitError, TransientError) as error:
        request.app.state.metrics.refused(why_refused(error))
        raise


async def take(context: Context, uri: str, kind: Literal["image", "video"], key: ApiKey, path: Path) -> str:
    """The validated copy of what a client named. Raises WireError at `path`."""
    try:
        return await context.intake.take(uri, kind, key, ".".join(map(str, path)))
    except InvalidRequestError as error:
        raise WireError([one.model_copy(update={"path": path}) for one in wire_issues(error.issues, {})]) from error
    except (MediaError, AddressError) as error:
        code = "asset_invalid" if isinstance(error, MediaError) else "asset_url"
        raise WireError([issue(code, path, str(error))]) from error


def constraints_of(body: Own, *, prefer: Preference | None = None) -> Constraints:
    """What the client allows."""
    return Constraints(
        allow=body.allow_models,
        deny=body.deny_models,
        fall_back=body.fallback,
        prefer=body.optimize_for or prefer or Preference.LATENCY,
        min_quality=body.min_quality,
        max_usd=math.inf if body.max_credits is None else body.max_credits / CREDITS_PER_USD,
        deadline_at=math.inf if body.deadline is None else body.deadline,
        skip_busy=body.skip_busy,
    )


def wanted_of(
    body: Creates,
    mode: Mode,
    *,
    prompt: str,
    image: str | None = None,
    video: str | None = None,
    strength: float | None = None,
) -> Wanted:
    """The request as the rest of the house knows it. `Creates` has the same limits, so it never refuses."""
    return Wanted(
        mode=mode,
        variant=body.model,
        ratio=body.ratio,
        num_frames=body.num_frames,
        duration_s=body.duration,
        fps=body.fps,
        num_inference_steps=body.num_inference_steps,
        guidance_scale=body.guidance_scale,
        scheduler=body.scheduler,
        strength=strength,
        prompt=prompt,
        negative_prompt=body.negative_prompt,
        seed=body.seed,
        image=image,
        video=video,
        priority=body.priority,
    )


@dataclass(frozen=True)
class _Media:
    """What the client named, and where."""

    kind: Literal["image", "video"]
    uri: str
    name: str


def _parts(body: Creates) -> tuple[Mode, str, _Media | None, float | None]:
    """(mode, prompt, media, strength) of a create."""
    if isinstance(body, ImageToVideo):
        media = _Media("image", body.prompt_image[0].uri, "promptImage")
        return Mode.IMAGE_TO_VIDEO, body.prompt_text or "", media, None
    if isinstance(body, VideoToVideo):
        name = "videoUri" if body.video_uri is not None else "promptVideo"
        media = _Media("video", body.video_uri or body.prompt_video or "", name)
        return Mode.VIDEO_TO_VIDEO, body.prompt_text or "", media, body.strength
    assert isinstance(body, TextToVideo)
    return Mode.TEXT_TO_VIDEO, body.prompt_text, None, None


async def _create(request: Request, key: ApiKey, body: Creates) -> Response:
    context = context_of(request)
    constraints = constraints_of(body)
    mode, prompt, media, strength = _parts(body)
    names = {**WIRE_NAMES, "num_frames": "numFrames" if body.num_frames is not None else "duration"}
    if media is not None:
        names[media.kind] = media.name

    def decide(uri: str | None) -> NewTask:
        image, video = (uri, None) if media is not None and media.kind == "image" else (None, uri)
        return context.admission.decide(
            wanted_of(body, mode, prompt=prompt, image=image, video=video, strength=strength),
            constraints,
            key_id=key.id,
            kind=mode.value,
            model=body.model,
            clip_format=FORMATS[body.output_format],
            webhook_url=body.webhook_url,
        )

    try:
        check_webhook(context, body.webhook_url)
        if media is None:
            task = decide(None)
        else:
            decide(_TO_COME)  # what is refused anyway is not fetched first
            task = decide(await take(context, media.uri, media.kind, key, (media.name,)))
    except InvalidRequestError as error:
        raise WireError(wire_issues(error.issues, names)) from error
    stored = await store(request, key, [task])
    return _answer(stored.tasks[0], stored.replayed)


def _answer(task: StoredTask, is_replayed: bool) -> Response:
    headers = {"Idempotent-Replayed": "true"} if is_replayed else None
    return json_answer(created(task, task.offer.position), headers=headers)


def check_webhook(context: Context, url: str | None) -> None:
    """Raises InvalidRequestError for one that will not be called."""
    if url is not None:
        check_webhook_url(url, allow_private=context.config.media.allow_private)


async def replayed(request: Request, key: ApiKey) -> Response | None:
    """The answer of then, where the client's Idempotency-Key was seen before: whatever may have changed since."""
    tasks = await replayed_tasks(request, key)
    return _answer(tasks[0], True) if tasks else None


async def replayed_tasks(request: Request, key: ApiKey) -> tuple[StoredTask, ...]:
    """What an earlier request with this Idempotency-Key made; nothing for most requests."""
    idempotency = await _idempotency(request)
    if idempotency is None:
        return ()
    return await in_thread(context_of(request).store.tasks.replay, key.id, idempotency) or ()


async def store(request: Request, key: ApiKey, tasks: list[NewTask]) -> Submitted:
    """Keep the tasks within the key's limits; when it returns they are durable. An Idempotency-Key is heeded."""
    context = context_of(request)
    limits = context.config.limits
    now = context.now()
    most_daily = key.max_daily if key.max_daily is not None else limits.max_daily
    idempotency = await _idempotency(request)
    stored = await rounds_of(request).submit.ask(
        Submission(
            tuple(tasks),
            now,
            idempotency,
            max_live=key.max_concurrent if key.max_concurrent is not None else limits.max_concurrent,
            max_since=None if most_daily is None else (midnight(now), most_daily),
        )
    )
    if not stored.replayed:
        context.admission.accepted(tasks)
        request.app.state.metrics.accepted(tasks[0].kind, len(tasks))
        request.app.state.work_is_there.soon()
    return stored


async def _idempotency(request: Request) -> Idempotency | None:
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


def why_refused(error: WireError | InvalidRequestError | DailyLimitError | TransientError) -> str:
    """As `IngressMetrics.refused` counts it."""
    if isinstance(error, DailyLimitError):
        return "limit"
    if isinstance(error, TransientError):
        return "unavailable"
    codes = {one.code for one in error.issues}
    return next((why for why in ("price", "deadline") if any(code.startswith(why) for code in codes)), "invalid")
