import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.store.contract import Store
from serve.store.engine import open_store
from serve.store.memory import MemoryStore
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
    return url_of(request.param, request, tmp_path)


def url_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'a store' / 'tasks.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.fresh_url()


@pytest.fixture
def database_store(store_url: str) -> Iterator[Store]:
    """What only a database does: what it refuses, and the stores that are not in memory."""
    opened = open_store(store_url)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store | MemoryStore]:
    """An empty store of each kind in turn."""
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = open_store(url_of(request.param, request, tmp_path))
    yield opened
    opened.close()
