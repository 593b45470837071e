"""Many creates behind one id: good rows are never lost over bad ones, and one id answers for all."""

import math
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.clip import Status
from serve.errors import StoreUnavailableError
from tests.serve.http.endpoint import Endpoint
from tests.serve.http_own.conftest import ROW, client_of, made, post


def test_a_batch_from_its_quote_to_its_bill(client: httpx.Client, served: Endpoint) -> None:
    batch = made(client, [ROW, {**ROW, "seed": 5}, {"promptText": "noise", "model": "tiny-random"}])
    assert (batch["status"], batch["total"], batch["rejectedRows"]) == ("PENDING", 3, 0)
    tasks = [client.get(f"/v1/tasks/{one}").json() for one in batch["taskIds"]]
    assert batch["quote"]["usd"] == pytest.approx(sum(task["quote"]["usd"] for task in tasks))
    assert batch["quote"]["eta"] <= batch["quote"]["etaP90"]
    assert [task["batchId"] for task in tasks] == [batch["id"]] * 3
    assert tasks[1]["seed"] == 5

    served.finish(batch["taskIds"][0], billed_usd=0.02)
    served.finish(batch["taskIds"][1], Status.FAILED, failure="no clip")
    halfway = client.get(f"/v1/batches/{batch['id']}").json()
    assert (halfway["status"], halfway["progress"]) == ("RUNNING", pytest.approx(2 / 3, abs=0.001))
    assert halfway["counts"] == {"succeeded": 1, "failed": 1, "pending": 1}
    served.finish(batch["taskIds"][2], billed_usd=0.01)
    done = client.get(f"/v1/batches/{batch['id']}").json()
    assert done["bill"] == {"usd": pytest.approx(0.03), "credits": 3}
    assert done["progress"] == 1.0
    assert done["finishedAt"]


def test_bad_rows_are_told_by_index_and_cost_the_good_ones_nothing(client: httpx.Client, served: Endpoint) -> None:
    rows = [
        ROW,
        {**ROW, "model": "nope"},
        {**ROW, "promptText": ""},
        7,
        {**ROW, "promptImage": "https://example.com/bad.png"},
        {**ROW, "promptImage": "https://example.com/good.png"},
        {**ROW, "maxCredits": 0.000001},
        {**ROW, "seed": -1},
        ROW,
    ]
    batch = made(client, rows)
    assert (batch["total"], len(batch["taskIds"]), batch["rejectedRows"]) == (3, 3, 6)
    rejected = {entry["index"]: entry["issues"][0] for entry in batch["rejected"]}
    assert sorted(rejected) == [1, 2, 3, 4, 6, 7]
    assert rejected[1]["path"] == ["model"]
    assert rejected[4]["path"] == ["promptImage"]
    assert rejected[6]["path"] == ["maxCredits"]
    assert client.get(f"/v1/batches/{batch['id']}").json()["rejected"] == batch["rejected"]
    kinds = [client.get(f"/v1/tasks/{one}").json() for one in batch["taskIds"]]
    task = served.store.tasks.get(kinds[1]["id"])
    assert task is not None
    assert [one.uri for one in task.request.inputs] == ["s3://bucket/inputs/image"]


