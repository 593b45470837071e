"""A small HTTP client that keeps connections open and one request on each: what `serve_load` measures with.

It runs in a process of its own and writes HTTP/1.1 by hand, since a full client takes longer for a request than a
no-op server does. `ceiling()` says how much it can do: the same client, a server with its bytes ready.
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

_READY = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{"hello": 1}\n'


@dataclass(frozen=True)
class Call:
    """One request, again and again. `{}` in `path` stands for each of `ids` in turn."""

    method: str
    path: str
    body: bytes = b""
    ids: tuple[str, ...] = ("",)
    expect: int = 200


@dataclass(frozen=True)
class Load:
    """What a closed loop measured: seconds of each request, the wall time, the client's own CPU seconds."""

    latencies_s: np.ndarray
    wall_s: float
    client_cpu_s: float
    ids: tuple[str, ...] = ()

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.wall_s

    def quantile_ms(self, level: float) -> float:
        return float(np.quantile(self.latencies_s, level)) * 1000


def joined(loads: Sequence[Load]) -> Load:
    """Rounds as one."""
    return Load(
        np.concatenate([load.latencies_s for load in loads]),
        sum(load.wall_s for load in loads),
        sum(load.client_cpu_s for load in loads),
        tuple(task_id for load in loads for task_id in load.ids),
    )


class Client:
    """A process that makes load; closed loops run there one after the other."""

    def __init__(self, host: str, port: int, headers: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, host, port, headers), daemon=True)
        self._process.start()
        theirs.close()

    def closed_loop(self, call: Call, at_once: int, seconds: float) -> Load:
        """`at_once` connections, each with its next request as soon as it has an answer. RuntimeError on another
        status than the expected."""
        self._ours.send((call, at_once, seconds))
        answer = self._ours.recv()
        if isinstance(answer, Load):
            return answer
        raise RuntimeError(str(answer))

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def ceiling(at_once: int, seconds: float) -> Load:
    """The client against a server that does nothing, on this machine: the most it could ever measure."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve_ready, args=(theirs,), daemon=True)
    server.start()
    client = Client("127.0.0.1", ours.recv(), {})
    try:
        client.closed_loop(Call("GET", "/"), at_once, seconds / 4)
        return client.closed_loop(Call("GET", "/"), at_once, seconds)
    finally:
        client.close()
        server.terminate()
        server.join()


def _serve_ready(pipe: Connection) -> None:
    class Ready(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self._transport = transport

        def data_received(self, _: bytes) -> None:
            self._transport.write(_READY)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Ready, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def _work(pipe: Connection, host: str, port: int, headers: dict[str, str]) -> None:
    while True:
        try:
            call, at_once, seconds = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(asyncio.run(_closed_loop(host, port, headers, call, at_once, seconds)))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


async def _closed_loop(host: str, port: int, headers: dict[str, str], call: Call, at_once: int, seconds: float) -> Load:
    lines = {"Host": f"{host}:{port}", "Content-Type": "application/json", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    connections = [await asyncio.open_connection(host, port) for _ in range(at_once)]
    latencies: list[float] = []
    made: list[str] = []
    turn = iter(range(10**9))
    began, cpu = time.perf_counter(), time.process_time()

    async def ask_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while time.perf_counter() - began < seconds:
            path = call.path.replace("{}", call.ids[next(turn) % len(call.ids)])
            request = f"{call.method} {path} HTTP/1.1\r\n{head}Content-Length: {len(call.body)}\r\n\r\n"
            asked = time.perf_counter()
            writer.write(request.encode() + call.body)
            status, body = await _answer(reader)
            latencies.append(time.perf_counter() - asked)
            if status != call.expect:
                raise RuntimeError(f"{call.method} {path}: {status} {body[:300]!r}")
            if call.method == "POST":
                made.append(body.decode())

    try:
        await asyncio.gather(*(ask_on(reader, writer) for reader, writer in connections))
        wall, used = time.perf_counter() - began, time.process_time() - cpu
    finally:
        for _, writer in connections:
            writer.close()
    # Read after the clock stopped.
    return Load(np.array(latencies), wall, used, tuple(str(json.loads(text).get("id", "")) for text in made))


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    place = lower.find(b"content-length:")
    if place < 0:
        raise RuntimeError(f"an answer without a length: {head!r}")
    length = int(lower[place + 15 : lower.index(b"\r", place)])
    return int(head[9:12]), await reader.readexactly(length) if length else b""
