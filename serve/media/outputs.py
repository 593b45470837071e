"""`GET /outputs/{key}`: clips of an endpoint whose object store is a folder, for whoever has a signed URL."""

import asyncio
import mimetypes
from pathlib import PurePosixPath

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import FileResponse

from schemas.errors import StorageError
from serve.context import Context
from serve.media.urls import is_signed
from storage.address import FolderAddress, checked_key
from storage.objects import DEFAULT_CONTENT_TYPE

router = APIRouter()


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
        root = address.folder
        inside = await asyncio.to_thread(lambda: file.resolve().is_relative_to(root.resolve()) and file.is_file())
    except (StorageError, OSError, ValueError) as error:
        raise HTTPException(404, "no such output") from error
    if not inside:
        raise HTTPException(404, "no such output")
    return FileResponse(
        file,
        media_type=mimetypes.guess_type(key)[0] or DEFAULT_CONTENT_TYPE,
        filename=PurePosixPath(key).name,
        content_disposition_type="inline",
        headers={"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"},
    )
