"""A request's messages from Serve's proxy, fetched when somebody asks for them rather than in any case.

As soon as a route waits for anything, Serve's replica calls the proxy for the body, even of a GET, and again for what
comes after it, which is nothing until the client has its answer: two calls between processes, each 1 to 2 ms of CPU,
where most requests need none or one. A client that goes away is not missed for it: Serve cancels the request itself.
"""

import asyncio
from typing import Any

from starlette.types import Message, Receive


def lazy_receive(receive: Receive) -> Receive:
    """The same messages. To be called before the request waits for the first time; another server's are as they are."""
    fetch = getattr(receive, "_receive_asgi_messages", None)
    if fetch is None or not hasattr(receive, "fetch_until_disconnect"):
        return receive
    is_wanted = asyncio.Event()

    async def fetch_wanted(about: object) -> Any:
        # Serve asks for more as it hands out the last: whoever waited for that first says that it was enough.
        await asyncio.sleep(0)
        await is_wanted.wait()
        return await fetch(about)

    async def receive_wanted() -> Message:
        is_wanted.set()
        message = await receive()
        is_wanted.clear()
        return message

    receive._receive_asgi_messages = fetch_wanted  # type: ignore[attr-defined]
    return receive_wanted
