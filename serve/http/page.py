"""The page at `/` and the API's documents at `/docs`: static files, and headers that let them load nothing but
themselves, the clips and this endpoint."""

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


@router.get("/docs")
async def docs(request: Request) -> Response:
    context: Context = request.app.state.context
    return _file(request, "docs.html", docs_policy(_origins(context.config.origin)))


@router.get("/docs/{name}")
async def docs_part(name: str) -> Response:
    content = _swagger_ui().get(name)
    if content is None:
        raise NotFoundError("there is nothing at this address")
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "max-age=86400"}
    return Response(content, headers=headers, media_type=_type(name))


def _file(request: Request, name: str, content_policy: str | None = None) -> Response:
    content = _files().get(name)
    if content is None:
        raise NotFoundError("there is nothing at this address")
    context: Context = request.app.state.context
    headers = {
        "Content-Security-Policy": content_policy or policy(clip_origins(context)),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        # Asked for again each time, so that a new release is not half an old one.
        "Cache-Control": "no-cache",
    }
    return Response(content, headers=headers, media_type=_type(name))


def policy(origins: tuple[str, ...]) -> str:
    """Nothing from elsewhere but clips from `origins`; videos that the page was given as data; no inline script or
    style, no frames, no forms that leave."""
    clips = " ".join(("'self'", *origins))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src 'self' data:; media-src {clips} blob:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def docs_policy(origins: tuple[str, ...]) -> str:
    """Of the API's documents: Swagger UI styles its elements one by one, and asks the endpoint where it is reached."""
    own = " ".join(("'self'", *origins))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        f"connect-src {own}; img-src 'self' data:; "
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


def _type(name: str) -> str:
    return _TYPES[name[name.rindex(".") :]]


@lru_cache(maxsize=1)
def _swagger_ui() -> dict[str, bytes]:
    """The parts of Swagger UI, as the package has them."""
    folder = files("fastapi_offline") / "static"
    return {name: (folder / name).read_bytes() for name in ("swagger-ui.css", "swagger-ui-bundle.js")}


@lru_cache(maxsize=1)
def _files() -> dict[str, bytes]:
    """The page's files by name. They are few, small, and part of the installation."""
    folder = files("serve") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[file.name.rfind(".") :] in _TYPES}
