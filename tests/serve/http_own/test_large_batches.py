"""Batches that go through the bulk pipeline: a manifest of the client's, or more rows than the queue takes."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from schemas.clip import Status
from serve.bulk import MOST_LAUNCHES, SILENT_S, START_S, BulkFollower, BulkOptions, Heart
from serve.config import Limits
from serve.errors import DailyLimitError, RunNotLaunchedError
from serve.http import large_batches
from serve.store.contract import Batch
from serve.wire.instants import midnight
from storage import keys
from storage.store import open_store
from storage.tables import RESULT_SCHEMA, write_table
from tests.serve.http.endpoint import Endpoint, catalog_with, endpoint
from tests.serve.http_own.conftest import PRICES, ROW, client_of, fresh, made, post


class Launches:
    """Launches nothing: what it is told."""

    def __init__(self) -> None:
        self.launched: list[tuple[str, str]] = []
        self.stopped: list[tuple[str, str]] = []
        self.refuses: Exception | None = None

    def launch(self, batch_id: str, attempt: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.launched.append((batch_id, attempt))

    def stop(self, batch_id: str, attempt: str) -> None:
        self.stopped.append((batch_id, attempt))

    def close(self) -> None:
        pass


@contextmanager
def small_endpoint(folder: Path, **limits: Any) -> Iterator[Endpoint]:
    """Takes three rows into the queue, and has a bulk pipeline."""
    with endpoint(folder, catalog_with(PRICES), limits=Limits(max_batch_tasks=3, **limits)) as running:
        fresh(running)
        running.app.state.bulk = Launches()
        yield running


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Endpoint]:
    with small_endpoint(tmp_path) as running:
        yield running


def manifest_of(running: Endpoint, name: str = "mine.jsonl", text: str = '{"prompt": "a"}\n') -> str:
    """A manifest where the endpoint's first key may have it."""
    key = f"manifests/{running.key.id}/{name}"
    running.context.objects.put(key, text.encode())
    return running.context.objects.uri(key)


def stored(running: Endpoint, batch_id: str) -> Batch:
    batch = running.store.batches.get(batch_id)
    assert batch is not None
    return batch


def heart_of(running: Endpoint, batch_id: str) -> Heart:
    """Of the process that was launched last for a run."""
    attempts = [attempt for of, attempt in running.app.state.bulk.launched if of == batch_id]
    return Heart(running.store, batch_id, attempts[-1])


def test_more_rows_than_the_queue_takes_go_through_the_bulk_pipeline(small: Endpoint) -> None:
    client, launches = client_of(small), small.app.state.bulk
    rows = [{**ROW, "seed": number} for number in range(5)] + [{**ROW, "promptImage": "https://x.example/a.png"}, 3]
    batch = made(client, rows, priority=4, maxCredits=1000)
    assert (batch["status"], batch["total"], batch["rejectedRows"]) == ("PENDING", 6, 1)
    assert small.store.tasks.recent(10) == ()
    assert [of for of, _ in launches.launched] == [batch["id"]]
    run = stored(small, batch["id"])
    assert BulkOptions.of(run) == BulkOptions(variant="auto", priority=4, max_usd=10.0, snap=True, trusted=True)
    text = small.context.objects.get(f"batches/{batch['id']}/manifest.jsonl").decode()
    assert run.manifest_uri == small.context.objects.uri(f"batches/{batch['id']}/manifest.jsonl")
    written = [json.loads(line) for line in text.splitlines()]
    assert [row.get("seed") for row in written] == [0, 1, 2, 3, 4, None]
    assert written[5]["inputs"] == [{"role": "first_frame", "image": "s3://bucket/inputs/image"}]
    assert (run.run_uri or "").startswith(small.context.objects.uri(f"batches/{batch['id']}"))


def test_a_run_says_itself_how_far_it_is(small: Endpoint) -> None:
    client = client_of(small)
    batch = made(client, [ROW] * 4)
    heart = heart_of(small, batch["id"])
    assert heart.beat({"succeeded": 1, "waiting": 3}, 0.1, small.context.now())
    assert client.get(f"/v1/batches/{batch['id']}").json()["progress"] == 0.25
    heart.end(Status.SUCCEEDED, {"succeeded": 4}, 0.4, small.context.now())
    done = client.get(f"/v1/batches/{batch['id']}").json()
    assert (done["status"], done["progress"], done["bill"]["usd"]) == ("SUCCEEDED", 1.0, 0.4)
    assert not heart.beat({"succeeded": 4}, 0.4, small.context.now())


