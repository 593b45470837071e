"""Uploads: a place to send one file to, for a while; afterwards it is media like any other, for the same key."""

import asyncio
import logging
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fastapi import APIRouter, FastAPI, HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from schemas.errors import RushesError
from serve.context import Context
from serve.media import inputs
from serve.media.check import refused
from serve.media.urls import is_signed, signature
from serve.store.contract import ApiKey, Store, Upload
from storage import keys
from storage.objects import ObjectStore

router = APIRouter()

MAX_FIELDS = 20
MAX_FIELD_BYTES = 16 << 10
_ENVELOPE_BYTES = 256 << 10  # boundaries, headers and fields around the file
_READ_S, _TOTAL_S = 30.0, 900.0
_SWEEP_S = 900.0

log = logging.getLogger(__name__)


def create(context: Context, key: ApiKey, filename: str) -> dict[str, object]:
    """`{runwayUri, uploadUrl, fields}` for one file. Blocking (the store). InvalidRequestError for a filename."""
    if not 1 <= len(filename) <= 255 or not filename.isprintable() or "/" in filename or "\\" in filename:
        raise refused("filename", "1 to 255 printable characters without slashes", "invalid_filename")
    now = context.now()
    upload_id = str(uuid.uuid4())
    expires = now + context.config.upload_expiry_s
    context.store.uploads.add(
        Upload(
            id=upload_id,
            key_id=key.id,
            filename=filename,
            object_key=keys.upload(upload_id),
            created_at=now,
            expires_at=expires,
        )
    )
    until = str(int(expires))
    return {
        "runwayUri": f"runway://{upload_id}",
        "uploadUrl": f"{context.config.origin}/uploads/{upload_id}",
        "fields": {"expires": until, "signature": signature(context.secret, "upload", upload_id, until)},
    }


@router.post("/uploads/{upload_id}", status_code=204, include_in_schema=False)
async def receive(request: Request, upload_id: str) -> Response:
    """The file of an upload: multipart, the signed fields first, then `file`. Once.

    403 for fields that were not signed here or have expired, 404 for an upload that there is not, 409 for one whose
    file has come already, 413 past the limit.
    """
    context: Context = request.app.state.context
    upload = await asyncio.to_thread(_waiting, context, upload_id)
    most_bytes = context.config.media.upload_bytes
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes + _ENVELOPE_BYTES:
        raise _too_large(most_bytes)
    async with context.intake.receiving(upload.key_id):
        # Not `TemporaryDirectory`: its own cleaning would run on the loop.
        with tempfile.NamedTemporaryFile(prefix="rushes-upload-") as spool:
            content_type = request.headers.get("content-type", "")
            form = _Form(content_type, spool, most_bytes, lambda fields: _verify(context, upload, fields))
            await _read(request, form)
            file = Path(spool.name)
            checked = await context.intake.check(file, "file")
            await asyncio.to_thread(_store, context, upload, file, checked.format.content_type, form.file_bytes)
    return Response(status_code=204)


def sweep(store: Store, objects: ObjectStore, now: float) -> int:
    """Remove uploads past their time, files first; how many. Tasks made from them have copies. Blocking."""
    expired = store.uploads.expired(now)
    for upload in expired:
        objects.delete([upload.object_key])
        store.uploads.remove(upload.id)
    return len(expired)


def include(app: FastAPI, context: Context) -> None:
    """Sweep now and then while the application runs. Several processes may: a sweep twice is a sweep."""
    sweeping: list[asyncio.Task[None]] = []

    async def start() -> None:
        sweeping.append(asyncio.create_task(_sweep_now_and_then(context)))

    async def stop() -> None:
        sweeping.pop().cancel()

    app.state.starting.append(start)
    app.state.stopping.append(stop)


