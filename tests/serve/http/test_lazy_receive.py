"""`lazy_receive` over Serve's own receive: what the proxy is asked for, and when."""

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

from ray.serve._private.http_util import ASGIReceiveProxy

from serve.http.lazy_receive import lazy_receive

_FIRST = {"type": "http.request", "body": b"on", "more_body": True}
_LAST = {"type": "http.request", "body": b"e", "more_body": False}
_GONE = {"type": "http.disconnect"}


class _Proxy:
    """Serve's, as a replica calls it: a list of messages a call, then no answer until the client is gone."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.calls = 0
        self.client_went = asyncio.Event()
        self._answers = list(answers)

    async def ask(self, _: object) -> bytes:
        self.calls += 1
        if not self._answers:
            await self.client_went.wait()
            return pickle.dumps([_GONE])
        return pickle.dumps(self._answers.pop(0))


def _served(proxy: _Proxy, route: Callable[[Any], Awaitable[object]]) -> object:
    """What `route` gives, called as a replica calls it: fetching is a task that has not begun."""

    async def serve() -> object:
        receive = ASGIReceiveProxy({"type": "http"}, None, proxy.ask)  # type: ignore[arg-type]
        fetching = asyncio.create_task(receive.fetch_until_disconnect())
        try:
            return await asyncio.wait_for(route(lazy_receive(receive)), 20)
        finally:
            fetching.cancel()

    return asyncio.run(serve())


async def _turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_request_that_reads_no_body_asks_the_proxy_for_nothing() -> None:
    proxy = _Proxy([_LAST])

    async def route(_: Any) -> None:
        await _turns()

    _served(proxy, route)
    assert proxy.calls == 0


def test_a_body_in_one_piece_is_one_call() -> None:
    proxy = _Proxy([_LAST])

    async def route(receive: Any) -> object:
        message = await receive()
        await _turns()
        return message

    assert _served(proxy, route) == _LAST
    assert proxy.calls == 1


def test_a_body_in_pieces_comes_in_order() -> None:
    proxy = _Proxy([_FIRST, _FIRST], [_FIRST], [_LAST])

    async def route(receive: Any) -> object:
        return [await receive() for _ in range(4)]

    assert _served(proxy, route) == [_FIRST, _FIRST, _FIRST, _LAST]


def test_whoever_waits_for_the_client_to_go_away_is_told() -> None:
    proxy = _Proxy([_LAST])

    async def route(receive: Any) -> object:
        await receive()
        waiting = asyncio.create_task(receive())
        await _turns()
        assert not waiting.done()
        proxy.client_went.set()
        return await waiting, await receive()

    assert _served(proxy, route) == (_GONE, _GONE)


def test_a_look_that_does_not_wait_finds_out_later() -> None:
    # As `Request.is_disconnected`: it cancels its own call at once.
    proxy = _Proxy([_GONE])

    async def route(receive: Any) -> object:
        look = asyncio.create_task(receive())
        await asyncio.sleep(0)
        look.cancel()
        await _turns()
        return await receive()

    assert _served(proxy, route) == _GONE


def test_an_answer_without_messages_is_asked_for_again() -> None:
    proxy = _Proxy([], [], [_LAST])

    async def route(receive: Any) -> object:
        return await receive()

    assert _served(proxy, route) == _LAST
    assert proxy.calls == 3


def test_an_error_of_the_proxy_reaches_who_waits() -> None:
    proxy = _Proxy([_LAST])

    async def broken(_: object) -> bytes:
        raise OSError("the proxy died")

    proxy.ask = broken  # type: ignore[method-assign]

    async def route(receive: Any) -> object:
        try:
            return await receive()
        except OSError as error:
            return str(error)

    assert _served(proxy, route) == "the proxy died"


def test_another_server_s_receive_is_left_as_it_is() -> None:
    async def receive() -> dict[str, Any]:
        return _LAST

    assert lazy_receive(receive) is receive