def test_a_batch_without_a_good_row_is_refused_with_every_issue(client: httpx.Client, served: Endpoint) -> None:
    before = served.store.tasks.recent(500)
    answer = post(client, [{**ROW, "model": "nope"}, {**ROW, "seed": "x"}])
    assert answer.status_code == 400
    paths = [issue["path"] for issue in answer.json()["issues"]]
    assert paths == [["tasks", 0, "model"], ["tasks", 1, "seed"]]
    assert served.store.tasks.recent(500) == before


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ["tasks"]),
        ({"tasks": []}, ["tasks"]),
        ({"tasks": [ROW], "manifestUri": "s3://b/m.jsonl"}, ["tasks"]),
        ({"tasks": [ROW], "priority": 101}, ["priority"]),
        ({"tasks": [ROW], "webhookUrl": "ftp://x"}, ["webhookUrl"]),
        ({"tasks": [ROW], "webhookUrl": "https://127.0.0.1/hook"}, ["webhookUrl"]),
        ({"tasks": [ROW], "taskz": 1}, ["taskz"]),
        ({"manifestUri": "s3://somebody/else.jsonl"}, ["manifestUri"]),
    ],
)
def test_a_body_that_is_wrong_is_told_where(client: httpx.Client, body: dict[str, Any], path: list[str]) -> None:
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == 400
    assert path in [issue["path"] for issue in answer.json()["issues"]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("promptImage", "videoUri", "ratio", "duration", "seed", "deadline", "maxCredits", "numFrames", "mode", "fps")
ROWS = st.fixed_dictionaries(
    {"promptText": st.text(min_size=1, max_size=8), "model": st.sampled_from(["auto", "shapes", "tiny-random"])},
    optional=dict.fromkeys(FIELDS, JSON),
)


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/estimates"])
def test_whatever_is_sent_is_answered_and_never_with_a_5xx(client: httpx.Client, path: str) -> None:
    @settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.fixed_dictionaries({"tasks": st.lists(ROWS | JSON, max_size=3)}) | ROWS | JSON)
    def send(body: Any) -> None:
        answer = client.post(path, json=body)
        assert answer.status_code in (200, 400), answer.text
        expected = "error" if answer.status_code == 400 else "id" if path == "/v1/batches" else "routed"
        assert expected in answer.json()

    send()


def test_rows_take_from_the_batch_what_they_do_not_say(client: httpx.Client, served: Endpoint) -> None:
    batch = made(
        client,
        [{"promptText": "a"}, {"promptText": "b", "priority": -3, "model": "tiny-random"}],
        model="shapes",
        priority=7,
        optimizeFor="cost",
        deadline=3600,
    )
    tasks = served.store.tasks.get_many(batch["taskIds"])
    assert [task.priority for task in tasks] == [7, -3]
    assert [task.model for task in tasks] == ["shapes", "tiny-random"]
    assert all(task.constraints.prefer == "cost" for task in tasks)
    assert all(0 < task.constraints.deadline_at - served.context.now() < 3601 for task in tasks)
    assert all(task.webhook_url is None for task in tasks)


def test_the_price_limit_is_for_all_rows_together(client: httpx.Client, served: Endpoint) -> None:
    one = made(client, [ROW])["quote"]["usd"] * 100
    before = served.store.tasks.recent(500)
    refused = post(client, [ROW] * 10, maxCredits=5 * one)
    assert refused.status_code == 400
    assert refused.json()["issues"][0]["path"] == ["maxCredits"]
    assert served.store.tasks.recent(500) == before
    assert post(client, [ROW] * 10, maxCredits=11 * one).status_code == 200


def test_the_same_key_and_body_is_the_same_batch(client: httpx.Client, served: Endpoint) -> None:
    again = {"Idempotency-Key": "order-7"}
    first = post(client, [ROW, {**ROW, "seed": 1}], again)
    served.finish(first.json()["taskIds"][0])
    second = post(client, [ROW, {**ROW, "seed": 1}], again)
    assert second.status_code == 200
    assert second.headers["idempotent-replayed"] == "true"
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["taskIds"] == first.json()["taskIds"]
    assert second.json()["counts"]["succeeded"] == 1
    other_body = post(client, [ROW], again)
    assert other_body.status_code == 409
    assert client.get(f"/v1/batches/{first.json()['id']}").json()["total"] == 2
    other_key = post(client_of(served, served.another_key()), [ROW, {**ROW, "seed": 1}], again)
    assert other_key.json()["id"] != first.json()["id"]


def test_a_batch_that_the_daily_limit_refuses_leaves_nothing_that_waits(served: Endpoint) -> None:
    client = client_of(served, served.another_key(max_daily=3))
    again = {"Idempotency-Key": "too-much"}
    assert post(client, [ROW] * 5, again).status_code == 429
    assert client.get("/v1/tasks").json()["tasks"] == []
    small = post(client, [ROW] * 3, {"Idempotency-Key": "enough"})
    assert small.status_code == 200
    assert post(client, [ROW] * 5, again).status_code == 429


