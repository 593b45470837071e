"""`POST /v1/guides`: what the model that would render a create is shown of its inputs and motion.

Nothing is rendered or billed; media are taken in as those of a create are."""

import asyncio
import base64
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from pydantic import JsonValue
from starlette.responses import Response

from actors.encoder import encode
from actors.guides import guide_for, side_by_side
from actors.media_reader import ConfinedMediaReader
from actors.media_source import MediaSource
from actors.weights import StoredWeights
from models.extraction import Extractors
from schemas.catalog import Variant
from schemas.clip import ClipFormat
from schemas.config import read_config
from schemas.inputs import Input
from schemas.task import Group, Task
from serve.admission.offer import Decision
from serve.context import Context
from serve.http.generate import routed_submission
from serve.http.routes import Caller, any_body, context_of, in_thread, json_answer, json_of
from serve.wire.tasks import rendered

router = APIRouter(tags=["estimates"])

LONGEST_SIDE = 384  # of what is shown: enough to see where things go
_SIDE_STEP = 2  # video has colour for every second pixel

_SCHEMA = any_body(
    ("TextToVideo", "ImageToVideo", "VideoToVideo", "GenerateVideo"),
    {
        "model": "directed",
        "promptText": "a red circle moving right",
        "paths": [
            {"label": "red circle", "box": [0.1, 0.4, 0.3, 0.6], "keys": [{"atSeconds": 2, "x": 0.8, "y": 0.5}]},
        ],
    },
)


@router.post("/v1/guides", summary="What a model would be shown of a create, as a video", openapi_extra=_SCHEMA)
async def guide(request: Request, key: Caller) -> Response:
    context, studio = context_of(request), _studio_of(request)
    submission = await routed_submission(await json_of(request), context, key)
    if submission.media:
        await in_thread(submission.consider, context.admission)  # what is refused anyway is not fetched first
        submission = await submission.with_media_taken(context.intake)
    decision = await in_thread(submission.consider, context.admission)
    variant = context.admission.served[decision.offer.variant]
    return json_answer(await studio.answer(variant, decision, submission.request.inputs))


class _Studio:
    """Draws one guide at a time: its reader is not for several, and the cores are for requests."""

    def __init__(self) -> None:
        config = read_config()
        extractors = Extractors(config.cache_dir, StoredWeights())
        self._reader = ConfinedMediaReader(MediaSource(config), config.media_timeout_s, extractors=extractors)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="guide")

    async def answer(self, variant: Variant, decision: Decision, inputs: tuple[Input, ...]) -> dict[str, JsonValue]:
        """Raises MediaError and what else reading the media does."""
        uris = tuple(one.uri for one in inputs)
        video = await asyncio.wrap_future(self._thread.submit(self._drawn, variant, decision.group, uris))
        told: JsonValue = None if video is None else f"data:video/mp4;base64,{base64.b64encode(video).decode()}"
        return {"variant": variant.name, "rendered": rendered(decision.group), "guide": told}

    def _drawn(self, variant: Variant, group: Group, media: tuple[str, ...]) -> bytes | None:
        small = _small(group)
        shown = guide_for(variant, small, Task("guide", "", "", 0, media), self._reader)
        if shown is None:
            return None
        with tempfile.TemporaryDirectory(prefix="rushes-guide-") as folder:
            path = Path(folder, "guide.mp4")
            encode(side_by_side(shown), small.fps, ClipFormat.MP4, path)
            return path.read_bytes()

    def close(self) -> None:
        self._reader.close()
        self._thread.shutdown(cancel_futures=True)


def _small(group: Group) -> Group:
    """The same shot in a size that is drawn and sent quickly. Motion is in shares of the picture."""
    share = min(1.0, LONGEST_SIDE / max(group.width, group.height))
    sides = {
        name: max(_SIDE_STEP, round(side * share / _SIDE_STEP) * _SIDE_STEP)
        for name, side in (("width", group.width), ("height", group.height))
    }
    return group.changed(**sides)


def _studio_of(request: Request) -> _Studio:
    found: _Studio = request.app.state.guide_studio
    return found


def include(app: FastAPI, context: Context) -> None:  # noqa: ARG001
    studio = app.state.guide_studio = _Studio()

    async def stop() -> None:
        await asyncio.to_thread(studio.close)

    app.state.stopping.append(stop)