@pytest.mark.parametrize(
    "wrong",
    [
        "file:///etc/passwd",
        "s3://somebody/prompts.jsonl",
        "{home}../x.jsonl",
        "{home}%2e%2e/{other}/theirs.jsonl",
        "{home}%2E%2E%2F{other}%2Ftheirs.jsonl",
        "{home}%252e%252e/{other}/theirs.jsonl",
        "{home}..%2f{other}/theirs.jsonl",
        "{root}manifests/{other}/theirs.jsonl",
        "{root}manifests/*/theirs.jsonl",
        "{root}manifests/{other}*/theirs.jsonl",
        "{home}*.jsonl",
        "{home}[m]ine.jsonl",
        "{home}link.jsonl",
        "{home}folder",
        "{home}absent.jsonl",
        "{home}mine.jsonl%00",
        "{root}manifests",
        "{root}uploads/x",
        "manifests/{me}/mine.jsonl",
    ],
)
def test_a_manifest_is_read_only_from_the_folder_of_its_key(small: Endpoint, wrong: str) -> None:
    client, other = client_of(small), "key_other"
    root = f"{small.context.objects.address}/"
    manifest_of(small)
    small.context.objects.put(f"manifests/{other}/theirs.jsonl", b'{"prompt": "secret"}\n')
    home = Path(small.context.config.out) / "manifests" / small.key.id
    (home / "link.jsonl").symlink_to("/etc/passwd")
    (home / "folder").mkdir()
    (home / "folder" / "inside.jsonl").symlink_to(home.parent / other / "theirs.jsonl")
    uri = wrong.format(root=root, home=f"{root}manifests/{small.key.id}/", other=other, me=small.key.id)
    answer = post(client, manifestUri=uri)
    assert answer.status_code == 400, answer.text
    assert answer.json()["issues"][0]["path"] == ["manifestUri"]
    assert small.app.state.bulk.launched == []


def test_a_manifest_in_the_folder_of_its_key_is_read_as_it_was_resolved(small: Endpoint) -> None:
    client = client_of(small)
    ours = manifest_of(small)
    home = ours.rpartition("/")[0]
    for uri in (ours, home, f"{home}/%6dine.jsonl", f"{home}/sub/../mine.jsonl"):
        batch = post(client, manifestUri=uri, model="shapes")
        assert batch.status_code == 200, batch.text
        run = stored(small, batch.json()["id"])
        assert run.manifest_uri == (home if uri == home else ours)
        assert (BulkOptions.of(run).variant, BulkOptions.of(run).trusted) == ("shapes", False)
    assert post(client, manifestUri=ours, deadline=60).status_code == 400


def test_cancelling_a_run_stops_its_process(small: Endpoint) -> None:
    client, launches = client_of(small), small.app.state.bulk
    batch = made(client, [ROW] * 4)
    heart = heart_of(small, batch["id"])
    answer = client.delete(f"/v1/batches/{batch['id']}").json()
    assert launches.stopped == launches.launched
    assert answer["status"] == "CANCELLED"
    assert client.delete(f"/v1/batches/{batch['id']}").json()["status"] == "CANCELLED"
    assert small.store.batches.unfinished_runs() == ()
    assert not heart.beat({}, 0.0, small.context.now()), "a process that cannot be reached stops by itself"


def test_without_a_bulk_pipeline_it_says_what_is_possible(small: Endpoint) -> None:
    small.app.state.bulk = None
    answer = post(client_of(small), [ROW] * 4)
    assert answer.status_code == 400
    assert "at most 3 rows" in answer.json()["issues"][0]["message"]


@pytest.mark.parametrize("rows", [2, 4], ids=["in the queue", "as a run"])
def test_six_equal_batches_at_once_are_one(small: Endpoint, rows: int) -> None:
    again = {"Idempotency-Key": "once"}
    body = {"tasks": [{**ROW, "seed": number} for number in range(rows)]}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client_of(small).post("/v1/batches", json=body, headers=again), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    (batch_id,) = {answer.json()["id"] for answer in answers}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 5
    if rows > 3:
        assert [of for of, _ in small.app.state.bulk.launched] == [batch_id]
        kept = [info.key for info in small.context.objects.list("batches/")]
        assert kept == [f"batches/{batch_id}/manifest.jsonl"], "the others' manifests are gone"
    else:
        assert len(small.store.tasks.recent(50)) == rows
        assert len({tuple(answer.json()["taskIds"]) for answer in answers}) == 1
    other_body = {"tasks": [{**ROW, "seed": 99}] * rows}
    assert client_of(small).post("/v1/batches", json=other_body, headers=again).status_code == 409


