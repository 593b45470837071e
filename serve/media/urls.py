"""URLs that hand out objects without a key: signed, for one object, for a while."""

import base64
import hmac
from urllib.parse import quote, unquote, urlencode

from schemas.errors import StorageError
from serve.context import Context
from serve.keys import derived
from storage.address import BucketAddress
from storage.uris import locate

_MOST_S3_S = 7 * 86_400  # of a presigned URL


def output_url(context: Context, uri: str) -> str:
    """Where a client without a key reads the object at `uri` until `url_expiry_s` is over; absolute.

    A bucket signs for itself; what lies in the endpoint's folder comes through `GET /outputs/{key}`. Raises
    StorageError for a file outside of that folder.
    """
    expiry_s = context.config.url_expiry_s
    root = context.objects.uri("-")[:-1]
    in_bucket = isinstance(context.objects.address, BucketAddress)
    if uri.startswith(root):
        key = uri[len(root) :]
        if in_bucket:
            return context.objects.sign(key, int(min(expiry_s, _MOST_S3_S)))
        key = unquote(key)
        expires = int(context.now() + expiry_s)
        query = urlencode({"expires": expires, "signature": signature(context.secret, "output", key, str(expires))})
        return f"{context.config.origin}/outputs/{quote(key)}?{query}"
    if uri.startswith("s3://"):  # of a bulk run that writes elsewhere
        store, key = locate(uri)
        return store.sign(key, int(min(expiry_s, _MOST_S3_S)))
    raise StorageError(f"{uri} is not in {context.objects.address}: no URL leads there")


def signature(secret: bytes, purpose: str, *parts: str) -> str:
    """Over every part; URL-safe."""
    return base64.urlsafe_b64encode(derived(secret, purpose, *parts)).decode().rstrip("=")


def is_signed(given: str, secret: bytes, purpose: str, *parts: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(given.encode(), signature(secret, purpose, *parts).encode())
