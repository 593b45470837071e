"""Input images and videos by address, for bulk runs: what a manifest names is read with the caller's own rights.

The endpoint, whose requests come from strangers, has a stricter source of its own.
"""

import base64
import binascii
import urllib.error
import urllib.parse
import urllib.request

from schemas.config import Config
from schemas.errors import MediaError, ObjectMissingError, StorageUnavailableError
from storage.uris import read_uri

_CHUNK_BYTES = 1 << 20


class MediaSource:
    """Reads `https://`, `s3://`, `file://`, `data:` and plain paths. Size and time are limited by the config."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, uri: str) -> bytes:
        """The media's bytes. Raises MediaError when it is not there or too large, StorageUnavailableError when the
        server does not answer."""
        schemes = self._config.media_schemes
        if schemes is not None and _scheme(uri) not in schemes:
            raise MediaError(f"{uri[:80]}: media of this run may only be given as {', '.join(sorted(schemes))}")
        if uri.startswith("data:"):
            return self._checked(_from_data_uri(uri), uri)
        if uri.startswith(("https://", "http://")):
            return self._download(uri)
        try:
            return self._checked(read_uri(uri), uri)
        except ObjectMissingError as error:
            raise MediaError(f"{uri}: not there") from error

    def _download(self, url: str) -> bytes:
        try:
            with urllib.request.urlopen(url, timeout=self._config.media_timeout_s) as answer:
                data = bytearray()
                while chunk := answer.read(_CHUNK_BYTES):
                    data += chunk
                    self._checked(data, url)
                return bytes(data)
        except urllib.error.HTTPError as error:
            if error.code >= 500 or error.code in (408, 429):
                raise StorageUnavailableError(f"{url}: {error.code} {error.reason}") from error
            raise MediaError(f"{url}: {error.code} {error.reason}") from error
        except (urllib.error.URLError, TimeoutError) as error:
            raise StorageUnavailableError(f"{url}: {error}") from error

    def _checked(self, data: bytes | bytearray, uri: str) -> bytes:
        if len(data) > self._config.media_max_bytes:
            raise MediaError(f"{uri:.100}: more than {self._config.media_max_bytes} bytes (RUSHES_MEDIA_MAX_BYTES)")
        return data  # type: ignore[return-value]


def _from_data_uri(uri: str) -> bytes:
    header, comma, body = uri.partition(",")
    if not comma:
        raise MediaError(f"{uri:.60}: a data URI needs a comma before its data")
    if not header.endswith(";base64"):
        return urllib.parse.unquote_to_bytes(body)
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise MediaError(f"{uri:.60}: not base64: {error}") from error


def _scheme(uri: str) -> str:
    """'file' where none is written."""
    return urllib.parse.urlsplit(uri[:64]).scheme or "file"
