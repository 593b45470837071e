"""The audit log of a run's folder: held against itself, its anchors, its rejects and its ledger."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from actors.audit_trail import RunAudit, Trail, actor_trail, stored_anchors, task_ended
from pipelines.audit import ExportedLog, RunAuditLog
from pipelines.run_audit import RunLog
from pipelines.run_plan import RunPlan
from schemas.audit import Action, AuditFilter, AuditPrompts, AuditSettings, Head
from schemas.catalog import shipped_catalog
from schemas.clip import Clip, Record, Status
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.run import RunOptions, RunQuote, RunStatus
from schemas.task import Task
from storage import keys
from storage.audit_export import write_jsonl
from storage.audit_segments import AuditSegments, Line
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store
from trust.audit_chain import AuditReport, Fault

ROOT = Path(__file__).resolve().parents[2]
QUOTE = RunQuote(
    rows=4,
    to_render=3,
    already_done=0,
    duplicates=0,
    rejected=1,
    groups=(),
    actors={},
    gpu_s=1.0,
    usd=0.5,
    wall_s=1.0,
    measured=False,
)
PLAN = RunPlan(QUOTE, (), (4,), ())


@dataclass
class Run:
    """Runs into one folder, as driver and actors tell of them."""

    folder: Path
    prompts: AuditPrompts = AuditPrompts.KEEP
    number: int = 0
    log: RunLog = field(init=False)
    audit: RunAudit = field(init=False)

    def __post_init__(self) -> None:
        self.store: ObjectStore = open_store(str(self.folder / "out"))
        (self.folder / "m.jsonl").write_text("{}\n")
        self.options = RunOptions(
            manifest=str(self.folder / "m.jsonl"),
            out=str(self.folder / "out"),
            audit=AuditSettings(prompts=self.prompts),
        )
        self.config = Config(cache_dir=self.folder / "cache", state_dir=self.folder / "state")

    def begin(self) -> None:
        key = keys.rejects_part(self.options.run_id, 0)
        self.store.put(key, b'{"line": 4, "field": "fps"}\n')
        self.log = RunLog(self.store, self.options, self.config, "user:me@here")
        self.audit = self.log.started(PLAN, shipped_catalog(), ())

    def actor(self, *prompts: str) -> Trail:
        trail = actor_trail(self.store, self.audit, "p1")
        self.render(trail, *prompts)
        return trail

    def render(self, trail: Trail, *prompts: str) -> None:
        tasks = [Task(f"{self._next():032x}", prompt, "", 7) for prompt in prompts]
        records = [self._record(task) for task in tasks]
        told = [task_ended(*pair, self.audit, 1.8e9) for pair in zip(tasks, records, strict=True)]
        trail.tell(told)
        Ledger(self.store).write_many(records)

    def end(self, status: RunStatus = RunStatus.SUCCEEDED) -> Head:
        return self.log.ended(status, {"rows": 4}, 0.5).head

    def verified(self, *heads: Head) -> AuditReport:
        return RunAuditLog(self.store).verify(heads)

    def segments(self, action: Action) -> list[str]:
        """Of the chain that begins so."""
        segments = AuditSegments(self.store)
        for found in segments.chains().values():
            if f'"{action.value}"'.encode() in self.store.get(found[0]).splitlines()[0]:
                return found
        raise AssertionError(action)

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _record(self, task: Task) -> Record:
        clip = Clip(
            uri=f"s3://b/{task.fingerprint}.mp4",
            sha256=f"{int(task.fingerprint, 16):064x}",
            clip_bytes=1,
            width=8,
            height=8,
            frames=1,
            fps=8.0,
        )
        return Record(
            fingerprint=task.fingerprint,
            status=Status.SUCCEEDED,
            variant="v",
            seed=7,
            clip=clip,
            finished_at="2099-01-01T00:00:00+00:00",
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    made.begin()
    return made


def kinds(report: AuditReport) -> set[Fault]:
    return {one.fault for one in report.faults}


def change(store: ObjectStore, key: str, old: bytes, new: bytes) -> None:
    body = store.get(key)
    assert old in body
    store.put(key, body.replace(old, new, 1))


def test_a_run_and_its_actors_are_whole_and_the_run_tells_what_it_was(run: Run) -> None:
    run.actor("a", "b")
    run.actor("c")
    head = run.end()
    report = run.verified(head)
    assert (report.faults, report.notes) == ((), ())
    assert (report.records, len(report.chains), report.anchors) == (8, 3, 1)
    started, rejected, ended = (
        record.entry
        for _, record, _ in RunAuditLog(run.store).records(AuditFilter(subject=f"run:{run.options.run_id}"))
        if record.entry.action is not Action.CHAIN_OPENED
    )
    assert (started.actor, started.details["rows"], started.details["quoted_usd"]) == ("user:me@here", 4, "0.500000")
    assert len(str(started.details["catalog_sha256"])) == 64
    assert rejected.details["issues"] == 1
    assert (ended.decision, ended.details["billed_usd"]) == ("SUCCEEDED", "0.500000")
    assert len(ended.details["heads"]) == 3  # type: ignore[arg-type]


def test_a_run_that_was_killed_is_whole_and_the_next_one_tells_of_it(run: Run) -> None:
    run.actor("a")
    report = run.verified()
    assert report.is_whole
    assert "has not ended" in report.notes[0]
    run.begin()
    run.actor("b")
    run.end()
    report = run.verified()
    assert (report.faults, report.notes, len(report.chains)) == ((), (), 4)


class _BusyStore:
    """A store in which others do something whenever its objects are listed."""

    def __init__(self, inner: ObjectStore, others: Callable[[], object]) -> None:
        self._inner, self._others = inner, others

    def list(self, prefix: str) -> Any:
        self._others()
        return self._inner.list(prefix)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_run_that_goes_on_while_it_is_looked_at_is_whole(run: Run) -> None:
    trail = run.actor("a")
    looked_at = RunAuditLog(cast(ObjectStore, _BusyStore(run.store, lambda: run.render(trail, "more"))))
    report = looked_at.verify()
    assert run.number > 4, "it did go on"
    assert report.faults == ()


def test_a_run_that_ends_while_it_is_looked_at_is_whole(run: Run) -> None:
    trail = run.actor("a")
    todo: list[Callable[[], object]] = [run.end, lambda: run.render(trail, "b"), lambda: None]
    looked_at = RunAuditLog(cast(ObjectStore, _BusyStore(run.store, lambda: todo.pop()() if todo else None)))
    assert looked_at.verify().faults == ()
    assert not todo


def test_processes_that_are_killed_while_they_tell_leave_chains_that_hold(run: Run) -> None:
    """And of no clip that the ledger has is there no record: an actor tells the log first."""
    head = run.audit.head
    command = [sys.executable, "-m", "tests.pipelines.audit_teller", run.options.out]
    told = [*command, head.log, str(head.position), head.hash]
    processes = [subprocess.Popen(told, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline()
    for process in processes:
        process.kill()
        process.communicate(timeout=120)
    report = run.verified()
    assert (report.faults, len(report.chains)) == ((), 3)
    assert report.records >= 2 + 2 * (1 + 5 * 3)
    run.begin()
    run.actor("after")
    assert run.verified(run.end()).faults == ()


TAMPERING: dict[str, tuple[Callable[[Run], None], Fault]] = {
    "a clip's digest is changed": (
        lambda run: change(run.store, run.segments(Action.CHAIN_OPENED)[0], b'"sha256":"0', b'"sha256":"1'),
        Fault.ALTERED,
    ),
    "words are changed": (
        lambda run: change(run.store, run.segments(Action.CHAIN_OPENED)[0], b'prompt\\":\\"a', b'prompt\\":\\"z'),
        Fault.PROMPT,
    ),
    "a segment is removed": (
        lambda run: run.store.delete([run.segments(Action.CHAIN_OPENED)[1]]),
        Fault.TRUNCATED,
    ),
    "a chain is removed": (lambda run: run.store.delete(run.segments(Action.CHAIN_OPENED)), Fault.ABSENT),
    "the run's own chain is removed": (lambda run: run.store.delete(run.segments(Action.RUN_STARTED)), Fault.ABSENT),
    "the run's end is removed": (
        lambda run: run.store.delete([run.segments(Action.RUN_STARTED)[1]]),
        Fault.TRUNCATED,
    ),
    "the list of rejected rows is changed": (
        lambda run: change(run.store, keys.rejects_part(run.options.run_id, 0), b"fps", b"seed"),
        Fault.CONTRADICTED,
    ),
    "a line is damaged": (
        lambda run: change(run.store, run.segments(Action.CHAIN_OPENED)[0], b'{"entry"', b"[["),
        Fault.UNREADABLE,
    ),
    "a segment of another chain is put among its own": (
        lambda run: (
            run.store.put(run.segments(Action.CHAIN_OPENED)[1], run.store.get(run.segments(Action.RUN_STARTED)[0]))
            and None
        ),
        Fault.FOREIGN,
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_what_was_done_to_it_is_found(run: Run, what: str) -> None:
    trail = run.actor("a")
    run.render(trail, "b", "c")
    run.end()
    assert run.verified().is_whole
    do, fault = TAMPERING[what]
    do(run)
    assert fault in kinds(run.verified())


def test_all_of_it_made_anew_is_found_by_a_head_that_was_noted(run: Run) -> None:
    run.actor("a")
    head = run.end()
    run.store.delete([info.key for info in run.store.list("audit/")])
    run.store.delete([info.key for info in run.store.list("ledger/")])
    run.begin()
    run.end()
    assert run.verified().is_whole, "whoever can write to all of it can make it anew"
    assert kinds(run.verified(head)) == {Fault.ABSENT}


def test_clips_of_which_only_the_ledger_tells_are_found_unless_they_are_older_than_the_log(run: Run) -> None:
    ledger = Ledger(run.store)
    old = run._record(Task("e" * 32, "old", "", 7)).model_copy(update={"finished_at": "2020-01-01T00:00:00+00:00"})
    ledger.write(old)
    run.end()
    report = run.verified()
    assert (report.faults, report.notes) == ((), ("1 clips are older than the log: no record tells of them",))
    ledger.write(run._record(Task("d" * 32, "unseen", "", 7)))
    assert kinds(run.verified()) == {Fault.ABSENT}


def test_another_clip_in_the_ledger_than_the_log_has_is_found(run: Run) -> None:
    run.actor("a")
    run.end()
    (segment,) = [info.key for info in run.store.list("ledger/records/")]
    told = json.loads(run.store.get(segment))
    told["clip"]["sha256"] = "9" * 64
    run.store.put(segment, json.dumps(told).encode())
    assert kinds(run.verified()) == {Fault.CONTRADICTED}


def test_long_chains_are_folded_when_a_run_ends_and_stay_whole(run: Run) -> None:
    trail = run.actor()
    for _ in range(201):
        run.render(trail, "a")
    assert len(run.segments(Action.CHAIN_OPENED)) == 201
    head = run.end()
    assert len(run.segments(Action.CHAIN_OPENED)) == 1
    report = run.verified(head)
    assert (report.faults, report.records) == ((), 3 + 202)


def test_a_prompt_is_erased_from_all_chains_and_the_log_tells_of_it(run: Run) -> None:
    run.actor("a secret", "b")
    run.end()
    log = RunAuditLog(run.store)
    task_id = f"{1:032x}"
    assert log.erase(f"task:{task_id}", 1.8e9, "user:me@here") == 1
    assert log.erase(f"task:{task_id}", 1.8e9, "user:me@here") == 0
    assert not [info.key for info in run.store.list("audit/") if b"secret" in run.store.get(info.key)]
    assert log.verify().is_whole
    found = {record.entry.action: prompt for _, record, prompt in log.records(AuditFilter(subject=f"task:{task_id}"))}
    assert found == {Action.TASK_SUCCEEDED: None, Action.PROMPT_ERASED: None}
    run.begin()
    assert len(log.heads()) == 3, "two of runs, and one that tells of the erasure"


def test_an_export_is_checked_again_and_what_was_changed_in_it_is_found(run: Run, tmp_path: Path) -> None:
    run.actor("a", "b")
    head = run.end()
    path = tmp_path / "audit.jsonl"
    with path.open("wb") as file:
        write_jsonl((Line(*found) for found in RunAuditLog(run.store).records(AuditFilter())), file)
    assert ExportedLog(path).verify([head]).is_whole
    path.write_bytes(path.read_bytes().replace(b'"variant":"v"', b'"variant":"w"', 1))
    assert kinds(ExportedLog(path).verify()) == {Fault.ALTERED}
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    assert Fault.UNREADABLE in kinds(ExportedLog(path).verify())
    with pytest.raises(ConfigError, match="an export"):
        ExportedLog(path).erase("x", 0.0, "me")


def test_a_folder_without_a_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no audit log"):
        RunAuditLog(open_store(str(tmp_path))).verify()


def test_what_a_manifest_held_is_told_by_the_digest_of_its_files(run: Run) -> None:
    from pipelines.read import find_chunks

    manifest = Path(run.options.manifest)
    manifest.write_text('{"prompt": "a"}\n')
    digests = []
    for text in ('{"prompt": "a"}\n', '{"prompt": "b"}\n'):
        manifest.write_text(text)
        log = RunLog(run.store, run.options, run.config)
        entry = log._started(PLAN, shipped_catalog(), find_chunks(str(manifest)), "").entry
        digests.append(entry.details["manifest_sha256"])
        assert digests[-1] == sha256(text.encode()).hexdigest()
        assert "sha256=" in entry.details["files"][0]  # type: ignore[index]
    assert digests[0] != digests[1]


def test_the_anchor_of_a_run_is_signed(run: Run) -> None:
    run.end()
    ((_, anchor),) = stored_anchors(run.store)
    assert anchor is not None
    assert anchor.signature
