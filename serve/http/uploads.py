"""`POST /v1/uploads`: where a client may send a file, and what it calls the file afterwards."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from serve.http.routes import Caller, body_of, context_of, documented, in_thread, json_answer
from serve.media.uploads import create
from serve.wire.uploads import NewUpload

router = APIRouter(tags=["uploads"])

_ANSWER = {
    "runwayUri": "runway://9f1c7d1e-5d0a-4a0e-8f14-0a2d53b1c9aa",
    "uploadUrl": "http://127.0.0.1:8000/uploads/9f1c7d1e-5d0a-4a0e-8f14-0a2d53b1c9aa",
    "fields": {"expires": "1896134400", "signature": "…"},
}


@router.post(
    "/v1/uploads",
    **documented(NewUpload, "A place for one file", {"filename": "first-frame.png", "type": "ephemeral"}, _ANSWER),
)
async def make(request: Request, key: Caller) -> Response:
    body = await body_of(request, NewUpload)
    return json_answer(await in_thread(create, context_of(request), key, body.filename))
