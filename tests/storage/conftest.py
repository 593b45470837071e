import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.address import BucketAddress
from storage.s3 import S3Settings, S3Store
from storage.store import ObjectStore, open_store
from tests.s3_server import S3Server

BUCKET = "rushes-contract"


@pytest.fixture
def s3_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix in a real bucket, with the environment pointing at its server."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.make_bucket(BUCKET)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/a run"


@pytest.fixture(
    params=["local", pytest.param("s3", marks=pytest.mark.s3), pytest.param("s3-no-if", marks=pytest.mark.s3)]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Every implementation in turn; `s3-no-if` is S3 without conditional writes."""
    if request.param == "local":
        return open_store(str(tmp_path / "a run"))
    uri = request.getfixturevalue("s3_uri")
    if request.param == "s3":
        return open_store(uri)
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return S3Store(BucketAddress(bucket, prefix), S3Settings(conditional_put=False))


@pytest.fixture
def s3_store(s3_uri: str) -> Callable[[], S3Store]:
    """Opens the S3 store anew with small budgets, under whatever the environment says at that moment."""
    bucket, _, prefix = s3_uri.removeprefix("s3://").partition("/")
    settings = S3Settings(retry_budget_s=10, client_attempts=1, read_timeout_s=1, conditional_put=True)
    return lambda: S3Store(BucketAddress(bucket, prefix), settings)
