"""Server-sent events: what changed, as it changed, until the end; and nothing left behind when a client goes."""

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.clip import Status
from serve.errors import StoreUnavailableError
from serve.http import events
from serve.http.change_feed import ChangeFeed, WatchKind
from serve.store.contract import Progress
from tests.serve.http.endpoint import Endpoint, endpoint
from tests.serve.http_own.conftest import client_of, eventually, fresh


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Endpoint]:
    with endpoint(tmp_path) as running:
        fresh(running)
        yield running


def create(client: httpx.Client, **changes: Any) -> str:
    answer = client.post("/v1/text_to_video", json={"model": "shapes", "promptText": "a red circle", **changes})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


class Listener:
    """A stream, read in a thread: (name, data) of each event."""

    def __init__(self, client: httpx.Client, path: str) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.comments = 0
        self.status = 0
        self.ended = threading.Event()
        self.opened = threading.Event()
        self._stop = False
        self._client, self._path = client, path
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            with self._client.stream("GET", self._path) as answer:
                self.status = answer.status_code
                name = ""
                for line in answer.iter_lines():
                    self.opened.set()
                    if self._stop:
                        return
                    if line.startswith("event: "):
                        name = line[7:]
                    elif line.startswith("data: "):
                        self.heard.append((name, json.loads(line[6:])))
                    elif line.startswith(":"):
                        self.comments += 1
        except httpx.HTTPError:
            pass
        finally:
            self.opened.set()
            self.ended.set()

    def wait(self, what: Any, timeout_s: float = 60.0) -> Any:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            found = what(self)
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"not heard: {self.heard}")

    def go(self) -> None:
        self._stop = True


def test_a_task_is_followed_from_waiting_to_its_end(served: Endpoint) -> None:
    client = client_of(served)
    task_id = create(client)
    listener = Listener(client_of(served), f"/v1/tasks/{task_id}/events")
    listener.wait(lambda one: one.heard)
    epoch, variant = served.lease(task_id)
    for progress in (0.25, 0.75):
        served.store.tasks.renew([Progress(task_id, epoch, progress, "rendering")], served.context.now() + 60)
        listener.wait(lambda one, want=progress: one.heard[-1][1].get("progress") == want)
    from serve.tasks import Outcome

    ended = Outcome(status=Status.FAILED, variant=variant, failure="no clip", failure_code="INTERNAL")
    assert served.store.tasks.finish(task_id, epoch, ended, served.context.now())
    assert listener.ended.wait(60)
    names = [(name, data["status"]) for name, data in listener.heard]
    assert names[0] == ("status", "PENDING")
    assert ("status", "RUNNING") in names
    assert ("progress", "RUNNING") in names
    assert names[-1] == ("status", "FAILED")
    assert listener.heard[-1][1] == client.get(f"/v1/tasks/{task_id}").json()


def test_an_event_is_what_a_get_would_have_answered(served: Endpoint) -> None:
    client = client_of(served)
    first, second = create(client), create(client)
    listener = Listener(client_of(served), f"/v1/tasks/{second}/events")
    (_, data), *_ = listener.wait(lambda one: one.heard)
    assert data["queuePosition"] == 1
    assert data.keys() == client.get(f"/v1/tasks/{second}").json().keys()
    served.finish(first)
    # Its row does not change, its place does.
    listener.wait(lambda one: one.heard[-1][1].get("queuePosition") == 0)
    listener.go()
    served.finish(second)


def test_a_task_that_has_ended_is_one_event(served: Endpoint) -> None:
    client = client_of(served)
    task_id = create(client)
    served.finish(task_id)
    listener = Listener(client, f"/v1/tasks/{task_id}/events")
    assert listener.ended.wait(60)
    assert [(name, data["status"]) for name, data in listener.heard] == [("status", "SUCCEEDED")]


def test_a_cancelled_task_ends_its_stream_as_deleted(served: Endpoint) -> None:
    client = client_of(served)
    task_id = create(client)
    listener = Listener(client_of(served), f"/v1/tasks/{task_id}/events")
    listener.wait(lambda one: one.heard)
    assert client.delete(f"/v1/tasks/{task_id}").status_code == 204
    assert listener.ended.wait(60)
    assert listener.heard[-1] == ("deleted", {"id": task_id})


