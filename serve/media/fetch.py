"""Media by HTTPS URL and by data URI, into a file, never a byte more than is allowed."""

import base64
import binascii
import re
from pathlib import Path

import httpx

from serve.errors import AddressError
from serve.media.check import refused
from serve.net import Answer, Deadline, Outbound

_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)((?:;[\w.+-]+=[^;,]*)*);base64,", re.IGNORECASE)


async def fetch(outbound: Outbound, url: str, file: Path, most_bytes: int, timeout_s: float, path: str) -> str:
    """Write what `url` has to `file`; its Content-Type. Raises InvalidRequestError naming `path`."""
    try:
        async with outbound.call("GET", url, Deadline(timeout_s)) as answer:
            declared = _checked_head(answer, most_bytes, path)
            size = 0
            # To the page cache: a thread for each of these writes would take longer than they do.
            with file.open("wb") as opened:
                async for chunk in answer.chunks():
                    size += len(chunk)
                    if size > most_bytes:
                        raise too_large(path, most_bytes)
                    opened.write(chunk)
            return declared
    except AddressError as error:
        raise refused(path, str(error), "asset_url") from error
    except TimeoutError as error:
        raise refused(path, f"was not fetched within {timeout_s:g} s", "asset_fetch") from error
    except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
        # No more than that: what is said of a connection tells a stranger about our network.
        raise refused(path, "could not be fetched: no complete answer", "asset_fetch") from error


def _checked_head(answer: Answer, most_bytes: int, path: str) -> str:
    if 300 <= answer.status < 400:
        raise refused(path, f"could not be fetched: {answer.status}, and redirects are not followed", "asset_fetch")
    if answer.status != 200:
        raise refused(path, f"could not be fetched: {answer.status}", "asset_fetch")
    if (answer.header("content-encoding") or "identity").lower() != "identity":
        raise refused(path, "is sent compressed (Content-Encoding), which is not taken", "asset_fetch")
    length = answer.header("content-length")
    if length is not None and length.isdecimal() and int(length) > most_bytes:
        raise too_large(path, most_bytes, int(length))
    declared = answer.header("content-type")
    if declared is None:
        raise refused(path, "is sent without a Content-Type", "asset_type")
    return declared


def decode_data_uri(uri: str, file: Path, most_bytes: int, path: str) -> str:
    """Write the content of a data URI to `file`; its declared type. Blocking. Raises InvalidRequestError."""
    match = _DATA.match(uri)
    if match is None:
        raise refused(path, "a data URI looks like data:image/png;base64,…", "asset_url")
    body = uri[match.end() :]
    # Before decoding: four characters are three bytes.
    if len(body) * 3 // 4 > most_bytes + 2:
        raise too_large(path, most_bytes)
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refused(path, "a data URI that is not base64", "asset_url") from error
    if len(data) > most_bytes:
        raise too_large(path, most_bytes, len(data))
    file.write_bytes(data)
    return match[1]


def too_large(path: str, most_bytes: int, size: int | None = None):  # type: ignore[no-untyped-def]
    """The error of a file over its limit."""
    shown = f"{size:,} bytes is" if size is not None else "is"
    return refused(path, f"{shown} more than {most_bytes:,} bytes", "asset_too_large")
