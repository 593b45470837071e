"""Planning against what earlier runs left, without Ray: what is done, what is gone, what is wrong."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.moderator import moderated_by
from cluster.topology import Topology
from pipelines.planner import plan_run
from pipelines.results import write_results
from pipelines.run_plan import RunPlan
from schemas.clip import Clip, Record, Status
from schemas.errors import ConfigError
from schemas.moderation import ModerationSettings, OnError, Thresholds
from schemas.run import RunOptions
from storage import keys
from storage.batch_parts import BatchPart
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store
from storage.tables import read_table, table_to_records
from tests.pipelines.catalogs import two_variants

HERE = Topology(cpus=2.0, gpus=0.0, nodes=1, accelerators={})
TASKS = 5


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    rows = [{"id": f"t{i}", "prompt": f"clip {i}", "variant": "swift", "num_frames": 5} for i in range(TASKS)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunOptions(manifest=str(tmp_path / "m.jsonl"), out=str(tmp_path / "out"))


def planned(options: RunOptions, **more: Any) -> RunPlan:
    return plan_run(options, two_variants(), HERE, out=options.out, done_in=options.out, in_process=True, **more)


def tasks_of(plan: RunPlan, store: ObjectStore) -> list[str]:
    return [
        task.fingerprint
        for pool in plan.pools
        for span in pool.spans
        for batch in BatchPart(store.get(span.part)).batches(span.start, span.stop)
        for task in batch.tasks
    ]


def rendered(store: ObjectStore, fingerprint: str) -> None:
    """What an actor leaves of a task."""
    data = f"clip of {fingerprint}".encode()
    store.put(keys.clip("swift", fingerprint), data)
    store.put(keys.poster("swift", fingerprint), b"poster")
    clip = Clip(
        uri=store.uri(keys.clip("swift", fingerprint)),
        sha256=hashlib.sha256(data).hexdigest(),
        clip_bytes=len(data),
        width=64,
        height=64,
        frames=5,
        fps=8.0,
    )
    status, at = Status.SUCCEEDED, "2026-01-01T00:00:00+00:00"
    Ledger(store).write(
        Record(fingerprint=fingerprint, status=status, variant="swift", seed=1, clip=clip, finished_at=at)
    )


def test_what_is_missing_cut_off_empty_or_unrecorded_is_planned_again(options: RunOptions) -> None:
    store = open_store(options.out)
    tasks = tasks_of(planned(options), store)
    for task in tasks:
        rendered(store, task)
    assert planned(options).quote.to_render == 0
    gone, cut, empty, flipped, whole = tasks
    store.delete([keys.clip("swift", gone)])
    store.put(keys.clip("swift", cut), b"clip")
    store.put(keys.clip("swift", empty), b"")
    data = store.get(keys.clip("swift", flipped))
    store.put(keys.clip("swift", flipped), data[::-1])

    plan = planned(options)
    assert sorted(tasks_of(plan, store)) == sorted((gone, cut, empty))
    assert "3 clips recorded but missing or damaged: rendered again" in plan.notes
    for task in (cut, empty):
        assert store.head(keys.clip("swift", task)) is None, "an actor stores a clip only where there is none"
    statuses = {r.fingerprint: r.status for r in table_to_records(Ledger(store).load())}
    assert statuses == {
        **dict.fromkeys((gone, cut, empty), Status.PENDING),
        **dict.fromkeys((flipped, whole), Status.SUCCEEDED),
    }
    totals = write_results(options.out, options.run_id, plan)
    assert (totals["succeeded"], totals["failed"]) == (2, 3), "should the run break now, no clip is said to be there"

    verified = planned(options.model_copy(update={"verify": True}))
    assert sorted(tasks_of(verified, store)) == sorted((gone, cut, empty, flipped))


def test_a_clip_that_nobody_recorded_makes_room_for_one_that_is(options: RunOptions) -> None:
    store = open_store(options.out)
    (first, *_) = tasks_of(planned(options), store)
    store.put(keys.clip("swift", first), b"half a cl")
    plan = planned(options)
    assert plan.quote.to_render == TASKS
    assert not plan.notes
    assert store.head(keys.clip("swift", first)) is None


def test_an_estimate_changes_nothing(options: RunOptions) -> None:
    store = open_store(options.out)
    tasks = tasks_of(planned(options), store)
    for task in tasks[1:]:
        rendered(store, task)
    store.put(keys.clip("swift", tasks[1]), b"")
    before = {info.key: info.etag for info in store.list()}
    plan = plan_run(options, two_variants(), HERE, out=None, done_in=options.out, in_process=True)
    assert plan.quote.to_render == 2
    assert {info.key: info.etag for info in store.list()} == before


def test_an_interrupted_run_s_table_says_what_waits(options: RunOptions) -> None:
    store = open_store(options.out)
    plan = planned(options)
    rendered(store, tasks_of(plan, store)[0])
    totals = write_results(options.out, options.run_id, plan, interrupted=True)
    assert (totals["succeeded"], totals["pending"], totals["failed"]) == (1, TASKS - 1, 0)
    table = read_table(store, keys.results_part(options.run_id, 0))
    assert table.column("status").to_pylist().count("PENDING") == TASKS - 1


def test_reasons_are_counted_and_told(options: RunOptions) -> None:
    rows = [{"prompt": "a", "variant": "none"}, {"prompt": "b", "variant": "none"}, {"prompt": ""}]
    Path(options.manifest).write_text("".join(json.dumps(row) + "\n" for row in rows))
    totals = write_results(options.out, options.run_id, planned(options))
    (most, count), (other, once) = totals.reasons
    assert (count, once) == (2, 1)
    assert most.startswith("variant: unknown variant 'none'; available: ")
    assert other == "prompt: text_to_video needs a prompt"


def test_bytes_in_a_row_go_to_the_store_once(options: RunOptions, tmp_path: Path) -> None:
    row = {"prompt": "x", "variant": "small", "image": {"bytes": b"a picture", "path": None}}
    pq.write_table(pa.Table.from_pylist([row, {**row, "prompt": "y"}]), tmp_path / "m.parquet")
    told = options.model_copy(update={"manifest": str(tmp_path / "m.parquet")})
    store = open_store(options.out)
    plan = planned(told)
    (key,) = [info.key for info in store.list(keys.INPUTS)]
    assert store.get(key) == b"a picture"
    images = {
        task.media
        for pool in plan.pools
        for span in pool.spans
        for batch in BatchPart(store.get(span.part)).batches(span.start, span.stop)
        for task in batch.tasks
    }
    assert images == {(store.uri(key),)}


def test_strict_refuses_columns_that_are_no_fields(options: RunOptions) -> None:
    Path(options.manifest).write_text('{"prompt": "a", "steps": 3}\n')
    with pytest.raises(ConfigError, match=r"--strict: .*'steps' \(1 row, did you mean 'num_inference_steps'\?\)"):
        planned(options.model_copy(update={"strict": True}))


def test_what_moderation_refused_is_planned_again_only_when_what_decides_changed(options: RunOptions) -> None:
    strict = ModerationSettings(scorers=("tests.scripted_scorer:ScriptedScorer",))
    told, store = options.model_copy(update={"moderation": strict}), open_store(options.out)
    refused, failed, *others = tasks_of(planned(told), store)
    for task in others:
        rendered(store, task)
    at = "2026-01-01T00:00:00+00:00"
    record = Record(fingerprint=refused, status=Status.FAILED, variant="swift", seed=1, finished_at=at)
    refusal = {"failure_code": "SAFETY.OUTPUT.VIDEO", "refused_by": moderated_by(strict)}
    Ledger(store).write_many(
        [
            record.model_copy(update=refusal),
            record.model_copy(update={"fingerprint": failed, "failure_code": "INTERNAL"}),
        ]
    )
    assert tasks_of(planned(told), store) == [failed], "what nobody could look at is tried again"
    slower = strict.model_copy(update={"timeout_s": 99.0, "on_error": OnError.ALLOW, "bill_refused_output": False})
    assert tasks_of(planned(told.model_copy(update={"moderation": slower})), store) == [failed]
    for other in (strict.model_copy(update={"thresholds": Thresholds(refuse="never")}), ModerationSettings()):
        plan = planned(told.model_copy(update={"moderation": other}))
        assert sorted(tasks_of(plan, store)) == sorted([refused, failed])
    totals = write_results(options.out, options.run_id, plan)
    assert (totals["succeeded"], totals["failed"], totals["refused"], totals["flagged"]) == (TASKS - 2, 2, 2, 0)


def test_prompts_are_moderated_by_list_when_a_run_is_planned(options: RunOptions, tmp_path: Path) -> None:
    words = tmp_path / "words.toml"
    words.write_text('violence = ["clip 3"]\nbrand = { score = 0.6, words = ["clip 4"] }')
    told = options.model_copy(update={"moderation": ModerationSettings(word_list=words)})
    plan = planned(told)
    assert (plan.quote.to_render, plan.quote.rejected) == (TASKS - 1, 1)
    totals = write_results(told.out, told.run_id, plan, interrupted=True)
    assert (totals["rejected"], totals["refused"], totals["flagged"]) == (1, 1, 1)
    assert totals.reasons[0] == ("prompt: refused by moderation: INPUT.TEXT: violence by words (refuse)", 1)
    (reject,) = [json.loads(line) for line in open_store(told.out).get(keys.rejects_part(told.run_id, 0)).splitlines()]
    assert (reject["id"], reject["code"]) == ("t3", "SAFETY.INPUT.TEXT")
    assert planned(options).quote.rejected == 0, "without moderation nothing is refused"


def test_a_prompt_that_a_scorer_fails_on_is_that_rows_trouble_alone(options: RunOptions) -> None:
    rows = [{"id": deed, "prompt": f"a {deed}", "variant": "swift"} for deed in ("circle", "RAISE", "NONSENSE")]
    Path(options.manifest).write_text("".join(json.dumps(row) + "\n" for row in rows))
    closed = ModerationSettings(scorers=("tests.scripted_scorer:ScriptedScorer",))
    told = options.model_copy(update={"moderation": closed})
    plan = planned(told)
    assert (plan.quote.to_render, plan.quote.rejected) == (1, 2)
    write_results(told.out, told.run_id, plan, interrupted=True)
    table = read_table(open_store(told.out), keys.results_part(told.run_id, 0))
    codes = dict(zip(table.column("id").to_pylist(), table.column("failure_code").to_pylist(), strict=True))
    assert codes == {"circle": None, "RAISE": "INTERNAL", "NONSENSE": "INTERNAL"}
    opened = told.model_copy(update={"moderation": closed.model_copy(update={"on_error": OnError.ALLOW})})
    plan = planned(opened)
    assert (plan.quote.to_render, plan.quote.rejected) == (3, 0)
    assert write_results(told.out, told.run_id, plan, interrupted=True)["flagged"] == 2