def test_a_manifest_that_is_sent_again_is_the_same_run(small: Endpoint) -> None:
    client, again = client_of(small), {"Idempotency-Key": "night"}
    uri = manifest_of(small)
    first = post(client, headers=again, manifestUri=uri)
    second = post(client, headers=again, manifestUri=uri)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    assert len(small.app.state.bulk.launched) == 1
    assert post(client, headers=again, manifestUri=uri, model="shapes").status_code == 409


def test_rows_of_a_run_count_towards_the_day_and_towards_the_usage(tmp_path: Path) -> None:
    with small_endpoint(tmp_path, max_daily=6) as running:
        client = client_of(running)
        batch = made(client, [ROW] * 4, model="auto")
        assert post(client, [ROW] * 4).status_code == 429
        assert post(client, [ROW] * 3).status_code == 429
        assert post(client, [ROW] * 2).status_code == 200
        heart_of(running, batch["id"]).end(Status.SUCCEEDED, {"succeeded": 4}, 0.25, running.context.now())
        usage = client.post("/v1/organization/usage", json={}).json()["results"]
        assert sum(entry["usd"] for day in usage for entry in day["usedCredits"]) == pytest.approx(0.25)
        today = client.get("/v1/organization").json()["usage"]["models"]
        assert sum({name: one["dailyGenerations"] for name, one in today.items()}.values()) >= 6


def test_a_manifest_s_rows_are_held_against_the_day_once_they_are_counted(tmp_path: Path) -> None:
    with small_endpoint(tmp_path, max_daily=6) as running:
        batch = post(client_of(running), manifestUri=manifest_of(running)).json()
        since = midnight(running.context.now())
        with pytest.raises(DailyLimitError, match="6 tasks a day, 0 made, 7 more"):
            running.store.batches.planned(batch["id"], 7, 0.0, max_since=(since, 6))
        running.store.batches.planned(batch["id"], 6, 0.0, max_since=(since, 6))
        assert post(client_of(running), [ROW]).status_code == 429


def test_a_run_has_all_that_its_key_may_have_at_once(tmp_path: Path) -> None:
    with small_endpoint(tmp_path, max_concurrent=2) as running:
        client, launches = client_of(running), running.app.state.bulk
        follower = large_batches.follower_of(running.app, running.context)
        assert follower is not None
        first = client.post("/v1/text_to_video", json=ROW).json()
        batch = made(client, [ROW] * 4)
        second = made(client, [ROW] * 5)
        assert (batch["status"], second["status"]) == ("THROTTLED", "THROTTLED")
        later = client.post("/v1/text_to_video", json=ROW).json()
        assert (first["status"], later["status"]) == ("PENDING", "THROTTLED")
        clock = running.context.now()
        for turn in range(3):
            follower.look(clock + turn)
        assert launches.launched == [], "a task of before still waits"
        running.finish(first["id"])
        for turn in range(3, 6):
            follower.look(clock + turn)
        assert [of for of, _ in launches.launched] == [batch["id"]], "one run at a time, the first first"
        assert BulkOptions.of(stored(running, batch["id"])).max_concurrent == 2
        assert running.store.tasks.release(running.key.id, 2, clock) == ()
        heart_of(running, batch["id"]).end(Status.SUCCEEDED, {"succeeded": 4}, 0.0, clock)
        for turn in range(6, 9):
            follower.look(clock + turn)
        assert [of for of, _ in launches.launched] == [batch["id"], second["id"]]


def test_a_run_whose_process_is_silent_is_taken_up_by_one_other(small: Endpoint) -> None:
    batch = made(client_of(small), [ROW] * 4)
    clock = small.context.now()
    assert heart_of(small, batch["id"]).beat({}, 0.0, clock)
    launchers = [Launches(), Launches()]
    followers = [BulkFollower(one, small.store) for one in launchers]
    for follower in followers:
        follower.look(clock)
    assert not launchers[0].launched, "its process spoke a moment ago"
    before = heart_of(small, batch["id"])
    clock += SILENT_S + 1
    for _ in range(3):
        for follower in followers:
            follower.look(clock)
        clock += 1
    ((of, attempt),) = [*launchers[0].launched, *launchers[1].launched]
    assert of == batch["id"]
    assert Heart(small.store, of, attempt).beat({}, 0.0, clock)
    assert not before.beat({}, 0.0, clock), "a process that was only slow stops: the run is another's"


