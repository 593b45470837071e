"""Runway's endpoints that no variant here can serve, and paths that do not exist: a clear answer instead of a blank."""

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serve.http.errors import as_response, envelope
from serve.wire.base import closest

# First parts of Runway's paths below /v1, and what they would be.
RUNWAY = {
    "video_upscale": "upscaling",
    "image_upscale": "upscaling",
    "video_to_hdr": "HDR conversion",
    "text_to_image": "images",
    "character_performance": "character performance",
    "sound_effect": "sound",
    "speech_to_speech": "speech",
    "text_to_speech": "speech",
    "video_to_audio": "sound",
    "voice_dubbing": "speech",
    "voice_isolation": "speech",
    "voices": "voices",
    "avatars": "avatars",
    "avatar_conversations": "avatars",
    "avatar_videos": "avatars",
    "avatar_usage": "avatars",
    "realtime_sessions": "realtime sessions",
    "documents": "documents",
    "recipes": "recipes",
    "workflows": "workflows",
    "workflow_invocations": "workflows",
    "generate": "anything but video",
}


def include(app: FastAPI) -> None:
    """For whatever no route matched; a route's own 404 stays as it is."""

    def available() -> list[str]:
        return sorted({path for path in app.openapi()["paths"] if path.startswith("/v1/")})

    async def answer(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException) or error.detail != "Not Found":
            return as_response(request, error)
        path = request.url.path
        part = path.removeprefix("/v1/").split("/")[0]
        paths = available()
        if path.startswith("/v1/") and part in RUNWAY:
            text = f"{path[:200]} is not available here: this endpoint does not serve {RUNWAY[part]}"
        else:
            text = f"there is no {path[:200]}"
        more: dict[str, object] = {"available": paths}
        found = closest(path, paths)
        if found:
            more["suggestion"] = found
        return envelope(request, 404, text, more=more)

    app.add_exception_handler(404, answer)
