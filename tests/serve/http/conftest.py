"""Endpoints of this folder's tests: one a module, since a server takes a moment to start."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from runwayml import RunwayML

from tests.serve.http.endpoint import Endpoint, endpoint


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with endpoint(Path(tmp_path_factory.mktemp("endpoint"))) as running:
        yield running


@pytest.fixture
def http(served: Endpoint) -> Iterator[httpx.Client]:
    """Plain HTTP with a key."""
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.secret}"}, timeout=30) as client:
        yield client


@pytest.fixture
def client(served: Endpoint) -> Iterator[RunwayML]:
    """Runway's own client, unmodified and strict."""
    with strict(served) as client:
        yield client


def strict(served: Endpoint, secret: str | None = None) -> RunwayML:
    return RunwayML(
        base_url=served.url, api_key=secret or served.secret, _strict_response_validation=True, max_retries=0
    )
