"""An S3 bucket, or a prefix in one, as an object store. Any server that speaks S3 will do."""

import io
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from schemas.errors import ObjectMissingError, RushesError, StorageError
from storage.address import BucketAddress, checked_key
from storage.objects import DEFAULT_CONTENT_TYPE, ObjectInfo
from storage.retry import Backoff, retried
from storage.s3_client import S3Settings, shared_client, signing_client
from storage.s3_errors import code_of, status_of, translated

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["S3Settings", "S3Store"]

T = TypeVar("T")
_KEYS_A_DELETE = 1000  # S3's own limit.
_READ_AHEAD_BYTES = 4 * 1024 * 1024
_PUT_TOKEN = "rushes-put"


class S3Store:
    """The `ObjectStore` over a bucket. Endpoint and credentials come from the AWS environment of each process.

    The bucket must exist. `if_absent` has one winner among concurrent writers where the server honours
    `If-None-Match: *` (AWS, MinIO, SeaweedFS, R2 …), which is found out by trying; elsewhere it is a HEAD and a PUT,
    and two writers within that moment both write. Files past the multipart threshold are treated that way too.
    """

    def __init__(self, address: BucketAddress, settings: S3Settings | None = None) -> None:
        self._address = address
        self._settings = settings or S3Settings()
        self._backoff = Backoff(self._settings.retry_budget_s)

    def __reduce__(self) -> tuple[type["S3Store"], tuple[BucketAddress, S3Settings]]:
        # What was found out about the server travels; connections do not.
        found = self.__dict__.get("supports_conditional_put", self._settings.conditional_put)
        return S3Store, (self._address, replace(self._settings, conditional_put=found))

    def __repr__(self) -> str:
        return f"S3Store({str(self._address)!r})"

    @property
    def address(self) -> BucketAddress:
        return self._address

    @cached_property
    def supports_conditional_put(self) -> bool:
        """Whether the server refuses a second `If-None-Match: *` write. Tried once, on a key of its own."""
        if self._settings.conditional_put is not None:
            return self._settings.conditional_put
        probe = f".rushes-probe-{secrets.token_hex(8)}"
        try:
            self._put_object(probe, b"1", DEFAULT_CONTENT_TYPE, if_absent=True)
            return not self._put_object(probe, b"2", DEFAULT_CONTENT_TYPE, if_absent=True)
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and status_of(cause) in (400, 501):
                return False  # A server that says it does not know the header.
            raise
        finally:
            # The probe's own error matters more, and what is left over is one byte.
            with suppress(RushesError):
                self.delete([probe])

    def put(
        self, key: str, data: bytes | Path, content_type: str = DEFAULT_CONTENT_TYPE, if_absent: bool = False
    ) -> bool:
        size_bytes = _size_bytes(data)
        large = size_bytes > self._settings.multipart_threshold_bytes
        if if_absent and (large or not self.supports_conditional_put):
            if self.head(key) is not None:
                return False
            if_absent = False
        if not large:
            return self._put_object(key, data, content_type, if_absent)
        self._upload(key, data, content_type)
        return True

    def get(self, key: str) -> bytes:
        return self._get(key)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        try:
            return self._get(key, Range=f"bytes={start}-{end - 1}")
        except StorageError as error:
            if isinstance(error.__cause__, ClientError) and status_of(error.__cause__) == 416:
                return b""  # It starts behind the end.
            raise

    def open(self, key: str) -> BinaryIO:
        info = self.head(key)
        if info is None:
            raise ObjectMissingError(f"cannot read {self.uri(key)} at {self._endpoint}: no such object")
        return io.BufferedReader(_RangeReader(self, key, info.size_bytes), _READ_AHEAD_BYTES)

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".rushes-tmp-{os.getpid()}-{secrets.token_hex(8)}"
        where: dict[str, Any] = {"Bucket": self._address.bucket, "Key": self._full(key)}

        def call() -> None:
            self._client.download_file(Filename=str(temporary), Config=self._transfer(), **where)

        try:
            self._call("read", key, call)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def head(self, key: str) -> ObjectInfo | None:
        where: dict[str, Any] = {"Bucket": self._address.bucket, "Key": self._full(key)}
        try:
            answer = self._call("look at", key, lambda: self._client.head_object(**where))
        except ObjectMissingError:
            return None
        return ObjectInfo(
            key, answer["ContentLength"], answer["ETag"].strip('"'), answer["LastModified"], answer.get("ContentType")
        )

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        full = self._address.full_key(prefix)
        skip = len(self._address.full_key(""))
        where: dict[str, Any] = {"Bucket": self._address.bucket, "Prefix": full}
        while True:
            # Page by page by hand, so that an outage between pages is retried from where the listing stood.
            page = self._call("list", prefix, lambda: self._client.list_objects_v2(**where))
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # How consoles and some servers mark a folder.
                    yield ObjectInfo(item["Key"][skip:], item["Size"], item["ETag"].strip('"'), item["LastModified"])
            if not page.get("IsTruncated"):
                return
            where["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, keys: Iterable[str]) -> None:
        left = iter([self._full(key) for key in keys])
        while chunk := tuple(islice(left, _KEYS_A_DELETE)):
            self._call(
                "delete",
                "" if len(chunk) > 1 else chunk[0].removeprefix(self._address.full_key("")),
                partial(self._delete, chunk),
            )

    def uri(self, key: str) -> str:
        return self._address.uri(checked_key(key))

    def sign(self, key: str, expires_s: int = 3600) -> str:
        where: dict[str, Any] = {"Bucket": self._address.bucket, "Key": self._full(key)}
        return self._call(
            "sign",
            key,
            lambda: signing_client(self._settings).generate_presigned_url(
                "get_object", Params=where, ExpiresIn=expires_s
            ),
        )

    def check(self) -> None:
        probe = f".rushes-probe-{secrets.token_hex(8)}"
        self._put_object(probe, b"rushes", DEFAULT_CONTENT_TYPE)
        try:
            if self.get(probe) != b"rushes":
                raise StorageError(f"{self.uri(probe)} at {self._endpoint}: what was written does not read back")
        finally:
            self.delete([probe])
        _ = self.supports_conditional_put

    @property
    def _client(self) -> "S3Client":
        return shared_client(self._settings)

    @property
    def _endpoint(self) -> str:
        return self._client.meta.endpoint_url

    def _full(self, key: str) -> str:
        return self._address.full_key(checked_key(key))

    def _put_object(self, key: str, data: bytes | Path, content_type: str, if_absent: bool = False) -> bool:
        token = secrets.token_hex(16)
        where: dict[str, Any] = {"Bucket": self._address.bucket, "Key": self._full(key), "ContentType": content_type}
        if if_absent:
            where |= {"IfNoneMatch": "*", "Metadata": {_PUT_TOKEN: token}}

        def call() -> bool:
            try:
                if isinstance(data, Path):
                    with data.open("rb") as body:
                        self._client.put_object(Body=body, **where)
                else:
                    self._client.put_object(Body=data, **where)
            except ClientError as error:
                if if_absent and (status_of(error) == 412 or code_of(error) == "PreconditionFailed"):
                    # Ours, if an earlier attempt was stored and only its answer was lost.
                    return self._token_of(key) == token
                raise
            return True

        return self._call("write", key, call)

    def _token_of(self, key: str) -> str | None:
        try:
            answer = self._client.head_object(Bucket=self._address.bucket, Key=self._full(key))
        except ClientError as error:
            if status_of(error) == 404:
                return None
            raise
        return answer["Metadata"].get(_PUT_TOKEN)

    def _upload(self, key: str, data: bytes | Path, content_type: str) -> None:
        def call() -> None:
            with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as body:
                self._client.upload_fileobj(
                    body,
                    self._address.bucket,
                    self._full(key),
                    ExtraArgs={"ContentType": content_type},
                    Config=self._transfer(),
                )

        self._call("write", key, call)

    def _get(self, key: str, **extra: str) -> bytes:
        where: dict[str, Any] = {"Bucket": self._address.bucket, "Key": self._full(key), **extra}
        # The body is read inside, since a connection breaks there as well.
        return self._call("read", key, lambda: self._client.get_object(**where)["Body"].read())

    def _delete(self, full_keys: tuple[str, ...]) -> None:
        wanted: Any = {"Objects": [{"Key": key} for key in full_keys], "Quiet": True}
        answer = self._client.delete_objects(Bucket=self._address.bucket, Delete=wanted)
        for refused in answer.get("Errors", []):
            if refused.get("Code") != "NoSuchKey":
                status = 503 if refused.get("Code") in ("InternalError", "SlowDown", "ServiceUnavailable") else 400
                raise ClientError(
                    {"Error": dict(refused), "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
                    "DeleteObjects",
                )

    def _transfer(self) -> TransferConfig:
        return TransferConfig(
            multipart_threshold=self._settings.multipart_threshold_bytes,
            multipart_chunksize=self._settings.multipart_part_bytes,
            max_concurrency=self._settings.multipart_threads,
        )

    def _call(self, what: str, key: str, call: Callable[[], T]) -> T:
        """The call's answer, tried again while the budget lasts; its errors are ours."""

        def attempt() -> T:
            try:
                return call()
            except (ClientError, BotoCoreError, Boto3Error, ValueError, OSError) as error:
                raise translated(error, f"{what} {self._address.uri(key)}", self._where()) from error

        return retried(attempt, self._backoff)

    def _where(self) -> str:
        try:
            return self._endpoint
        except (BotoCoreError, ValueError):
            return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


class _RangeReader(io.RawIOBase):
    """A file over ranged GETs; io.BufferedReader reads ahead for it."""

    def __init__(self, store: S3Store, key: str, size_bytes: int) -> None:
        super().__init__()
        self._store, self._key, self._size_bytes, self._at = store, key, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size_bytes)
        data = self._store.get_range(self._key, self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _size_bytes(data: bytes | Path) -> int:
    if isinstance(data, bytes):
        return len(data)
    try:
        return data.stat().st_size
    except OSError as error:
        raise StorageError(f"{data}: cannot store this file: {error.strerror}") from error
