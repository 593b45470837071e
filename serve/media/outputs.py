"""`GET /outputs/{key}`: clips of an endpoint whose object store is a folder, for whoever has a signed URL."""

import asyncio
import mimetypes
import re
from pathlib import Path, PurePosixPath

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import FileResponse

from schemas.errors import StorageError
from serve.context import Context
from serve.media.urls import is_signed
from storage.address import FolderAddress, checked_key
from storage.objects import DEFAULT_CONTENT_TYPE

router = APIRouter()

_ONE = r"(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})"
_RANGES = re.compile(rf"bytes=((?:[ \t]*{_ONE}[ \t]*(?:,|$))+)", re.IGNORECASE)


@router.api_route("/outputs/{key:path}", methods=["GET", "HEAD"], include_in_schema=False, response_model=None)
async def output(request: Request, key: str, expires: str = "", signature: str = "") -> FileResponse:
    """The object, whole or by ranges. 403 without a valid signature or past its time, 404 when it is not there."""
    context: Context = request.app.state.context
    if len(key) > 1024 or not is_signed(signature, context.secret, "output", key, expires):
        raise HTTPException(403, "this URL was not signed here")
    if int(expires) <= context.now():  # a number, since it was signed
        raise HTTPException(403, "this URL has expired: ask for the task again to get a new one")
    address = context.objects.address
    if not isinstance(address, FolderAddress):
        raise HTTPException(404, "no such output")
    try:
        file = address.folder / checked_key(key)
        inside = await asyncio.to_thread(_size_inside, file, address.folder)
    except (StorageError, OSError, ValueError) as error:
        raise HTTPException(404, "no such output") from error
    if inside is None:
        raise HTTPException(404, "no such output")
    _drop_bad_range(request, inside)
    return FileResponse(
        file,
        media_type=mimetypes.guess_type(key)[0] or DEFAULT_CONTENT_TYPE,
        filename=PurePosixPath(key).name,
        content_disposition_type="inline",
        headers={"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"},
    )


def _size_inside(file: Path, root: Path) -> int | None:
    """The size of a file of the folder; None where it is none, or leads out."""
    return file.stat().st_size if file.resolve().is_relative_to(root.resolve()) and file.is_file() else None


def _drop_bad_range(request: Request, size: int) -> None:
    """A Range that is none, or none of bytes, is as if it were not there, and of several those count that can be
    satisfied (RFC 9110, 14.2); where none can, the answer is 416."""
    given = request.headers.getlist("range")
    if not given:
        return
    kept = honoured_range(given[0], size) if len(given) == 1 else None
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
    request.scope["headers"] = headers if kept is None else [*headers, (b"range", kept.encode())]


def honoured_range(header: str, size: int) -> str | None:
    """What of a Range header is heeded; None: nothing, the whole is sent."""
    match = _RANGES.fullmatch(header.strip())
    if match is None:
        return None
    ranges = [
        (first, last) for first, last in (part.strip().split("-") for part in match[1].split(",") if part.strip())
    ]
    if not ranges or any(first and last and int(last) < int(first) for first, last in ranges):
        return None
    able = [(first, last) for first, last in ranges if (int(first) < size if first else int(last) > 0 and size > 0)]
    return "bytes=" + ",".join(f"{first}-{last}" for first, last in able or ranges[:1])
