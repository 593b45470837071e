"""Input images and videos by address, for bulk runs: what a manifest names is read with the caller's own rights.

The endpoint, whose requests come from strangers, has a stricter source of its own.
"""

import base64
import binascii
import re
import urllib.parse

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from schemas.config import Config
from schemas.errors import MediaError, MediaUnavailableError, ObjectMissingError
from storage.uris import read_uri

_TRIES, _FIRST_PAUSE_S, _LONGEST_PAUSE_S = 3, 0.5, 4.0
_ASK_AGAIN = frozenset({408, 425, 429})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class MediaSource:
    """Reads `https://`, `s3://`, `file://`, `data:` and plain paths. Size and time are limited by the config."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, uri: str) -> bytes:
        """The media's bytes. Raises MediaError when it is not there, too large or no address, MediaUnavailableError
        when a server does not answer, and what a store raises. How long it takes is for the caller to limit."""
        schemes = self._config.media_schemes
        if schemes is not None and _scheme(uri) not in schemes:
            raise MediaError(f"{uri[:80]}: media of this run may only be given as {', '.join(sorted(schemes))}")
        if uri.startswith("data:"):
            return self._checked(_from_data_uri(uri), uri)
        if _scheme(uri) in ("https", "http"):
            again = retry_if_exception_type(MediaUnavailableError)
            pause = wait_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S)
            return Retrying(retry=again, stop=stop_after_attempt(_TRIES), wait=pause, reraise=True)(self._download, uri)
        try:
            return self._checked(read_uri(uri), uri)
        except ObjectMissingError as error:
            raise MediaError(f"{uri}: not there") from error

    def _download(self, url: str) -> bytes:
        try:
            with httpx.stream(
                "GET", _address(url), timeout=self._config.media_timeout_s, follow_redirects=True
            ) as answer:
                answer.raise_for_status()
                data = bytearray()
                for chunk in answer.iter_bytes():
                    data += chunk
                    self._checked(data, url)
                return bytes(data)
        except httpx.HTTPStatusError as error:
            told = f"{url:.200}: {error.response.status_code} {error.response.reason_phrase}"
            if error.response.is_server_error or error.response.status_code in _ASK_AGAIN:
                raise MediaUnavailableError(told) from error
            raise MediaError(told) from error
        except httpx.TransportError as error:
            if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
                raise MediaError(f"{url:.200}: {error}") from error
            raise MediaUnavailableError(f"{url:.200}: {error or type(error).__name__}") from error
        except (httpx.InvalidURL, httpx.TooManyRedirects, httpx.DecodingError, ValueError) as error:
            raise MediaError(f"{url:.200}: {error}") from error

    def _checked(self, data: bytes | bytearray, uri: str) -> bytes:
        if len(data) > self._config.media_max_bytes:
            raise MediaError(f"{uri:.100}: more than {self._config.media_max_bytes} bytes (RUSHES_MEDIA_MAX_BYTES)")
        return data  # type: ignore[return-value]


def _address(url: str) -> httpx.URL:
    """The URL with everything encoded that must be. Raises MediaError for one that cannot lead anywhere."""
    address = httpx.URL(url)
    # httpx is content with both, and the name lookup would then seem to be what failed.
    if not address.host or "%" in address.host or not 0 < (address.port or 1) < 1 << 16:
        raise MediaError(f"{url:.200}: not an address: it needs a host, and a port from 1 to 65535 if any")
    return address


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
    found = _SCHEME.match(uri)
    return found[1].lower() if found else "file"
