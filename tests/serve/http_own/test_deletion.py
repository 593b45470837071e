"""What a DELETE of a task leaves in the object store: nothing, at once where it has ended, else soon."""

import httpx
import pytest

from schemas.errors import StorageUnavailableError
from serve.dispatch.orphans import purge
from storage import keys
from tests.serve.http.endpoint import Endpoint

BODY = {"model": "shapes", "promptText": "x", "ratio": "256:144", "duration": 2}


def created(client: httpx.Client) -> str:
    answer = client.post("/v1/text_to_video", json=BODY)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def stored(served: Endpoint, task_id: str) -> list[str]:
    return sorted(info.key for info in served.context.objects.list(keys.task_prefix(task_id)))


def with_objects(served: Endpoint, task_id: str) -> None:
    for key in (keys.TASK_NAMES.clip("v", task_id, "mp4"), keys.TASK_NAMES.poster("v", task_id)):
        served.context.objects.put(key, b"data")


def test_clip_and_poster_of_an_ended_task_go_with_it(served: Endpoint, client: httpx.Client) -> None:
    gone, stays = created(client), created(client)
    elsewhere = f"clips/shapes/{gone}.mp4"
    for task_id in (gone, stays):
        served.finish(task_id)
        with_objects(served, task_id)
    assert served.context.objects.head(elsewhere) is not None
    assert client.delete(f"/v1/tasks/{gone}").status_code == 204
    assert stored(served, gone) == []
    assert served.context.objects.head(elsewhere) is None
    assert len(stored(served, stays)) == 2
    assert served.store.tasks.unpurged() == ()
    assert client.delete(f"/v1/tasks/{gone}").status_code == 404


def test_a_running_task_is_purged_once_it_has_ended(served: Endpoint, client: httpx.Client) -> None:
    task_id = created(client)
    epoch, _ = served.lease(task_id)
    with_objects(served, task_id)
    assert client.delete(f"/v1/tasks/{task_id}").status_code == 204
    assert len(stored(served, task_id)) == 2
    assert purge(served.store.tasks, served.context.objects) == 0
    served.store.tasks.give_back(task_id, epoch, "stopped", 0.0)
    assert purge(served.store.tasks, served.context.objects) == 1
    assert stored(served, task_id) == []


def test_an_object_store_that_is_away_leaves_it_to_the_dispatcher(
    served: Endpoint, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = created(client)
    served.finish(task_id)
    with_objects(served, task_id)

    def away(self: object, prefix: str = "") -> None:
        raise StorageUnavailableError("the server is away")

    with monkeypatch.context() as during:
        during.setattr(type(served.context.objects), "list", away)
        assert client.delete(f"/v1/tasks/{task_id}").status_code == 204
    assert client.get(f"/v1/tasks/{task_id}").status_code == 404
    assert len(stored(served, task_id)) == 2
    assert served.store.tasks.unpurged() == (task_id,)
    assert purge(served.store.tasks, served.context.objects) == 1
    assert stored(served, task_id) == []
