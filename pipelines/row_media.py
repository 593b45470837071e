"""Media that rows bring, checked at planning as far as it can be known there, and told apart by content.

A task's fingerprint takes what the media is, not where it lies: a file that is replaced in place is another task, the
same file under another name is the same one.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from schemas.config import Config, read_config
from schemas.errors import ConfigError, Issue, MediaError, RushesError
from storage import keys
from storage.address import FolderAddress, parse_address
from storage.file_digests import FileDigests
from storage.store import open_store
from storage.uris import head_uri

CHOICES = ("https://…", "s3://…", "data:…", "a path")
_HEADS = 32  # a HEAD is all waiting
_REMEMBERED = 100_000
_SHOWN_CHARS = 80


@dataclass(frozen=True)
class FoundMedia:
    """Where an actor reads the media, and what stands for its content in a fingerprint."""

    uri: str
    identity: str


class RowMedia:
    """Checks media addresses. With `out`, bytes that stand in a row go to that store; without, nothing is written."""

    def __init__(self, config: Config | None = None, out: str | None = None) -> None:
        self._config = config or read_config()
        self._out = out
        self._digests = FileDigests(self._config.cache_dir)
        self._known: dict[str, FoundMedia | MediaError] = {}

    def __reduce__(self) -> tuple[type["RowMedia"], tuple[Config, str | None]]:
        return RowMedia, (self._config, self._out)

    def prefetch(self, values: Iterable[Any]) -> None:
        """Ask object stores for everything that they hold of `values` at once, rather than row by row."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        wanted = {v for v in values if isinstance(v, str) and v.startswith("s3://") and v not in self._known}
        if not wanted:
            return
        with ThreadPoolExecutor(min(_HEADS, len(wanted))) as threads:
            self._known.update(zip(wanted, threads.map(self._looked_up, wanted), strict=True))

    def __call__(self, value: Any, manifest: str) -> FoundMedia:
        """The media that a row of `manifest` gives as `value`: an address, or the bytes themselves.

        Raises MediaError with the reason when it is no media, or is not there.
        """
        if isinstance(value, bytes):
            return self._brought(value)
        if not isinstance(value, str):
            raise MediaError(f"{repr(value)[:_SHOWN_CHARS]} is no media address")
        uri = beside(value, manifest)
        if uri.startswith("data:"):
            self._check_scheme(uri)
            return FoundMedia(uri, _digest(_decoded(uri)))
        found = self._known.get(uri)
        if found is None:
            found = self._known[uri] = self._looked_up(uri)
        if isinstance(found, MediaError):
            raise found
        return found

    def _looked_up(self, uri: str) -> FoundMedia | MediaError:
        try:
            self._check_scheme(uri)
            if uri.startswith(("https://", "http://")):
                url = checked_url(uri)
                return FoundMedia(url, url)
            return self._in_store(uri)
        except MediaError as error:
            return error
        except (RushesError, OSError, ValueError) as error:
            return MediaError(f"{uri[:_SHOWN_CHARS]}: {error}")

    def _in_store(self, uri: str) -> FoundMedia:
        try:
            address = parse_address(uri)
        except ConfigError:
            raise MediaError(f"{uri[:_SHOWN_CHARS]!r} is no media address") from None
        if isinstance(address, FolderAddress):
            path = address.folder
            if not path.exists():
                raise MediaError(f"{path}: not there")
            if not path.is_file():
                raise MediaError(f"{path}: not a file")
            self._check_size(path.stat().st_size, uri)
            return FoundMedia(uri, f"sha256:{self._digests.sha256(path)}")
        info = head_uri(uri)
        if info is None:
            raise MediaError(f"{uri}: not there")
        self._check_size(info.size_bytes, uri)
        return FoundMedia(uri, f"{uri}@{info.etag}")

    def _brought(self, data: bytes) -> FoundMedia:
        self._check_size(len(data), "the row's own bytes")
        identity = _digest(data)
        if self._out is None:
            return FoundMedia(identity, identity)
        schemes = self._config.media_schemes
        store = open_store(self._out)
        key = keys.media_input(identity.removeprefix("sha256:"), "bin")
        uri = store.uri(key)
        if schemes is not None and urlsplit(uri).scheme not in schemes:
            return FoundMedia(f"data:;base64,{base64.b64encode(data).decode()}", identity)
        store.put(key, data, if_absent=True)
        return FoundMedia(uri, identity)

    def _check_scheme(self, uri: str) -> None:
        schemes = self._config.media_schemes
        scheme = uri[:16].partition(":")[0] if uri.startswith(("https:", "http:", "s3:", "data:")) else "file"
        if schemes is not None and scheme not in schemes:
            raise MediaError(
                f"{uri[:_SHOWN_CHARS]}: media of this run may only be given as {', '.join(sorted(schemes))}"
            )

    def _check_size(self, media_bytes: int, uri: str) -> None:
        if not media_bytes:
            raise MediaError(f"{uri[:_SHOWN_CHARS]}: empty")
        if media_bytes > self._config.media_max_bytes:
            raise MediaError(
                f"{uri[:_SHOWN_CHARS]}: {media_bytes} bytes, more than {self._config.media_max_bytes} "
                "(RUSHES_MEDIA_MAX_BYTES)"
            )


def media_issue(name: str, error: MediaError) -> Issue:
    """What is wrong with a row whose media `error` is about; the forms there are when it is none of them."""
    return Issue(name, str(error), "media", CHOICES if "no media address" in str(error) else ())


def beside(media: str, manifest: str) -> str:
    """A relative media path, taken from the manifest's own folder; anything else as it stands."""
    head = media[:64]
    if head.startswith(("/", "~")) or (":" in head and head.partition(":")[0].replace("+", "").isalnum()):
        return media
    return str(Path(manifest.rpartition("/")[0], media)) if "://" not in manifest else _joined(manifest, media)


def checked_url(url: str) -> str:
    """The URL with what may not stand in it percent-encoded. MediaError when it is malformed."""
    import httpx

    try:
        urlsplit(url)  # knows of brackets that do not match
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise MediaError(f"{url[:_SHOWN_CHARS]!r} is no URL: {error}") from error
    if not parsed.host:
        raise MediaError(f"{url[:_SHOWN_CHARS]!r} is no URL: it names no host")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise MediaError(f"{url[:_SHOWN_CHARS]!r} is no URL: no port {parsed.port}")
    return str(parsed.copy_with(host=parsed.raw_host.decode("ascii")))


def _joined(manifest: str, media: str) -> str:
    return f"{manifest.rpartition('/')[0]}/{media.removeprefix('./')}"


def _decoded(uri: str) -> bytes:
    header, comma, body = uri.partition(",")
    if not comma:
        raise MediaError(f"{uri[:60]}: a data URI needs a comma before its data")
    try:
        data = base64.b64decode(body, validate=True) if header.endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"{uri[:60]}: not base64: {error}") from error
    if not data:
        raise MediaError(f"{uri[:60]}: empty")
    return data


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