async def _sweep_now_and_then(context: Context) -> None:
    store, objects, keep_s = context.store, context.objects, context.config.media.keep_inputs_s
    sweeps = (
        ("expired uploads", lambda: sweep(store, objects, context.now())),
        ("inputs that nobody reads any more", lambda: inputs.sweep(store, objects, keep_s, context.now())),
    )
    while True:
        for what, work in sweeps:
            try:
                removed = await asyncio.to_thread(work)
            except RushesError as error:
                log.warning("%s stay for now: %s", what, error)
            else:
                if removed:
                    log.info("removed %d %s", removed, what)
        await asyncio.sleep(_SWEEP_S)


def _waiting(context: Context, upload_id: str) -> Upload:
    upload = context.store.uploads.get(upload_id) if len(upload_id) == 36 else None
    if upload is None or upload.expires_at <= context.now():
        raise HTTPException(404, "no such upload, or it has expired")
    if upload.upload_bytes is not None:
        raise HTTPException(409, "the file of this upload has come already: make another upload")
    return upload


def _verify(context: Context, upload: Upload, fields: dict[str, str]) -> None:
    expires = fields.get("expires", "")
    if not is_signed(fields.get("signature", ""), context.secret, "upload", upload.id, expires):
        raise HTTPException(403, "the fields of this upload were not signed here; they come before the file")


def _store(context: Context, upload: Upload, file: Path, content_type: str, size: int) -> None:
    # Of two who send at once, the one whose object is stored has sent it.
    if not context.objects.put(upload.object_key, file, content_type, if_absent=True):
        raise HTTPException(409, "the file of this upload has come already: make another upload")
    context.store.uploads.complete(upload.id, content_type, size)


async def _read(request: Request, form: "_Form") -> None:
    try:
        async with asyncio.timeout(_TOTAL_S):
            stream = request.stream()
            while True:
                async with asyncio.timeout(_READ_S):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                form.feed(chunk)
        form.end()
    except TimeoutError as error:
        raise HTTPException(408, "the file did not come in time") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the file was cut short") from error


def _too_large(most_bytes: int) -> HTTPException:
    return HTTPException(413, f"the file is more than {most_bytes:,} bytes")


class _Form:
    """A multipart body while it comes in: small fields, then one file that goes straight to `spool`.

    `verify` sees the fields when the file begins: nothing is written for whoever may not send.
    """

    def __init__(
        self, content_type: str, spool: IO[bytes], most_bytes: int, verify: Callable[[dict[str, str]], None]
    ) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise HTTPException(400, "send multipart/form-data: the fields, then the file")
        self.file_bytes = 0
        self._spool, self._most_bytes, self._verify = spool, most_bytes, verify
        self._fields: dict[str, str] = {}
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = "", bytearray()
        self._got_file = self._done = False
        self._total = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        self._total += len(chunk)
        if self._total > self._most_bytes + _ENVELOPE_BYTES:
            raise _too_large(self._most_bytes)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise HTTPException(400, "this is not multipart/form-data") from error

    def end(self) -> None:
        """Raises HTTPException when the body was cut short or had no file."""
        if not self._done:
            raise HTTPException(400, "the file was cut short")
        if not self._got_file:
            raise HTTPException(400, "no part called 'file'")
        self._spool.flush()

    def _part_begin(self) -> None:
        self._headers, self._value = {}, bytearray()

    def _header_end(self) -> None:
        self._headers[bytes(self._header[0]).lower()] = bytes(self._header[1])
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == "file":
            if self._got_file:
                raise HTTPException(400, "one file at a time")
            self._got_file = True
            self._verify(self._fields)
        elif len(self._fields) >= MAX_FIELDS:
            raise HTTPException(400, f"more than {MAX_FIELDS} fields")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self.file_bytes += end - start
            if self.file_bytes > self._most_bytes:
                raise _too_large(self._most_bytes)
            self._spool.write(data[start:end])
            return
        if len(self._value) + end - start > MAX_FIELD_BYTES:
            raise HTTPException(400, f"a field of more than {MAX_FIELD_BYTES} bytes")
        self._value += data[start:end]

    def _part_end(self) -> None:
        if self._name != "file":
            self._fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._done = True