def test_one_stream_tells_of_every_task_of_a_key_and_of_no_other(served: Endpoint) -> None:
    client, other = client_of(served), client_of(served, served.another_key())
    old = create(client)
    listener = Listener(client_of(served), "/v1/events")
    listener.wait(lambda one: [data["id"] for _, data in one.heard] == [old])
    theirs, ours = create(other), create(client)
    served.finish(theirs)
    served.finish(ours)
    listener.wait(lambda one: (ours, "SUCCEEDED") in [(data["id"], data.get("status")) for _, data in one.heard])
    client.delete(f"/v1/tasks/{old}")
    listener.wait(lambda one: ("deleted", {"id": old}) in one.heard)
    assert theirs not in [data["id"] for _, data in listener.heard]
    listener.go()


def test_a_batch_is_followed_to_its_end(served: Endpoint) -> None:
    client = client_of(served)
    made = client.post("/v1/batches", json={"tasks": [{"promptText": "a"}, {"promptText": "b"}]}).json()
    listener = Listener(client_of(served), f"/v1/batches/{made['id']}/events")
    listener.wait(lambda one: one.heard)
    for task_id in made["taskIds"]:
        served.finish(task_id)
    assert listener.ended.wait(60)
    name, last = listener.heard[-1]
    assert (name, last["status"], last["progress"]) == ("status", "SUCCEEDED", 1.0)


def test_streams_are_for_the_owner(served: Endpoint) -> None:
    client, other = client_of(served), client_of(served, served.another_key())
    task_id = create(client)
    batch_id = client.post("/v1/batches", json={"tasks": [{"promptText": "a"}]}).json()["id"]
    assert other.get(f"/v1/tasks/{task_id}/events").status_code == 404
    assert other.get(f"/v1/batches/{batch_id}/events").status_code == 404
    assert httpx.get(f"{served.url}/v1/events").status_code == 401


def test_a_quiet_stream_is_kept_open_by_comments(served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.1)
    listener = Listener(client_of(served), "/v1/events")
    listener.wait(lambda one: one.comments >= 2)
    listener.go()


def test_streams_of_a_key_are_limited_and_freed_when_clients_go(
    served: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_STREAMS", 2)
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.1)
    clients = [client_of(served) for _ in range(2)]
    listeners = [Listener(client, "/v1/events") for client in clients]
    for listener in listeners:
        assert listener.opened.wait(60)
    refused = client_of(served).get("/v1/events")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert "error" in refused.json()
    for listener in listeners:
        listener.go()
    eventually(lambda: not served.app.state.streams)
    eventually(lambda: served.app.state.feed.watches == 0)
    again = Listener(client_of(served), "/v1/events")
    assert again.opened.wait(60)
    assert again.status == 200
    again.go()


class CountingStore:
    """A real store whose reads are counted; `away` makes it not answer."""

    def __init__(self, store: Any) -> None:
        self._tasks = store.tasks
        self.tasks, self.batches = self, store.batches
        self.asked: list[int] = []
        self.away = 0

    def get_many(self, ids: tuple[str, ...]) -> Any:
        self.asked.append(len(ids))
        if self.away:
            self.away -= 1
            raise StoreUnavailableError("locked")
        return self._tasks.get_many(ids)


def test_many_streams_are_one_poll(served: Endpoint) -> None:
    client = client_of(served)
    ids = [create(client) for _ in range(20)]
    store = CountingStore(served.store)

    async def follow() -> None:
        feed = ChangeFeed(store, served.context.now, interval_s=0.02)  # type: ignore[arg-type]
        watches = [feed.follow(WatchKind.TASK, task_id) for task_id in ids]
        entered = [watch.__enter__() for watch in watches]
        for watch in entered:
            assert await watch.wait(60)
            assert list(watch.take()) == [watch.id]
        for watch in watches:
            watch.__exit__(None, None, None)
        polls = len(store.asked)
        await asyncio.sleep(0.1)
        assert len(store.asked) <= polls + 1, "nobody watches and it still asks"

    asyncio.run(follow())
    assert max(store.asked) == 20
    assert len(store.asked) < 20


