"""The page at `/`: static files, and headers that let it load nothing but itself, the clips and this endpoint."""

from functools import lru_cache
from importlib.resources import files
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.responses import Response

from schemas.errors import RushesError
from serve.context import Context
from serve.http.errors import NotFoundError

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index(request: Request) -> Response:
    return _file(request, "index.html")


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    content = _files().get(name)
    if content is None:
        raise NotFoundError("there is nothing at this address")
    context: Context = request.app.state.context
    headers = {
        "Content-Security-Policy": policy(clip_origins(context)),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        # Asked for again each time, so that a new release is not half an old one.
        "Cache-Control": "no-cache",
    }
    return Response(content, headers=headers, media_type=_TYPES[name[name.rindex(".") :]])


def policy(origins: tuple[str, ...]) -> str:
    """Nothing from elsewhere but clips from `origins`; no inline script or style, no frames, no forms that leave."""
    clips = " ".join(("'self'", *origins))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src 'self' data:; media-src {clips}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def clip_origins(context: Context) -> tuple[str, ...]:
    """Where output URLs point: the endpoint's public origin, and the object store's where it signs its own."""
    return _origins(context.config.origin, _signed_origin(context))


@lru_cache(maxsize=32)
def _origins(*urls: str) -> tuple[str, ...]:
    parts = [urlsplit(url) for url in urls]
    found = (f"{part.scheme}://{part.netloc}" for part in parts if part.scheme in ("http", "https") and part.netloc)
    # What could end a directive does not belong into one.
    return tuple(dict.fromkeys(one for one in found if not set(one) & set(" ;,'\"")))


def _signed_origin(context: Context) -> str:
    try:
        return context.objects.sign("clips/any.mp4", 60)
    except (RushesError, NotImplementedError):
        return ""


@lru_cache(maxsize=1)
def _files() -> dict[str, bytes]:
    """The page's files by name. They are few, small, and part of the installation."""
    folder = files("serve") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[file.name.rfind(".") :] in _TYPES}