def test_a_limit_on_unfinished_tasks_holds_the_rest_back(served: Endpoint) -> None:
    client = client_of(served, served.another_key(max_concurrent=2))
    batch = made(client, [ROW] * 5)
    assert batch["counts"] == {"pending": 2, "throttled": 3}


def test_cancel_ends_what_is_not_done(client: httpx.Client, served: Endpoint) -> None:
    batch = made(client, [ROW] * 4)
    served.finish(batch["taskIds"][0])
    served.lease(batch["taskIds"][1])
    answer = client.delete(f"/v1/batches/{batch['id']}")
    assert answer.status_code == 200
    assert answer.json()["cancelled"] == 3
    counts = client.get(f"/v1/batches/{batch['id']}").json()["counts"]
    assert (counts["succeeded"], counts["cancelled"]) == (1, 2)
    running = served.store.tasks.get(batch["taskIds"][1])
    assert running is not None
    assert running.cancelled


def test_the_tasks_of_a_batch_come_in_pages(client: httpx.Client, served: Endpoint) -> None:
    batch = made(client, [{**ROW, "seed": number} for number in range(7)])
    seen, cursor = [], ""
    while True:
        body = client.get(f"/v1/batches/{batch['id']}/tasks?limit=3{cursor}").json()
        seen += [task["seed"] for task in body["tasks"]]
        if body["nextCursor"] is None:
            break
        cursor = f"&cursor={body['nextCursor']}"
    assert seen == [6, 5, 4, 3, 2, 1, 0]
    served.finish(batch["taskIds"][2])
    done = client.get(f"/v1/batches/{batch['id']}/tasks?status=SUCCEEDED").json()["tasks"]
    assert [task["seed"] for task in done] == [2]
    for query in ("limit=0", "limit=9999", "cursor=x", "status=GONE"):
        assert client.get(f"/v1/batches/{batch['id']}/tasks?{query}").status_code == 400


def test_a_batch_is_its_owner_s(client: httpx.Client, served: Endpoint) -> None:
    batch = made(client, [ROW])
    other = client_of(served, served.another_key())
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/tasks")):
        assert other.request(method, f"/v1/batches/{batch['id']}{path}").status_code == 404
    assert client.get(f"/v1/batches/{batch['id']}").json()["counts"] == {"pending": 1}


def test_what_a_month_may_cost_is_held_before_anything_is_accepted(served: Endpoint) -> None:
    one = math.ceil(made(client_of(served), [ROW])["quote"]["usd"] * 100 * 1e6) / 1e6
    client = client_of(served, served.another_key(monthly_credits=math.ceil(3 * one)))
    may = int(math.ceil(3 * one) / one)
    first = made(client, [ROW] * may)
    refused = client.post("/v1/text_to_video", json=ROW)
    assert refused.status_code == 429
    assert "credits a month" in refused.json()["error"]
    assert refused.headers["x-should-retry"] == "false"
    assert post(client, [ROW]).status_code == 429
    served.finish(first["taskIds"][0], billed_usd=0.0)
    assert client.post("/v1/text_to_video", json=ROW).status_code == 200, "a bill below its quote gives back the rest"


def test_a_batch_of_which_a_task_is_stored_has_not_failed(served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store went away as it said yes: the client is told to try again, and its tasks go on."""
    submit = served.store.tasks.submit

    def lost(*args: Any, **kwargs: Any) -> Any:
        submit(*args, **kwargs)
        raise StoreUnavailableError("the task store went away during a commit")

    client = client_of(served, served.another_key())
    again = {"Idempotency-Key": "unsure"}
    with monkeypatch.context() as patched:
        patched.setattr(served.store.tasks, "submit", lost)
        answer = post(client, [ROW, ROW], again)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    retried = post(client, [ROW, ROW], again).json()
    assert (retried["status"], retried["counts"]) == ("PENDING", {"pending": 2})