def test_a_run_that_cannot_be_launched_now_is_launched_later(small: Endpoint) -> None:
    launches = small.app.state.bulk
    launches.refuses = RunNotLaunchedError("Ray took no job")
    batch = made(client_of(small), [ROW] * 4)
    assert batch["status"] == "PENDING"
    launches.refuses = None
    follower = BulkFollower(launches, small.store)
    clock = small.context.now()
    for turn in range(3):
        follower.look(clock + START_S + 1 + turn)
    assert [of for of, _ in launches.launched] == [batch["id"]]


def test_a_run_whose_processes_never_say_a_word_fails(small: Endpoint) -> None:
    batch = made(client_of(small), [ROW] * 4)
    follower = BulkFollower(Launches(), small.store)
    clock = small.context.now()
    for turn in range(int((MOST_LAUNCHES + 1) * (START_S + 5))):
        follower.look(clock + turn)
    found = stored(small, batch["id"])
    assert (found.status, "without a word" in found.failure) == (Status.FAILED, True)


@pytest.mark.parametrize("url", ["https://127.0.0.1/hook", "ftp://x.example", "http://x.example/", "https://[::1]/"])
@pytest.mark.parametrize("rows", [1, 4], ids=["in the queue", "as a run"])
def test_a_row_s_webhook_is_checked_before_it_is_taken(small: Endpoint, rows: int, url: str) -> None:
    batch = made(client_of(small), [ROW] * rows + [{**ROW, "webhookUrl": url}])
    (rejected,) = batch["rejected"]
    assert (rejected["index"], rejected["issues"][0]["path"]) == (rows, ["webhookUrl"])


def test_rows_that_say_what_a_run_cannot_heed_are_rejected(small: Endpoint) -> None:
    wrong = [
        {**ROW, "webhookUrl": "https://hooks.example/"},
        {**ROW, "deadline": 3600},
        {**ROW, "maxCredits": 5},
        {**ROW, "outputFormat": "gif"},
    ]
    batch = made(client_of(small), [ROW] * 3 + wrong)
    assert batch["total"] == 3
    told = {issue["path"][0]: issue["message"] for one in batch["rejected"] for issue in one["issues"]}
    assert set(told) == {"webhookUrl", "deadline", "maxCredits", "outputFormat"}
    assert all("at most 3 rows" in message for message in told.values())


def test_the_clips_of_a_run_are_fetched_like_any_other(small: Endpoint) -> None:
    client = client_of(small)
    batch = made(client, [ROW] * 4)
    assert client.get(f"/v1/batches/{batch['id']}/tasks").json() == {"tasks": [], "nextCursor": None}
    run = open_store(stored(small, batch["id"]).run_uri or "")
    run.put("clips/shapes/aa/clip.mp4", b"a clip", "video/mp4")
    none = dict.fromkeys(RESULT_SCHEMA.names)
    rows = [
        {**none, "row": n, "id": f"row-{n}", "status": "SUCCEEDED", "uri": run.uri("clips/shapes/aa/clip.mp4")}
        | {"billed_usd": 0.01, "seed": n, "variant": "shapes", "prompt": "a red circle"}
        for n in range(5)
    ]
    rows[3] |= {"status": "REJECTED", "uri": None, "error": '["seed: too large"]'}
    rows[4] |= {"status": "FAILED", "uri": None, "error": "Traceback /root/secret"}
    for number, part in enumerate((rows[:3], rows[3:])):
        table = pa.Table.from_pylist(part, schema=RESULT_SCHEMA)
        write_table(run, keys.results_part("abc", number), table)
    heart_of(small, batch["id"]).end(Status.SUCCEEDED, {"succeeded": 3}, 0.03, small.context.now())
    seen, cursor = [], ""
    while True:
        body = client.get(f"/v1/batches/{batch['id']}/tasks?limit=2{cursor}").json()
        seen += body["tasks"]
        if body["nextCursor"] is None:
            break
        cursor = f"&cursor={body['nextCursor']}"
    assert [task["id"] for task in seen] == [f"row-{n}" for n in range(5)]
    assert httpx.get(seen[0]["output"][0]).content == b"a clip", "by its signature, without a key"
    assert (seen[3]["status"], seen[3]["failure"]) == ("REJECTED", "seed: too large")
    assert "secret" not in json.dumps(seen[4])
    failed = client.get(f"/v1/batches/{batch['id']}/tasks?status=FAILED,REJECTED").json()["tasks"]
    assert [task["id"] for task in failed] == ["row-3", "row-4"]
    for query in ("cursor=x", "cursor=1", "limit=0", "status=GONE"):
        assert client.get(f"/v1/batches/{batch['id']}/tasks?{query}").status_code == 400
    other = client_of(small, small.another_key())
    assert other.get(f"/v1/batches/{batch['id']}/tasks").status_code == 404
