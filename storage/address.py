"""Where a store is: a folder or an S3 prefix, as a frozen value that travels between processes."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from schemas.errors import ConfigError, StorageError

SCHEMES = ("file://", "s3://", "a plain path")


@dataclass(frozen=True)
class FolderAddress:
    """An absolute folder of a file system that every process of the run sees."""

    folder: Path

    def __str__(self) -> str:
        return self.folder.as_uri()

    def uri(self, key: str) -> str:
        """The URI of one object; spaces and the like are percent-encoded, as `file://` wants it."""
        return (self.folder / key).as_uri() if key else self.folder.as_uri()


@dataclass(frozen=True)
class BucketAddress:
    """A prefix in an S3 bucket. `prefix` has no slash at either end and may be empty."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return self.uri("").rstrip("/")

    def uri(self, key: str) -> str:
        """The URI of one object. S3 URIs are not percent-encoded: what stands there is the key."""
        return f"s3://{self.bucket}/{self.full_key(key)}"

    def full_key(self, key: str) -> str:
        """The key as the bucket knows it."""
        return f"{self.prefix}/{key}" if self.prefix else key


StoreAddress = FolderAddress | BucketAddress


def parse_address(uri: str) -> StoreAddress:
    """`file:///folder`, `s3://bucket/prefix` or a path (relative ones from the working directory, `~` from home).

    ConfigError, naming the schemes, for anything else.
    """
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise ConfigError(f"{uri!r}: no bucket; write s3://bucket/prefix")
        return BucketAddress(bucket, prefix.strip("/"))
    if uri.startswith("file:"):
        host, slash, path = uri.removeprefix("file:").removeprefix("//").partition("/")
        if host not in ("", "localhost") or not slash:
            raise ConfigError(f"{uri!r}: a file URI has three slashes: file:///folder")
        return FolderAddress(Path("/" + unquote(path)))
    if "://" in uri:
        raise ConfigError(f"{uri!r}: unknown scheme; available: {', '.join(SCHEMES)}")
    if not uri:
        raise ConfigError(f"an empty address is no store; available: {', '.join(SCHEMES)}")
    try:
        return FolderAddress(Path(uri).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigError(f"{uri!r}: nobody here has such a home folder") from error


def split_object_uri(uri: str) -> tuple[StoreAddress, str]:
    """The store that holds one object, and the object's key in it: the parent folder, or the whole bucket."""
    address = parse_address(uri)
    if isinstance(address, FolderAddress):
        return FolderAddress(address.folder.parent), address.folder.name
    return BucketAddress(address.bucket), address.prefix


def checked_key(key: str) -> str:
    """The key itself. StorageError for one that would leave the store or that a file system cannot hold."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in key or "\\" in key:
        raise StorageError(f"{key!r} is not a key: parts between slashes may not be empty, '.' or '..'")
    return key
