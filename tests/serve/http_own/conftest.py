"""Endpoints for the routes of our own, shared by the tests of a file where they do not disturb each other."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.serve.http.endpoint import Endpoint, catalog_with, endpoint, pool

PRICES = {"shapes": 3.6, "shapes-turbo": 7.2, "tiny-random": 0.36}
ROW = {"model": "shapes", "promptText": "a red circle"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    # Qualities of its own: those of the shipped variants are measured, and may come out alike.
    catalog = catalog_with(PRICES, shapes={"quality": 0.9}, shapes_turbo={"quality": 0.8})
    with endpoint(tmp_path_factory.mktemp("served"), catalog) as running:
        fresh(running)
        yield running


@pytest.fixture
def client(served: Endpoint) -> Iterator[httpx.Client]:
    fresh(served)
    with client_of(served) as found:
        yield found


def client_of(running: Endpoint, secret: str | None = None) -> httpx.Client:
    return httpx.Client(
        base_url=running.url, headers={"Authorization": f"Bearer {secret or running.secret}"}, timeout=20
    )


def eventually(ask: Callable[[], object], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not ask():
        assert time.monotonic() < end
        time.sleep(0.02)


def fresh(running: Endpoint) -> None:
    """Every pool up and idle."""
    running.note(
        *(pool(name, price_usd_per_hour=price) for name, price in PRICES.items()),
    )


def post(
    client: httpx.Client, tasks: list[Any] | None = None, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    body = {**({"tasks": tasks} if tasks is not None else {}), **fields}
    return client.post("/v1/batches", json=body, headers=headers)


def made(client: httpx.Client, tasks: list[Any], **fields: Any) -> dict[str, Any]:
    answer = post(client, tasks, **fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
