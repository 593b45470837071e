"""Prompts that a scripted classifier refuses, over every route that makes tasks: Runway's client learns the code."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from runwayml import BadRequestError, RunwayML

from actors.moderator import Moderator
from schemas.clip import Status
from schemas.moderation import ModerationSettings
from serve.config import Limits
from serve.tasks import StoredTask
from tests.scripted_scorer import NAME
from tests.serve.http.endpoint import Endpoint, KeptIntake, catalog_with, endpoint

FORBIDDEN = {"model": "embedded", "promptText": "FORBIDDEN", "webhookUrl": "https://example.com/hook"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    settings = ModerationSettings(scorers=(NAME,), bill_refused_input=True)
    catalog = catalog_with({"shapes": 3.6})
    limits = Limits(max_batch_tasks=4)
    folder = Path(tmp_path_factory.mktemp("moderated"))
    with (
        endpoint(folder, catalog, moderation=settings, limits=limits) as running,
        closing(cast(Moderator, running.context.moderator)),
    ):
        yield running


def stored(served: Endpoint, task_id: str) -> StoredTask:
    task = served.store.tasks.get(task_id)
    assert task is not None
    return task


def test_the_unmodified_client_is_told_the_code_of_a_task_that_has_failed(served: Endpoint, client: RunwayML) -> None:
    created = client.text_to_video.create(
        model="gen4.5", prompt_text="FORBIDDEN", ratio="1280:720", duration=2, extra_body={"model": "embedded"}
    )
    task = client.tasks.retrieve(created.id)
    assert task.status == "FAILED"
    assert task.failure_code == "SAFETY.INPUT.TEXT"
    assert task.failure == "content moderation refused the prompt: violence"
    kept = stored(served, created.id)
    assert kept.finished_at == kept.created_at
    assert (kept.attempts, kept.epoch) == (0, 0)
    assert kept.outcome is not None
    assert kept.outcome.moderation == kept.moderation
    assert kept.outcome.billed_usd == kept.offer.usd > 0, "as these settings say"
    assert task.cost.credits == created.estimated_cost.credits
    assert served.store.tasks.pending() == ()


def test_a_negative_prompt_is_looked_at_as_a_prompt_is(served: Endpoint, http: httpx.Client) -> None:
    body = {"model": "embedded", "promptText": "fine", "negativePrompt": "FORBIDDEN"}
    task = http.get(f"/v1/tasks/{http.post('/v1/text_to_video', json=body).json()['id']}").json()
    assert (task["status"], task["failureCode"]) == ("FAILED", "SAFETY.INPUT.TEXT")
    assert task["failure"] == "content moderation refused the negative prompt: violence"


def test_what_a_scorer_fails_on_is_not_called_unsafe_nor_billed(served: Endpoint, http: httpx.Client) -> None:
    answer = http.post("/v1/text_to_video", json={"model": "embedded", "promptText": "RAISE"}).json()
    assert answer["status"] == "FAILED"
    task = http.get(f"/v1/tasks/{answer['id']}").json()
    assert task["failureCode"] == "INTERNAL"
    assert task["failure"] == "content moderation could not look at the prompt, and what it cannot look at is refused"
    assert task["cost"]["usd"] == 0


def test_a_client_may_ask_for_less_strictness_about_public_figures(served: Endpoint, client: RunwayML) -> None:
    def status(**more: Any) -> str:
        created = client.text_to_video.create(
            model="gen4.5", prompt_text="FAMOUS", ratio="1280:720", duration=2, **more
        )
        if stored(served, created.id).status is Status.PENDING:
            assert stored(served, created.id).moderation.outcome == "flag"
            served.store.tasks.cancel(created.id, None, served.context.now())
            return "PENDING"
        return client.tasks.retrieve(created.id).status

    assert status() == "FAILED"
    assert status(content_moderation={"public_figure_threshold": "auto"}) == "FAILED"
    assert status(content_moderation={"public_figure_threshold": "low"}) == "PENDING"
    with pytest.raises(BadRequestError, match="publicFigureThreshold"):
        status(content_moderation={"public_figure_threshold": "none"})


def test_of_a_refused_prompt_no_media_are_fetched_and_a_webhook_is_due(served: Endpoint, http: httpx.Client) -> None:
    intake = cast(KeptIntake, served.context.intake)
    before = list(intake.taken)
    for path, more in (
        ("image_to_video", {"promptImage": "https://example.com/a.png", "model": "tiny-random"}),
        ("video_to_video", {"videoUri": "https://example.com/a.mp4", "model": "tiny-random"}),
    ):
        answer = http.post(f"/v1/{path}", json={**FORBIDDEN, **more})
        assert answer.status_code == 200, answer.text
        task = stored(served, answer.json()["id"])
        assert task.status is Status.FAILED
        assert task.request.all_inputs == ()
        due = [one for one in served.store.deliveries.due(served.context.now() + 1) if one.id == f"msg_{task.id}"]
        assert '"failureCode":"SAFETY.INPUT.TEXT"' in due[0].payload
    assert intake.taken == before


def test_a_router_s_request_and_the_rows_of_a_batch_fare_alike(served: Endpoint, http: httpx.Client) -> None:
    served.note()
    assert http.post("/v1/routers", json={"slug": "mine"}).status_code == 200
    routed = http.post("/v1/generate/video", json={"configId": "mine", "input": {"promptText": "FORBIDDEN"}}).json()
    assert stored(served, routed["id"]).status is Status.FAILED
    rows = [{"promptText": "fine"}, {"promptText": "FORBIDDEN"}, {"promptText": "DOUBTFUL"}]
    batch = http.post("/v1/batches", json={"tasks": rows, "model": "embedded"}).json()
    tasks = [stored(served, one) for one in batch["taskIds"]]
    assert [task.status for task in tasks] == [Status.PENDING, Status.FAILED, Status.PENDING]
    assert [task.moderation.outcome for task in tasks] == ["allow", "refuse", "flag"]
    for task in tasks[::2]:
        served.finish(task.id)
    assert http.get(f"/v1/batches/{batch['id']}").json()["counts"] == {"succeeded": 2, "failed": 1}


def test_a_batch_of_nothing_but_refused_rows_is_over_at_once(served: Endpoint, http: httpx.Client) -> None:
    batch = http.post("/v1/batches", json={"tasks": [{"promptText": "FORBIDDEN"}] * 2, "model": "embedded"}).json()
    assert (batch["status"], batch["counts"], batch["progress"]) == ("FAILED", {"failed": 2}, 1.0)


def test_a_large_batch_cannot_heed_a_threshold_of_its_rows_and_says_so(served: Endpoint, http: httpx.Client) -> None:
    row = {"promptText": "x", "contentModeration": {"publicFigureThreshold": "low"}}
    answer = http.post("/v1/batches", json={"tasks": [row] * 5, "model": "embedded"})
    assert answer.status_code == 400
    assert answer.json()["issues"][0]["path"] == ["tasks", 0, "contentModeration"]


def test_what_is_repeated_under_one_idempotency_key_is_the_same_failed_task(
    served: Endpoint, http: httpx.Client
) -> None:
    answers = [
        http.post("/v1/text_to_video", json=FORBIDDEN, headers={"Idempotency-Key": "once"}).json() for _ in range(2)
    ]
    assert answers[0]["id"] == answers[1]["id"]
    assert answers[1]["status"] == "FAILED"


def test_prompts_are_counted_by_what_was_found(served: Endpoint, http: httpx.Client) -> None:
    text = http.get("/metrics").text
    for outcome, category in (("refuse", "violence"), ("refuse", "error"), ("flag", "public_figure"), ("allow", "")):
        assert f'category="{category}",ingress=' in text
        assert f'outcome="{outcome}"' in text
