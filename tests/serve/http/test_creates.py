"""What a create stores and answers: shapes, caps, deadlines, limits, idempotency, priorities."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.clip import Status
from serve.config import Limits
from tests.serve.http.endpoint import Endpoint, catalog_with, endpoint, pool

TEXT = {"model": "embedded", "promptText": "a red circle"}


def post(served: Endpoint, body: dict[str, Any], path: str = "text_to_video", **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {more.pop('secret', served.secret)}", **more.pop("headers", {})}
    return httpx.post(f"{served.url}/v1/{path}", json=body, headers=headers, timeout=30)


def test_the_answer_says_what_will_be_rendered(served: Endpoint) -> None:
    answer = post(served, {**TEXT, "ratio": "1280:720", "duration": 2, "seed": 7}).json()
    assert answer["rendered"] == {
        "width": 128,
        "height": 64,
        "frames": 17,
        "fps": 8.0,
        "durationSeconds": 2.125,
        "steps": 16,
    }
    assert answer["seed"] == 7
    assert answer["variant"] == "shapes"
    assert answer["status"] == "PENDING"
    assert answer["eta"] <= answer["etaP90"]
    stored = served.store.tasks.get(answer["id"])
    assert stored is not None
    assert (stored.model, stored.key_id, stored.kind, stored.seed) == ("embedded", served.key.id, "text_to_video", 7)
    assert str(stored.group.shape) == "128x64x17"


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ({}, "64x64x17"),
        ({"ratio": "3:2"}, "96x64x17"),
        ({"ratio": "2:3"}, "64x96x17"),
        ({"ratio": "720:1280"}, "64x128x17"),
        ({"duration": 60}, "64x64x33"),
        ({"duration": 0.1}, "64x64x5"),
        ({"numFrames": 10}, "64x64x9"),
        ({"ratio": "16384:16384"}, "96x96x17"),
    ],
)
def test_shapes_are_snapped_to_what_the_variant_can_do(served: Endpoint, given: dict[str, Any], shape: str) -> None:
    answer = post(served, {**TEXT, **given}).json()
    rendered = answer["rendered"]
    assert f"{rendered['width']}x{rendered['height']}x{rendered['frames']}" == shape


def test_everything_else_is_kept(served: Endpoint) -> None:
    answer = post(
        served,
        {
            **TEXT,
            "negativePrompt": "rain",
            "priority": 5,
            "guidanceScale": 2.5,
            "numInferenceSteps": 4,
            "scheduler": "EulerDiscreteScheduler",
            "outputFormat": "webm",
            "webhookUrl": "https://example.com/hook",
            "fallback": False,
            "contentModeration": {"publicFigureThreshold": "low"},
            "audio": False,
        },
    ).json()
    task = served.store.tasks.get(answer["id"])
    assert task is not None
    assert (task.request.negative_prompt, task.priority, task.webhook_url) == ("rain", 5, "https://example.com/hook")
    assert (task.group.guidance, task.group.steps, task.group.clip_format) == (2.5, 4, "webm")
    assert task.group.scheduler == "EulerDiscreteScheduler"
    assert not task.constraints.fall_back
    assert 0 <= task.seed < 2**32


def test_auto_takes_any_that_is_meant_for_it(served: Endpoint) -> None:
    assert post(served, {"model": "auto", "promptText": "x"}).json()["variant"] in ("shapes", "shapes-turbo")
    only = post(served, {"model": "auto", "promptText": "x", "allowModels": ["tiny"]}).json()
    assert (only["variant"], only["reason"]) == ("tiny-random", "only_eligible_model")
    denied = post(served, {"model": "auto", "promptText": "x", "denyModels": ["embedded"]}).json()
    assert denied["variant"] == "shapes-turbo"


def test_a_position_is_told_and_shrinks(tmp_path: Path) -> None:
    with endpoint(tmp_path) as served:
        ids = [post(served, TEXT).json() for _ in range(3)]
        assert [one["queuePosition"] for one in ids] == [0, 1, 2]
        urgent = post(served, {**TEXT, "priority": 1}).json()["id"]
        headers = {"Authorization": f"Bearer {served.secret}"}

        def position(task_id: str) -> int:
            told: int = httpx.get(f"{served.url}/v1/tasks/{task_id}", headers=headers).json()["queuePosition"]
            return told

        assert position(urgent) == 0
        assert [position(one["id"]) for one in ids] == [1, 2, 3]


def test_a_burst_is_quoted_with_its_own_queue(tmp_path: Path) -> None:
    instant = time.time()  # while time passes, work is done
    with endpoint(tmp_path, now=lambda: instant) as served:
        served.note(pool("shapes"))
        ids = [post(served, TEXT).json()["id"] for _ in range(5)]
        waits_s = [task.offer.wait_s for task_id in ids if (task := served.store.tasks.get(task_id)) is not None]
        assert waits_s == sorted(waits_s)
        assert waits_s[4] > waits_s[0]


def test_a_deadline_is_kept_or_refused_with_the_earliest_that_would_be(tmp_path: Path) -> None:
    with endpoint(tmp_path) as served:
        served.note(pool("shapes", backlog_s=100.0))
        body = {**TEXT, "deadline": 20, "fallback": False}
        refused = post(served, body)
        assert refused.status_code == 400
        (issue,) = refused.json()["issues"]
        assert (issue["code"], issue["path"]) == ("deadline_cannot_be_kept", ["deadline"])
        earliest = datetime.fromisoformat(issue["suggestion"])
        assert 100 <= (earliest - datetime.now(UTC)).total_seconds() <= 300
        accepted = post(served, {**body, "deadline": issue["suggestion"]})
        assert accepted.status_code == 200
        assert accepted.json()["eta"] <= issue["suggestion"]


def test_a_deadline_sends_a_task_to_a_fallback(tmp_path: Path) -> None:
    with endpoint(tmp_path) as served:
        served.note(pool("shapes", backlog_s=100.0), pool("shapes-turbo"))
        answer = post(served, {**TEXT, "deadline": 20}).json()
        assert (answer["variant"], answer["reason"]) == ("shapes-turbo", "filter_order_fallback")
        assert post(served, {**TEXT, "deadline": 20, "fallback": False}).status_code == 400


def test_a_variant_that_is_down_is_replaced_or_told(tmp_path: Path) -> None:
    with endpoint(tmp_path) as served:
        served.note(pool("shapes", healthy=False), pool("shapes-turbo"))
        assert post(served, TEXT).json()["variant"] == "shapes-turbo"
        answer = post(served, {**TEXT, "fallback": False})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        served.note(pool("shapes"), pool("shapes-turbo"))
        assert post(served, TEXT).json()["variant"] == "shapes"


def test_a_price_cap_is_kept(tmp_path: Path) -> None:
    catalog = catalog_with({"shapes": 1000.0, "shapes-turbo": 100.0})
    with endpoint(tmp_path, catalog) as served:
        full = post(served, {**TEXT, "fallback": False}).json()
        credits = full["estimatedCost"]["credits"]
        assert credits == full["quote"]["credits"] >= 2
        assert post(served, {**TEXT, "maxCredits": credits, "fallback": False}).json()["variant"] == "shapes"
        refused = post(served, {**TEXT, "maxCredits": credits - 1, "fallback": False})
        (issue,) = refused.json()["issues"]
        assert (refused.status_code, issue["code"], issue["path"]) == (400, "price", ["maxCredits"])
        assert issue["suggestion"] == str(credits)
        cheaper = post(served, {**TEXT, "maxCredits": credits - 1}).json()
        assert (cheaper["variant"], cheaper["reason"]) == ("shapes-turbo", "filter_order_fallback")
        assert cheaper["estimatedCost"]["credits"] <= credits - 1
        cheap = post(served, {**TEXT, "model": "auto", "optimizeFor": "cost"}).json()
        assert (cheap["variant"], cheap["reason"]) == ("shapes-turbo", "lowest_cost")


def test_a_key_over_its_limit_is_throttled(served: Endpoint) -> None:
    secret = served.another_key(max_concurrent=2)
    made = [post(served, TEXT, secret=secret).json()["status"] for _ in range(4)]
    assert Counter(made) == {"PENDING": 2, "THROTTLED": 2}


def test_a_key_past_its_day_is_told_when_to_come_back(served: Endpoint) -> None:
    secret = served.another_key(max_daily=2)
    assert [post(served, TEXT, secret=secret).status_code for _ in range(3)] == [200, 200, 429]
    refused = post(served, TEXT, secret=secret)
    wait_s = int(refused.headers["retry-after"])
    to_midnight_s = 86_400 - time.time() % 86_400
    assert abs(wait_s - to_midnight_s) < 5
    assert refused.headers["x-should-retry"] == "false" or wait_s <= 60


def test_limits_hold_when_many_ask_at_once(tmp_path: Path) -> None:
    with endpoint(tmp_path, limits=Limits(max_daily=20)) as served:
        with ThreadPoolExecutor(16) as pool_:
            codes = Counter(pool_.map(lambda _: post(served, TEXT).status_code, range(40)))
        assert codes == {200: 20, 429: 20}
        assert served.store.tasks.counts().by_status[Status.PENDING] == 20


def test_the_same_idempotency_key_makes_one_task(served: Endpoint) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = post(served, TEXT, headers=headers)
    again = post(served, TEXT, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = post(served, {**TEXT, "seed": 3}, headers=headers)
    assert other.status_code == 409
    assert other.headers["x-should-retry"] == "false"
    assert post(served, TEXT, headers=headers, secret=served.another_key()).json()["id"] != first.json()["id"]
    assert post(served, TEXT, headers={"Idempotency-Key": "x" * 256}).status_code == 400


def test_a_replay_is_answered_whatever_has_changed(tmp_path: Path) -> None:
    later_s = [0.0]
    with endpoint(tmp_path, now=lambda: time.time() + later_s[0]) as served:
        served.note(pool("shapes"))
        soon = datetime.fromtimestamp(time.time() + 3, UTC).isoformat()
        headers = {"Idempotency-Key": "once"}
        body = {**TEXT, "promptImage": "https://example.com/a.png", "deadline": soon, "fallback": False}
        first = post(served, body, "image_to_video", headers=headers)
        served.note(pool("shapes", backlog_s=1000.0))
        assert post(served, body, "image_to_video").status_code == 400
        later_s[0] = 3.0  # now its deadline is past, too
        again = post(served, body, "image_to_video", headers=headers)
        assert again.json() == first.json()
        assert len(served.context.intake.taken) == 1  # type: ignore[attr-defined]


def test_what_is_refused_is_not_fetched_first(served: Endpoint) -> None:
    before = len(served.context.intake.taken)  # type: ignore[attr-defined]
    body = {"model": "nobody", "promptText": "x", "promptImage": "https://example.com/a.png"}
    assert post(served, body, "image_to_video").status_code == 400
    assert len(served.context.intake.taken) == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url", ["http://example.com/x", "https://10.0.0.1/x", "https://localhost/x", "https://a:b@c.d/"]
)
def test_a_webhook_that_would_not_be_called_is_refused(served: Endpoint, url: str) -> None:
    answer = post(served, {**TEXT, "webhookUrl": url})
    assert answer.status_code == 400
    assert answer.json()["issues"][0]["path"] == ["webhookUrl"]


def test_many_with_one_idempotency_key_make_one_task(served: Endpoint) -> None:
    barrier = threading.Barrier(8)

    def ask(_: int) -> str:
        barrier.wait()
        made: str = post(served, TEXT, headers={"Idempotency-Key": "together"}).json()["id"]
        return made

    with ThreadPoolExecutor(8) as pool_:
        assert len(set(pool_.map(ask, range(8)))) == 1


def test_the_dispatcher_is_woken_after_the_task_is_durable(tmp_path: Path) -> None:
    with endpoint(tmp_path) as served:
        seen: list[int] = []
        woken = threading.Event()

        def wake() -> None:
            seen.append(len(served.store.tasks.pending()))
            woken.set()

        object.__setattr__(served.context, "wake", wake)
        served.app.state.context = served.context
        post(served, TEXT)
        assert woken.wait(60)
        assert seen == [1]


def test_a_live_task_says_how_it_fares(served: Endpoint, http: httpx.Client) -> None:
    task_id = post(served, {**TEXT, "seed": 3}).json()["id"]
    waiting = http.get(f"/v1/tasks/{task_id}").json()
    assert waiting["queuePosition"] >= 0
    assert waiting["quote"]["eta"] <= waiting["quote"]["etaP90"]
    assert waiting["story"][0]["type"] == "filter"
    served.finish(task_id, billed_usd=0.0, billed_gpu_s=1.5)
    done = http.get(f"/v1/tasks/{task_id}").json()
    assert done["bill"]["gpuSeconds"] == 1.5
    assert done["bill"]["timings"]["renderSeconds"] == 0.5
    assert done["seconds"] >= 0
    assert done["clip"]["frames"] == 17
    assert "queuePosition" not in done


def test_a_key_s_tasks_are_listed_latest_first(served: Endpoint) -> None:
    secret = served.another_key()
    made = [post(served, {**TEXT, "seed": seed}, secret=secret).json()["id"] for seed in range(5)]
    served.finish(made[0])
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {secret}"}) as http:
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = http.get("/v1/tasks", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
            found += [task["id"] for task in page["tasks"]]
            cursor = page["nextCursor"]
        assert found == made[::-1]
        done = http.get("/v1/tasks?status=SUCCEEDED,FAILED").json()["tasks"]
        assert [task["id"] for task in done] == [made[0]]


def test_without_auth_everybody_is_local(tmp_path: Path) -> None:
    with endpoint(tmp_path, auth=False) as served:
        answer = httpx.post(f"{served.url}/v1/text_to_video", json=TEXT)
        task = served.store.tasks.get(answer.json()["id"])
        assert task is not None
        assert task.key_id == "local"
