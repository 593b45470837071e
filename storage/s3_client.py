"""The boto3 client: endpoint, credentials and addressing as the usual AWS environment and files say."""

import base64
import functools
import hashlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_lock = threading.Lock()


@dataclass(frozen=True)
class S3Settings:
    """What can be chosen beside the environment. `conditional_put` None: find out at the first need."""

    retry_budget_s: float = 60.0
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    client_attempts: int = 3  # of one HTTP request by boto3 itself, so that a large upload repeats one part, not all
    connections: int = 64
    multipart_threshold_bytes: int = 32 * 1024 * 1024
    multipart_part_bytes: int = 16 * 1024 * 1024
    multipart_threads: int = 4
    conditional_put: bool | None = None


def shared_client(settings: S3Settings) -> "S3Client":
    """One client per process and environment: making one takes longer than many requests do."""
    # The process is part of the key because connections do not survive a fork; the environment, because a test or a
    # notebook may point it at another server.
    environment = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    with _lock:  # boto3 sessions are not thread-safe while they make clients; clients are.
        return _client(settings, os.getpid(), environment)


def signing_client(settings: S3Settings) -> "S3Client":
    """The client that signs URLs for others: of the endpoint that they reach, RUSHES_S3_PUBLIC_ENDPOINT where it is
    another than ours."""
    public = os.environ.get("RUSHES_S3_PUBLIC_ENDPOINT")
    if not public:
        return shared_client(settings)
    environment = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    with _lock:
        return _client(settings, os.getpid(), environment, public)


@functools.lru_cache(maxsize=8)
def _client(
    settings: S3Settings, _pid: int, _environment: tuple[tuple[str, str], ...], endpoint: str | None = None
) -> "S3Client":
    session = boto3.session.Session()
    # The first is made only to learn what environment and files say together.
    resolved = session.client("s3", region_name=_region(session), endpoint_url=endpoint).meta
    custom = not (urlsplit(resolved.endpoint_url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.connections,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": settings.client_attempts},
        # boto3 still presigns with version 2 for some endpoints, which newer regions refuse.
        signature_version="s3v4",
        s3={"addressing_style": _addressing_style(session, custom)},
        **_checksums(custom),
    )
    client = session.client("s3", region_name=_region(session), endpoint_url=endpoint, config=config)
    if custom:
        client.meta.events.register("before-call.s3.DeleteObjects", _content_md5)
    return client


def _content_md5(params: dict[str, Any], **_: object) -> None:
    """DeleteObjects as S3 has always had it: boto3 sends a newer checksum, which many servers refuse or do not know."""
    params["headers"]["Content-MD5"] = base64.b64encode(
        hashlib.md5(params["body"], usedforsecurity=False).digest()
    ).decode()
    params.get("context", {}).pop("checksum", None)
    for name in [name for name in params["headers"] if name.lower().startswith("x-amz-checksum-")]:
        del params["headers"][name]
    params["headers"].pop("x-amz-sdk-checksum-algorithm", None)


def _region(session: boto3.session.Session) -> str:
    # Servers other than AWS rarely care, and AWS names the right region when this one is wrong.
    return os.environ.get("AWS_REGION") or session.region_name or "us-east-1"


def _addressing_style(session: boto3.session.Session, custom: bool) -> Any:
    """`https://host/bucket` (path) for servers of one's own, which seldom have a DNS name for each bucket."""
    said = os.environ.get("AWS_S3_ADDRESSING_STYLE")
    if not said:
        said = (session._session.get_scoped_config().get("s3") or {}).get("addressing_style")
    return said or ("path" if custom else "auto")


def _checksums(custom: bool) -> dict[str, Any]:
    # Since 2025 boto3 adds checksums that several S3-compatible servers reject. A user's own setting wins.
    if not custom or os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION"):
        return {}
    return {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
