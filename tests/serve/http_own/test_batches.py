"""Many creates behind one id: good rows are never lost over bad ones, and one id answers for all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.clip import Status
from schemas.errors import ConfigError
from serve.bulk import SILENT_S, BulkFollower, BulkOptions, BulkProgress
from serve.config import Limits
from serve.http import large_batches
from tests.serve.http.endpoint import Endpoint, catalog_with, endpoint
from tests.serve.http_own.conftest import PRICES, client_of, fresh

ROW = {"model": "shapes", "promptText": "a red circle"}


def post(
    client: httpx.Client, tasks: list[Any] | None = None, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    body = {**({"tasks": tasks} if tasks is not None else {}), **fields}
    return client.post("/v1/batches", json=body, headers=headers)


def made(client: httpx.Client, tasks: list[Any], **fields: Any) -> dict[str, Any]:
    answer = post(client, tasks, **fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


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
    assert task.request.image == "s3://bucket/inputs/image"


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


# -- large ones -------------------------------------------------------------------------------------------------------


class Runs:
    """A bulk runner that runs nothing: what it is told, and what the test says came of it."""

    def __init__(self) -> None:
        self.started: dict[str, tuple[str, str, BulkOptions]] = {}
        self.cancelled: list[str] = []
        self.now: dict[str, BulkProgress] = {}
        self.refuses = False

    def start(self, batch_id: str, manifest_uri: str, out_uri: str, options: BulkOptions) -> None:
        if self.refuses:
            raise ConfigError("prompts.jsonl: cannot be read")
        self.started[batch_id] = manifest_uri, out_uri, options
        self.now[batch_id] = BulkProgress(Status.RUNNING)

    def cancel(self, batch_id: str) -> None:
        self.cancelled.append(batch_id)

    def progress(self, batch_id: str) -> BulkProgress | None:
        return self.now.get(batch_id)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Endpoint]:
    """Takes three rows into the queue, and has a bulk pipeline."""
    with endpoint(tmp_path, catalog_with(PRICES), limits=Limits(max_batch_tasks=3)) as running:
        fresh(running)
        running.app.state.bulk = Runs()
        yield running


def test_more_rows_than_the_queue_takes_go_through_the_bulk_pipeline(small: Endpoint) -> None:
    client, runs = client_of(small), small.app.state.bulk
    rows = [{**ROW, "seed": number} for number in range(5)] + [{**ROW, "promptImage": "https://x.example/a.png"}, 3]
    batch = made(client, rows, priority=4, maxCredits=1000)
    assert (batch["status"], batch["total"], batch["rejectedRows"]) == ("PENDING", 6, 1)
    assert small.store.tasks.recent(10) == ()
    manifest_uri, out_uri, options = runs.started[batch["id"]]
    assert options == BulkOptions(variant="auto", priority=4, max_usd=10.0, snap=True, trusted=True)
    text = small.context.objects.get(f"batches/{batch['id']}/manifest.jsonl").decode()
    assert manifest_uri == small.context.objects.uri(f"batches/{batch['id']}/manifest.jsonl")
    written = [json.loads(line) for line in text.splitlines()]
    assert [row.get("seed") for row in written] == [0, 1, 2, 3, 4, None]
    assert written[5]["image"] == "s3://bucket/inputs/image"
    assert out_uri.startswith(small.context.objects.uri(f"batches/{batch['id']}"))


def test_the_store_follows_a_run_to_its_end(small: Endpoint) -> None:
    client, runs = client_of(small), small.app.state.bulk
    batch = made(client, [ROW] * 4)
    follower = large_batches.follower_of(small.app, small.context)
    assert follower is not None
    runs.now[batch["id"]] = BulkProgress(Status.RUNNING, 4, {"succeeded": 1, "waiting": 3}, billed_usd=0.1)
    follower.look(small.context.now())
    assert client.get(f"/v1/batches/{batch['id']}").json()["progress"] == 0.25
    runs.now[batch["id"]] = BulkProgress(Status.SUCCEEDED, 4, {"succeeded": 4}, billed_usd=0.4)
    follower.look(small.context.now())
    done = client.get(f"/v1/batches/{batch['id']}").json()
    assert (done["status"], done["progress"], done["bill"]["usd"]) == ("SUCCEEDED", 1.0, 0.4)
    assert follower.look(small.context.now()) == 0


def test_a_manifest_is_read_only_from_where_this_endpoint_writes(small: Endpoint) -> None:
    client, runs = client_of(small), small.app.state.bulk
    for wrong in ("file:///etc/passwd", "s3://somebody/prompts.jsonl", f"{small.context.objects.address}/../x.jsonl"):
        answer = post(client, manifestUri=wrong)
        assert answer.status_code == 400
        assert answer.json()["issues"][0]["path"] == ["manifestUri"]
    ours = small.context.objects.uri("manifests/mine.jsonl")
    assert post(client, manifestUri=ours, model="shapes").status_code == 200
    ((manifest_uri, _, options),) = runs.started.values()
    assert (manifest_uri, options.variant, options.trusted) == (ours, "shapes", False)
    assert post(client, manifestUri=ours, deadline=60).status_code == 400


def test_a_manifest_that_cannot_be_read_is_refused_and_leaves_no_run(small: Endpoint) -> None:
    small.app.state.bulk.refuses = True
    answer = post(client_of(small), manifestUri=small.context.objects.uri("manifests/none.jsonl"))
    assert answer.status_code == 400
    assert "cannot be read" in answer.json()["issues"][0]["message"]
    assert small.store.batches.unfinished_runs() == ()


def test_cancelling_a_run_tells_its_runner(small: Endpoint) -> None:
    client, runs = client_of(small), small.app.state.bulk
    batch = made(client, [ROW] * 4)
    answer = client.delete(f"/v1/batches/{batch['id']}").json()
    assert runs.cancelled[0] == batch["id"]
    assert answer["status"] == "CANCELLED"
    assert client.delete(f"/v1/batches/{batch['id']}").json()["status"] == "CANCELLED"
    assert small.store.batches.unfinished_runs() == ()


def test_without_a_bulk_pipeline_it_says_what_is_possible(small: Endpoint) -> None:
    small.app.state.bulk = None
    answer = post(client_of(small), [ROW] * 4)
    assert answer.status_code == 400
    assert "at most 3 rows" in answer.json()["issues"][0]["message"]


def test_a_run_whose_process_is_gone_is_taken_up_by_one_other(small: Endpoint) -> None:
    batch = made(client_of(small), [ROW] * 4)
    clock = small.context.now()
    first, second = Runs(), Runs()
    followers = [BulkFollower(first, small.store, "first"), BulkFollower(second, small.store, "second")]
    for follower in followers:
        follower.look(clock)
    assert not first.started, "the one that began it spoke a moment ago"
    clock += SILENT_S + 1
    for _ in range(3):
        for follower in followers:
            follower.look(clock)
        clock += 1
    assert len(first.started) + len(second.started) == 1
    (runs,) = [one for one in (first, second) if one.started]
    assert runs.started[batch["id"]] == small.app.state.bulk.started[batch["id"]]


def test_a_run_cancelled_elsewhere_is_stopped_here(small: Endpoint) -> None:
    batch = made(client_of(small), [ROW] * 4)
    follower = large_batches.follower_of(small.app, small.context)
    assert follower is not None
    follower.look(small.context.now())
    small.store.batches.update(batch["id"], Status.CANCELLED, {}, 0.0, small.context.now())
    follower.look(small.context.now())
    assert set(small.app.state.bulk.cancelled) == {batch["id"]}
