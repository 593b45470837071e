"""Chains of processes: one each, begun with the first entry, of which the run's own chain tells."""

import threading
from pathlib import Path
from typing import Any

import pytest

from actors.audit_trail import (
    RunAudit,
    Trail,
    actor_trail,
    drop_anchors,
    heads_in,
    put_anchor,
    stored_anchors,
    task_ended,
    untold_heads,
)
from schemas.audit import Action, AuditPrompts, Entry, Head, Told, details, instant
from schemas.clip import Clip, Record, Status
from schemas.errors import StorageUnavailableError
from schemas.task import Task
from storage import keys
from storage.address import FolderAddress
from storage.audit_segments import AuditSegments, Line
from storage.local import LocalStore
from storage.store import ObjectStore, open_store
from tests.trust.chains import check_chain
from trust.redaction import matches, words_of

RUN_HEAD = Head("ab" * 32, 1, "cd" * 32)
RUN = RunAudit("r1", "user:me@here", AuditPrompts.KEEP, RUN_HEAD)
TASK = Task("f" * 32, "a fox", "blurry", 7)


class FailingStore(LocalStore):
    """A folder of which a write may be lost, or its answer."""

    fails = ""

    def put(self, key: str, data: bytes | Path, *args: Any, **more: Any) -> bool:
        if self.fails == "before":
            raise StorageUnavailableError("the server is away")
        stored = super().put(key, data, *args, **more)
        if self.fails == "after":
            raise StorageUnavailableError("no answer came")
        return stored


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def entry(action: Action = Action.TASK_FAILED, **more: object) -> Told:
    told = {"at": instant(1e9), "actor": "user:me@here", "action": action, "subject": "task:x", **more}
    return Told(Entry.model_validate(told))


def lines(store: ObjectStore) -> dict[str, list[Line]]:
    segments = AuditSegments(store)
    found = {chain: list(segments.lines(keys)) for chain, keys in segments.chains().items()}
    return {chain: [line for line in some if isinstance(line, Line)] for chain, some in found.items()}


def record(status: Status = Status.SUCCEEDED) -> Record:
    clip = Clip(uri="s3://b/c.mp4", sha256="0" * 64, clip_bytes=1, width=8, height=8, frames=1, fps=8.0, signed_by="Me")
    failed = {} if status is Status.SUCCEEDED else {"error": "no memory", "error_class": "OutOfMemoryError"}
    made = clip if status is Status.SUCCEEDED else None
    return Record(
        fingerprint=TASK.fingerprint, status=status, variant="v", seed=7, clip=made, billed_usd=0.25, **failed
    )


def test_a_process_that_did_nothing_leaves_nothing(store: ObjectStore) -> None:
    actor_trail(store, RUN, "p1").tell([])
    assert lines(store) == {}


def test_an_actors_chain_begins_by_the_head_of_its_run_and_has_one_object_a_batch(store: ObjectStore) -> None:
    trail = actor_trail(store, RUN, "p1")
    trail.tell([task_ended(TASK, record(), RUN, 1e9), task_ended(TASK, record(Status.FAILED), RUN, 1e9)])
    trail.tell([task_ended(TASK, record(), RUN, 1e9, found=True)])
    ((_, segments),) = AuditSegments(store).chains().items()
    assert [keys.audit_segment_of(key)[1:] for key in segments] == [(1, 3), (4, 1)]  # type: ignore[index]
    ((_, found),) = lines(store).items()
    opened, done, failed, again = (line.record.entry for line in found)
    assert (opened.action, opened.details["process"], list(heads_in(found[0]))) == (
        Action.CHAIN_OPENED,
        "p1",
        [RUN_HEAD],
    )
    assert (done.action, done.decision, done.details["billed_usd"]) == (Action.TASK_SUCCEEDED, "SUCCEEDED", "0.250000")
    assert done.clip is not None
    assert (done.clip.sha256, done.details["signed_by"]) == ("0" * 64, "Me")
    assert (failed.action, failed.decision, failed.reason) == (Action.TASK_FAILED, "OutOfMemoryError", "no memory")
    assert "died" in again.reason
    assert matches(done.prompt_sha256, found[1].prompt, words_of("a fox", "blurry"))
    report = check_chain([line.record for line in found], Head.opened(trail.head.log), (), trail.head)
    assert report.faults == ()


def test_redacted_prompts_are_nowhere(store: ObjectStore) -> None:
    run = RunAudit("r1", "user:me@here", AuditPrompts.REDACT, RUN_HEAD)
    actor_trail(store, run, "p1").tell([task_ended(TASK, record(), run, 1e9)])
    assert not [key for key in store.list("audit/") if b"fox" in store.get(key.key)]


@pytest.mark.parametrize("fails", ["before", "after"])
def test_after_a_write_of_which_nobody_knows_another_chain_begins(tmp_path: Path, fails: str) -> None:
    """Whether the lost segment is there or not, none of the chains has two ends."""
    store = FailingStore(FolderAddress(tmp_path))
    trail = actor_trail(store, RUN, "p1")
    trail.tell([entry()])
    store.fails = fails
    with pytest.raises(StorageUnavailableError):
        trail.tell([entry(), entry()])
    store.fails = ""
    trail.tell([entry()])
    found = lines(store)
    assert len(found) == 2
    for some in found.values():
        assert check_chain([line.record for line in some], Head.opened(some[0].log)).faults == ()
        assert some[0].record.entry.action is Action.CHAIN_OPENED


def test_threads_of_a_process_share_its_chain(store: ObjectStore) -> None:
    trail = Trail(store)
    threads = [threading.Thread(target=lambda: [trail.tell([entry()]) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((_, found),) = lines(store).items()
    assert check_chain([line.record for line in found], Head.opened(trail.head.log), (), trail.head).faults == ()
    assert len(found) == 40


def test_heads_of_which_no_run_told_yet(store: ObjectStore) -> None:
    actor = actor_trail(store, RUN, "p1")
    actor.tell([entry()])
    first = Trail(store)
    first.tell([entry(Action.RUN_STARTED, details=details(heads=untold_heads(store)))])
    assert untold_heads(store) == [str(first.head)], "the actor's is told of; nobody told of the run's own"
    actor.tell([entry()])
    assert set(untold_heads(store)) == {str(first.head), str(actor.head)}, "it went on since"
    second = Trail(store)
    second.tell([entry(Action.RUN_STARTED, details=details(heads=untold_heads(store)))])
    assert untold_heads(store) == [str(second.head)]


def test_a_signer_that_fails_costs_the_signature_and_not_the_anchor(store: ObjectStore) -> None:
    class Broken:
        algorithm, certificates = "es256", ""

        def sign(self, data: bytes) -> bytes:
            raise OSError("the KMS is away")

    assert put_anchor(store, Head("ab" * 32, 1, "1" * 64), 1e9, Broken()).signature == ""
    assert len(list(stored_anchors(store))) == 1


def test_the_first_anchor_of_a_place_stays_and_old_ones_can_be_dropped(store: ObjectStore) -> None:
    for position in (1, 2, 3):
        put_anchor(store, Head("ab" * 32, position, f"{position}" * 64), 1e9, None)
    put_anchor(store, Head("ab" * 32, 2, "f" * 64), 1e9, None)
    store.put(keys.audit_anchor("cd" * 32, 1), b"damaged")
    found = list(stored_anchors(store))
    assert [anchor and anchor.hash[0] for _, anchor in found] == ["1", "2", "3", None]
    assert drop_anchors(store, "ab" * 32, 3) == 2
    assert [anchor and anchor.position for _, anchor in stored_anchors(store)] == [3, None]
