"""What the OpenAPI document says beside the routes."""

from typing import Any

from serve.wire.creates import GenerateVideo, ImageToVideo, TextToVideo, VideoToVideo
from serve.wire.organization import UsageQuery
from serve.wire.routers import NewRouter, RouterPatch
from serve.wire.uploads import NewUpload
from serve.wire.upscale import VideoUpscale

BODIES: list[Any] = [
    TextToVideo,
    ImageToVideo,
    VideoToVideo,
    GenerateVideo,
    VideoUpscale,
    NewUpload,
    UsageQuery,
    NewRouter,
    RouterPatch,
]

DESCRIPTION = """Text, images and videos in, video out: Runway's API, and ours beside it.

Point an unmodified `runwayml` client here with `base_url` and a key of this endpoint. What Runway does not have
(quotes, ETAs, deadlines, price caps, priorities, batches, events) comes as further fields and routes."""

COMPONENTS: dict[str, dict[str, Any]] = {
    "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "rsh_…"}},
    "schemas": {
        "Envelope": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {"type": "string"},
                "issues": {"type": "array", "items": {"$ref": "#/components/schemas/Issue"}},
                "docUrl": {"type": "string"},
                "requestId": {"type": "string"},
            },
        },
        "Issue": {
            "type": "object",
            "required": ["code", "path", "message"],
            "properties": {
                "code": {"type": "string"},
                "path": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                "message": {"type": "string"},
                "choices": {"type": "array", "items": {"type": "string"}, "description": "what would have been right"},
                "suggestion": {"type": "string", "description": "what was probably meant"},
            },
        },
    },
    "responses": {
        "Refused": {
            "description": "What was wrong, and what would be right",
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Envelope"},
                    "example": {
                        "error": "Validation of body failed",
                        "issues": [
                            {
                                "code": "unknown_model",
                                "path": ["model"],
                                "message": "unknown model 'embeded'",
                                "choices": ["auto", "embedded"],
                                "suggestion": "embedded",
                            }
                        ],
                        "docUrl": "http://127.0.0.1:8000/docs",
                        "requestId": "4c1f0a52b6d24c9da2f05a9e",
                    },
                }
            },
        }
    },
}
