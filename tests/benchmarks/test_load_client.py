"""The client that `serve_load` measures with counts what a server really answered."""

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.load_client import Call, Client, Load, joined


@pytest.fixture
def echo() -> Iterator[tuple[int, list[str]]]:
    """A server that answers with the request's own path as id, and 404 below /gone; and the paths it saw."""
    seen: list[str] = []
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split()[1].decode()
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            seen.append(path)
            body = b'{"id": "%d"}' % len(seen)
            status = b"404 Not Found" if path.startswith("/gone") else b"200 OK"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1], seen
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_every_answer_is_counted_and_ids_are_asked_for_in_turn(echo: tuple[int, list[str]]) -> None:
    port, seen = echo
    client = Client("127.0.0.1", port, {"Authorization": "Bearer x"})
    made = client.closed_loop(Call("POST", "/tasks", b"{}"), 3, 0.2)
    assert len(made.latencies_s) == len(made.ids) == len(seen)
    assert sorted(map(int, made.ids)) == list(range(1, len(seen) + 1))
    before = len(seen)
    asked = client.closed_loop(Call("GET", "/tasks/{}", ids=("a", "b")), 1, 0.1)
    client.close()
    assert seen[before : before + 4] == ["/tasks/a", "/tasks/b", "/tasks/a", "/tasks/b"]
    assert asked.per_s == pytest.approx(len(asked.latencies_s) / asked.wall_s)
    assert len(asked.latencies_s) == len(seen) - before


def test_an_answer_that_was_not_expected_ends_the_measurement(echo: tuple[int, list[str]]) -> None:
    client = Client("127.0.0.1", echo[0], {})
    with pytest.raises(RuntimeError, match="GET /gone: 404"):
        client.closed_loop(Call("GET", "/gone"), 2, 0.2)
    client.close()


def test_rounds_join_into_one_measurement() -> None:
    load = joined([Load(np.array([0.1, 0.2]), 1.0, 0.1, ("a",)), Load(np.array([0.3]), 2.0, 0.2, ("b",))])
    assert (load.per_s, load.quantile_ms(0.5), load.ids) == (1.0, pytest.approx(200.0), ("a", "b"))
