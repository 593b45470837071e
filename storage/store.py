"""Opening an object store from its URI. For single URIs (a manifest, an image) see `storage.uris`."""

from storage.address import BucketAddress, StoreAddress, parse_address
from storage.local import LocalStore
from storage.objects import ObjectInfo, ObjectStore

__all__ = ["ObjectInfo", "ObjectStore", "open_store", "store_at"]


def open_store(uri: str, *, retry_budget_s: float = 60.0, fsync: bool = True) -> ObjectStore:
    """The store at `file:///…`, `s3://bucket/prefix` or a path. Touches neither disk nor network.

    `retry_budget_s` bounds how long one call keeps trying while an S3 server does not answer; without `fsync` a
    power cut may undo writes to a folder (a killed process loses nothing either way). ConfigError for another scheme.
    """
    return store_at(parse_address(uri), retry_budget_s=retry_budget_s, fsync=fsync)


def store_at(address: StoreAddress, *, retry_budget_s: float = 60.0, fsync: bool = True) -> ObjectStore:
    """As `open_store`, of an address already parsed."""
    # Imported here so that a folder never pays for loading boto3.
    if isinstance(address, BucketAddress):
        from storage.s3 import S3Settings, S3Store

        return S3Store(address, S3Settings(retry_budget_s=retry_budget_s))
    return LocalStore(address, fsync=fsync)
