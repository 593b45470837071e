"""The endpoint over a Postgres that goes away, drops connections, or takes no writes: 503, and no restart of ours."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serve.http.endpoint import Endpoint, endpoint
from tests.serve.store.postgres_server import PostgresServer, find_postgres

BODY = {"model": "shapes", "promptText": "a red circle"}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    if find_postgres() is None:
        pytest.skip("no Postgres server")
    with PostgresServer() as started:
        yield started


@pytest.fixture
def served(tmp_path: Path, server: PostgresServer) -> Iterator[Endpoint]:
    with endpoint(tmp_path, database=server.fresh_url()) as running:
        yield running


def client_of(running: Endpoint) -> httpx.Client:
    return httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {running.secret}"}, timeout=30)


def accepted(client: httpx.Client) -> str:
    """Sent again while it is told to, as Runway's clients do."""
    for _ in range(100):
        answer = client.post("/v1/text_to_video", json=BODY, headers={"Idempotency-Key": "once"})
        if answer.status_code == 200:
            return str(answer.json()["id"])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), answer.text
        time.sleep(0.1)
    raise AssertionError("never accepted")


def test_a_database_that_takes_no_writes_is_a_503_and_reads_go_on(served: Endpoint, server: PostgresServer) -> None:
    with client_of(served) as client:
        task = accepted(client)
        server.takes_writes(False)
        for path, body in (("/v1/text_to_video", BODY), ("/v1/batches", {"tasks": [BODY]})):
            refused = client.post(path, json=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2"), refused.text
            assert "SQL" not in refused.text
            assert "postgres" not in refused.text.lower()
        assert client.get(f"/v1/tasks/{task}").json()["status"] == "PENDING"
        server.takes_writes(True)
        assert client.post("/v1/text_to_video", json=BODY).status_code == 200
        assert len(served.store.tasks.recent(10)) == 2, "nothing of what was refused is there"


def test_connections_that_are_dropped_again_and_again_cost_nothing(served: Endpoint, server: PostgresServer) -> None:
    with client_of(served) as client:
        for _ in range(5):
            server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            answer = client.post("/v1/text_to_video", json=BODY)
            assert answer.status_code == 200, answer.text
        assert len(served.store.tasks.recent(10)) == 5


def test_a_database_that_was_away_is_used_again_once_it_is_back(served: Endpoint, server: PostgresServer) -> None:
    with client_of(served) as client:
        task = accepted(client)
        server.kill()
        refused = client.post("/v1/text_to_video", json=BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        server.start()
        assert accepted(client) == task, "the client's own key leads to the task of before"
