"""The unmodified `runwayml` client, sync and async, with strict validation of every answer."""

import asyncio
import io
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from runwayml import AsyncRunwayML, NotFoundError, RunwayML
from runwayml.lib.polling import TaskFailedError

from schemas.clip import Status
from schemas.inputs import Input, Role
from serve.config import Pools, ServeConfig
from serve.media.intake import Intake
from serve.store.engine import open_store
from storage.store import open_store as open_objects
from tests.serve.http.conftest import strict
from tests.serve.http.endpoint import CLIP, Endpoint, endpoint

PNG = io.BytesIO()
Image.new("RGB", (32, 32), "red").save(PNG, "PNG")


def asynchronous(served: Endpoint) -> AsyncRunwayML:
    return AsyncRunwayML(base_url=served.url, api_key=served.secret, _strict_response_validation=True, max_retries=0)


def finish_soon(served: Endpoint, status: Status = Status.SUCCEEDED, **outcome: Any) -> threading.Thread:
    """Plays the fleet: ends the next pending task of this endpoint, and then stops."""

    def work() -> None:
        for _ in range(200):
            pending = served.store.tasks.recent(50, statuses=(Status.PENDING,))
            if pending:
                served.finish(pending[0].id, status, **outcome)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.fixture(autouse=True)
def _nothing_waits(served: Endpoint) -> None:
    for task in served.store.tasks.recent(100, statuses=(Status.PENDING, Status.RUNNING)):
        served.store.tasks.cancel(task.id, None, time.time())


def test_text_to_video_from_create_to_download(served: Endpoint, client: RunwayML) -> None:
    player = finish_soon(served)
    created = client.text_to_video.create(
        model="gen4.5", prompt_text="a red circle", ratio="1280:720", duration=2, seed=7
    )
    assert created.estimated_cost.credits == 0
    done = created.wait_for_task_output(timeout=60)
    player.join()
    assert done.status == "SUCCEEDED"
    assert done.id == created.id
    answer = httpx.get(done.output[0])
    assert (answer.status_code, answer.content) == (200, CLIP)
    assert answer.headers["content-type"] == "video/mp4"


async def _create_and_wait(served: Endpoint) -> Any:
    async with asynchronous(served) as client:
        created = await client.text_to_video.create(
            model="gen4_turbo",  # type: ignore[call-overload]
            prompt_text="a blue square",
            ratio="1280:720",
            duration=2,
        )
        return await created.wait_for_task_output(timeout=60)


def test_the_same_asynchronously(served: Endpoint) -> None:
    player = finish_soon(served)
    done = asyncio.run(_create_and_wait(served))
    player.join()
    assert done.status == "SUCCEEDED"
    assert done.variant == "shapes-turbo"


def test_a_failure_is_raised_with_its_code(served: Endpoint, client: RunwayML) -> None:
    player = finish_soon(served, Status.FAILED, failure="the model gave no picture", failure_code="INTERNAL.BAD_OUTPUT")
    created = client.text_to_video.create(model="gen4.5", prompt_text="x", ratio="1280:720", duration=2)
    with pytest.raises(TaskFailedError) as caught:
        created.wait_for_task_output(timeout=60)
    player.join()
    details: Any = caught.value.task_details
    assert (details.failure, details.failure_code) == ("the model gave no picture", "INTERNAL.BAD_OUTPUT")
    assert details.cost.credits == 0


def test_image_to_video_takes_a_string_or_a_list(served: Endpoint, client: RunwayML) -> None:
    for image in ("https://example.com/a.png", [{"uri": "https://example.com/a.png", "position": "first"}]):
        created = client.image_to_video.create(
            model="gen4_turbo",
            prompt_image=image,  # type: ignore[arg-type]
            prompt_text="x",
            ratio="1280:720",
        )
        task = served.store.tasks.get(created.id)
        assert task is not None
        assert task.kind == "image_to_video"
        assert task.request.inputs == (Input(role=Role.FIRST_FRAME, image="s3://bucket/inputs/image"),)


@pytest.mark.parametrize("field", ["video_uri", "prompt_video"])
def test_video_to_video_takes_both_names(served: Endpoint, client: RunwayML, field: str) -> None:
    fields: dict[str, Any] = {field: "https://example.com/a.mp4"}
    created = client.video_to_video.create(model="aleph2", prompt_text="in winter", **fields)
    task = served.store.tasks.get(created.id)
    assert task is not None
    assert task.request.inputs == (Input(role=Role.SOURCE, video="s3://bucket/inputs/video"),)
    assert (task.kind, task.offer.variant) == ("video_to_video", "tiny-random")


