import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.store.contract import Store
from serve.store.engine import open_store
from tests.serve.store.postgres_server import PostgresServer, find_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A private server for the session. Without the programs: skipped on a laptop, failed where CI is set."""
    if find_postgres() is None:
        if os.environ.get("CI"):
            pytest.fail("no Postgres server: apt-get install postgresql")
        pytest.skip("no Postgres server: apt-get install postgresql")
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a store' / 'tasks.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.fresh_url()


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = open_store(store_url)
    yield opened
    opened.close()
