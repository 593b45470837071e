"""From what a request names to checked media in the object store: the only way that a stranger's bytes come in."""

import asyncio
import hashlib
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import TypeVar

from models.media import shown_video
from schemas.errors import ObjectMissingError
from serve.config import MediaLimits, ServeConfig
from serve.media.check import Checked, Kind, check, refused
from serve.media.fetch import decode_data_uri, fetch
from serve.media.inputs import keep
from serve.net import Outbound
from serve.store.contract import ApiKey, Store, Upload
from storage import keys
from storage.objects import ObjectStore

T = TypeVar("T")

SCHEMES = ("https://", "data:", "runway://")
_UPLOAD = re.compile(r"runway://([0-9a-f-]{36})")
_THREADS = 4  # a decoded image may take 256 MB
# What comes in lies on our disk meanwhile: at most 32 × 32 MB and 8 × 200 MB.
_FETCHES = 32
_FETCHES_OF_A_KEY = 8  # so that one whose servers hang takes nobody else's turn
_UPLOADS = 8
_UPLOADS_OF_A_KEY = 2  # a key that sends slowly, or many, leaves the other slots to others


class Intake:
    """Takes media for one ingress process. `now` is the clock by which uploads expire and inputs age."""

    def __init__(
        self,
        config: ServeConfig,
        store: Store,
        objects: ObjectStore,
        *,
        outbound: Outbound | None = None,
        now: Callable[[], float] = time,
    ) -> None:
        self._limits: MediaLimits = config.media
        self._store, self._objects, self._now = store, objects, now
        self._outbound = outbound or Outbound(allow_private=config.media.allow_private)
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="media")
        self._fetching = asyncio.Semaphore(_FETCHES)
        self._of_key: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_FETCHES_OF_A_KEY))
        self._receiving = asyncio.Semaphore(_UPLOADS)
        self._receiving_of: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_UPLOADS_OF_A_KEY)
        )

    async def take(self, uri: str, kind: Kind | str, key: ApiKey, path: str) -> str:
        """Check what `uri` leads to, store it once, and return its URI in the object store.

        `uri` is an https:// URL, a data: URI, or runway:// of an upload of the same key; `kind` is "image" or "video".
        Raises InvalidRequestError naming `path` (the field of the request) and what is wrong with it.
        """
        kind = Kind(kind)
        scheme = next((known for known in (*SCHEMES, "http://") if uri[:10].lower().startswith(known)), None)
        if scheme is None or (scheme == "http://" and not self._limits.allow_private):
            raise refused(path, "not an address that media are taken from", "asset_url", SCHEMES)
        # Held while the file lies on our disk, not only while it comes in.
        async with self._of_key[key.id], self._fetching:
            folder = Path(await self._blocking(lambda: tempfile.mkdtemp(prefix="rushes-intake-")))
            try:
                return await self._take(uri, scheme, kind, key, path, folder / "media")
            finally:
                await self._blocking(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def shown(self, uri: str) -> tuple[int, int, int, float]:
        """(width, height, frames, frames a second) of a video that was taken. Raises MediaError."""
        key = keys.media_input(*uri.rpartition("/")[2].split(".", 1))

        def look() -> tuple[int, int, int, float]:
            with tempfile.TemporaryDirectory(prefix="rushes-intake-") as folder:
                path = Path(folder, "media")
                self._objects.download(key, path)
                return shown_video(path)

        return await self._blocking(look)

    @asynccontextmanager
    async def receiving(self, key_id: str) -> AsyncIterator[None]:
        """Held by whoever takes in an upload of the key. Those who wait for their own key's take nobody else's turn."""
        async with self._receiving_of[key_id], self._receiving:
            yield

    async def check(self, file: Path, path: str) -> Checked:
        """What an uploaded file is, image or video."""
        return await self._blocking(lambda: check(file, None, self._limits, path))

    async def _take(self, uri: str, scheme: str, kind: Kind, key: ApiKey, path: str, file: Path) -> str:
        limits, video = self._limits, kind is Kind.VIDEO
        declared: str | None
        if scheme == "runway://":
            await self._blocking(lambda: self._copy_upload(uri, key, path, file))
            declared = None
        elif scheme == "data:":
            most = limits.video_data_bytes if video else limits.image_data_bytes
            declared = await self._blocking(lambda: decode_data_uri(uri, file, most, path))
        else:
            most = limits.video_url_bytes if video else limits.image_url_bytes
            declared = await fetch(self._outbound, uri, file, most, limits.fetch_timeout_s, path)
        return await self._blocking(lambda: self._keep(file, kind, declared, path))

    def _copy_upload(self, uri: str, key: ApiKey, path: str, file: Path) -> None:
        """A task may outlive the upload that it was made from, so it gets a copy of its own."""
        match = _UPLOAD.fullmatch(uri)
        upload: Upload | None = self._store.uploads.get(match[1]) if match else None
        # Somebody else's upload and none at all look alike.
        if upload is None or upload.key_id != key.id or upload.expires_at <= self._now():
            raise refused(path, "no such upload, or it has expired", "asset_url")
        if upload.upload_bytes is None:
            raise refused(path, "an upload whose file was never sent", "asset_url")
        try:
            self._objects.download(upload.object_key, file)
        except ObjectMissingError as error:
            raise refused(path, "no such upload, or it has expired", "asset_url") from error

    def _keep(self, file: Path, kind: Kind, declared: str | None, path: str) -> str:
        found = check(file, kind, self._limits, path, declared=declared)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        object_key = keys.media_input(digest, found.format.suffix)
        keep(self._objects, object_key, file, found.format.content_type, self._limits.keep_inputs_s, self._now())
        return self._objects.uri(object_key)

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