def test_every_status_has_its_shape(served: Endpoint, client: RunwayML) -> None:
    def new() -> str:
        return client.text_to_video.create(model="gen4.5", prompt_text="x", ratio="1280:720", duration=2).id

    pending = client.tasks.retrieve(new())
    assert pending.status == "PENDING"
    assert pending.estimated_cost.credits == 0

    held_back = strict(served, served.another_key(max_concurrent=1))
    for status in ("PENDING", "THROTTLED"):
        made = held_back.text_to_video.create(model="gen4.5", prompt_text="x", ratio="1280:720", duration=2)
        assert held_back.tasks.retrieve(made.id).status == status

    running_id = new()
    served.lease(running_id)
    running = client.tasks.retrieve(running_id)
    assert running.status == "RUNNING"
    assert running.progress == 0

    cancelled_id = new()
    served.store.tasks.cancel(cancelled_id, None, time.time())
    cancelled = client.tasks.retrieve(cancelled_id)
    assert cancelled.status == "CANCELLED"
    assert cancelled.cost.credits == 0


def test_delete_cancels_and_hides(served: Endpoint, client: RunwayML) -> None:
    waiting = client.text_to_video.create(model="gen4.5", prompt_text="x", ratio="1280:720", duration=2).id
    assert client.tasks.delete(waiting) is None
    finished = client.text_to_video.create(model="gen4.5", prompt_text="x", ratio="1280:720", duration=2).id
    served.finish(finished)
    client.tasks.delete(finished)
    for task_id in (waiting, finished):
        with pytest.raises(NotFoundError):
            client.tasks.retrieve(task_id)
        with pytest.raises(NotFoundError):
            client.tasks.delete(task_id)
    (kept,) = served.store.tasks.get_many([waiting])
    assert kept.status is Status.CANCELLED


def test_tasks_of_another_key_are_not_there(served: Endpoint, client: RunwayML) -> None:
    task_id = client.text_to_video.create(model="gen4.5", prompt_text="x", ratio="1280:720", duration=2).id
    stranger = strict(served, served.another_key())
    for call in (stranger.tasks.retrieve, stranger.tasks.delete):
        with pytest.raises(NotFoundError):
            call(task_id)
    assert client.tasks.retrieve(task_id).id == task_id


def test_organization_and_usage(served: Endpoint, client: RunwayML) -> None:
    created = client.text_to_video.create(
        model="embedded",  # type: ignore[call-overload]
        prompt_text="x",
        ratio="1280:720",
        duration=2,
    )
    served.finish(created.id, billed_usd=0.07, billed_gpu_s=2.0)
    organization = client.organization.retrieve()
    assert organization.credit_balance == organization.tier.max_monthly_credit_spend - 7
    assert organization.usage.models["shapes"].daily_generations >= 1
    assert organization.tier.models["shapes"].max_concurrent_generations is None
    for alias in ("embedded", "gen4.5", "gen4_turbo"):
        assert organization.tier.models[alias] is not None
        assert organization.usage.models[alias].daily_generations >= 0
    assert organization.usage.models["embedded"] == organization.usage.models["shapes"]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    usage = client.organization.retrieve_usage()
    (result,) = [one for one in usage.results if one.date.isoformat() == today]
    assert sum(one.amount for one in result.used_credits) == 7
    # A strict client knows Runway's names alone; ours stand beside them.
    assert "gen4.5" in usage.models
    assert any("embedded" in one.names for one in result.used_credits if one.model == "gen4.5")  # type: ignore[attr-defined]
    assert client.organization.retrieve_usage(start_date="2020-01-01", before_date="2020-02-01").results == []


def test_an_upload_becomes_the_first_frame(tmp_path: Path) -> None:
    config = ServeConfig(out=str(tmp_path / "out"), pools=Pools())
    intake = Intake(config, open_store(config.database_url), open_objects(config.out))
    with endpoint(tmp_path, intake=intake, pools=Pools()) as served, strict(served) as client:
        upload = client.uploads.create_ephemeral(file=("frame.png", PNG.getvalue()))
        assert upload.uri.startswith("runway://")
        created = client.image_to_video.create(
            model="gen4_turbo", prompt_image=upload.uri, prompt_text="x", ratio="1280:720"
        )
        task = served.store.tasks.get(created.id)
        assert task is not None
        assert task.request.inputs[0].uri.startswith("file://")

        async def upload_again() -> str:
            async with asynchronous(served) as client:
                return (await client.uploads.create_ephemeral(file=("frame.png", PNG.getvalue()))).uri

        assert asyncio.run(upload_again()) != upload.uri


Call = Callable[[AsyncRunwayML], Awaitable[Any]]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.tasks.retrieve("17f20503-6c24-4c16-946b-35dbbce2af2f"),
        lambda client: client.routers.retrieve("17f20503-6c24-4c16-946b-35dbbce2af2f"),
        lambda client: client.routers.delete("nonsense"),
    ],
)
def test_what_is_not_there_is_not_found(served: Endpoint, call: Call) -> None:
    async def ask() -> None:
        async with asynchronous(served) as client:
            await call(client)

    with pytest.raises(NotFoundError):
        asyncio.run(ask())