def test_a_store_that_does_not_answer_is_asked_again(served: Endpoint) -> None:
    task_id = create(client_of(served))
    store = CountingStore(served.store)
    store.away = 3

    async def follow() -> None:
        feed = ChangeFeed(store, served.context.now, interval_s=0.01)  # type: ignore[arg-type]
        with feed.follow(WatchKind.TASK, task_id) as watch:
            assert await watch.wait(60)
            assert watch.take()[task_id] is not None

    asyncio.run(follow())
    assert len(store.asked) == 4


def test_a_slow_reader_gets_the_latest_state_and_holds_no_others(served: Endpoint) -> None:
    task_id = create(client_of(served))

    async def follow() -> None:
        feed = ChangeFeed(served.store, served.context.now, interval_s=0.01)
        with feed.follow(WatchKind.KEY, served.key.id) as watch:
            assert await watch.wait(60)
            epoch, _ = await asyncio.to_thread(served.lease, task_id)
            for step in range(1, 6):
                progress = [Progress(task_id, epoch, step / 5, "rendering")]
                await asyncio.to_thread(served.store.tasks.renew, progress, served.context.now() + 60)
                async with asyncio.timeout(60):
                    while (task := watch.tasks[task_id]) is None or task.progress != step / 5:
                        await asyncio.sleep(0.01)
            assert list(watch.take()) == [task_id]
            feed.close()
            assert watch.closed

    asyncio.run(follow())


def test_a_long_stream_forgets_what_is_over(served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    from serve.http import change_feed

    monkeypatch.setattr(change_feed, "RECENT", 3)
    client = client_of(served)

    async def follow() -> int:
        feed = ChangeFeed(served.store, served.context.now, interval_s=0.01)
        with feed.follow(WatchKind.KEY, served.key.id) as watch:
            for _ in range(12):
                task_id = await asyncio.to_thread(create, client)
                await asyncio.to_thread(served.finish, task_id)
                assert await watch.wait(60)
            return len(watch.seen)

    assert asyncio.run(follow()) <= 4


def test_the_stream_of_a_revoked_key_ends(served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEY_CHECK_S", 0.05)
    secret = served.another_key()
    (another,) = [key for key in served.store.keys.all() if key.id != served.key.id]
    client = client_of(served, secret)
    mine = Listener(client_of(served), "/v1/events")
    streams = [Listener(client, "/v1/events"), Listener(client, f"/v1/tasks/{create(client)}/events")]
    for stream in streams:
        assert stream.opened.wait(60)
    served.store.keys.revoke(another.id, served.context.now())
    for stream in streams:
        assert stream.ended.wait(60), "within the seconds for which a key is remembered"
    task = create(client_of(served))
    mine.wait(lambda one: any(data.get("id") == task for _, data in one.heard))
    mine.go()


@pytest.mark.parametrize("kind", ["key", "task", "batch"])
@pytest.mark.parametrize("abruptly", [True, False], ids=["reset", "closed"])
def test_nothing_is_left_of_a_stream_whose_client_is_gone(served: Endpoint, kind: str, abruptly: bool) -> None:
    client = client_of(served)
    task = create(client)
    batch = client.post("/v1/batches", json={"tasks": [{"model": "shapes", "promptText": "x"}]}).json()["id"]
    path = {"key": "/v1/events", "task": f"/v1/tasks/{task}/events", "batch": f"/v1/batches/{batch}/events"}[kind]
    url = httpx.URL(served.url)
    connections = []
    for _ in range(5):
        raw = socket.create_connection((url.host, url.port or 0), timeout=10)
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.secret}\r\n\r\n".encode())
        assert b"200 OK" in raw.recv(4096)
        connections.append(raw)
    eventually(lambda: served.app.state.feed.watches == 5)
    for raw in connections:
        if abruptly:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
    eventually(lambda: served.app.state.feed.watches == 0)
    eventually(lambda: not served.app.state.streams)
    assert client.get(f"/v1/tasks/{task}").json()["status"] == "PENDING"
