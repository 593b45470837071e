"""What the dispatcher does for the audit log: chains what was told, takes anchors, drops old ones."""

import threading
from pathlib import Path

import pytest

from actors.audit_trail import stored_anchors
from schemas.audit import AuditSettings, Head
from schemas.errors import StorageUnavailableError
from serve.audit_log import EndpointAuditLog
from serve.config import ServeConfig
from serve.dispatch.audit_chainer import AuditChainer
from serve.store.contract import Store
from serve.store.cutoffs import Cutoffs
from storage import keys
from storage.address import FolderAddress
from storage.local import LocalStore
from storage.objects import ObjectStore
from tests.serve.store.samples import NOW, ended, submitted
from trust.audit_chain import Fault


class Clock:
    at = NOW

    def __call__(self) -> float:
        return self.at


def chainer(store: Store, objects: ObjectStore, clock: Clock) -> AuditChainer:
    return AuditChainer(store, objects, ServeConfig(audit=AuditSettings(anchor_s=60)), clock)


def positions(objects: ObjectStore) -> list[int]:
    return [anchor.position for _, anchor in stored_anchors(objects) if anchor is not None]


def test_what_waits_is_chained_and_anchored_as_often_as_was_set(store: Store, objects: ObjectStore) -> None:
    clock = Clock()
    one = chainer(store, objects, clock)
    assert one.run_once() == 0
    assert positions(objects) == [], "there is nothing to vouch for"
    ended(store, submitted(store)[0])
    clock.at += 59
    assert (one.run_once(), store.audit.waiting()) == (3, 0)
    assert positions(objects) == []
    clock.at += 1
    one.run_once()
    submitted(store)
    clock.at += 59
    one.run_once()
    assert positions(objects) == [3]
    clock.at += 1
    one.run_once()
    assert positions(objects) == [3, 4]
    clock.at += 60
    one.run_once()
    assert positions(objects) == [3, 4], "nothing new, no new anchor"
    report = EndpointAuditLog(store, objects).verify()
    assert (report.faults, report.anchors, report.chains[0].anchored) == ((), 2, 4)
    assert report.signers == ("Rushes development certificate",)


def test_an_anchor_that_was_forged_or_damaged_is_told_of(store: Store, objects: ObjectStore) -> None:
    submitted(store)
    chainer(store, objects, Clock()).run_once()
    ((key, anchor),) = stored_anchors(objects)
    assert anchor is not None
    forged = anchor.model_copy(update={"hash": "0" * 64})
    objects.put(key, forged.model_dump_json().encode())
    log = EndpointAuditLog(store, objects)
    assert [one.fault for one in log.verify().faults] == [Fault.FORGED]
    objects.put(key, forged.model_copy(update={"signature": "", "certificates": ""}).model_dump_json().encode())
    assert [one.fault for one in log.verify().faults] == [Fault.REWRITTEN], "unsigned, it is held against the log"
    objects.put(key, b"{")
    assert [one.fault for one in log.verify().faults] == [Fault.FORGED]


def test_anchors_of_what_was_pruned_go_and_that_of_the_floor_stays(store: Store, objects: ObjectStore) -> None:
    clock = Clock()
    one = chainer(store, objects, clock)
    for _ in range(3):
        submitted(store)
        one.run_once()
        clock.at += 60
    store.prune(Cutoffs(audit=NOW + 1), limit=2)
    one.run_once()
    assert positions(objects) == [2, 3, 4]
    assert EndpointAuditLog(store, objects).verify().is_whole


def test_a_store_that_is_away_is_tried_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(LocalStore):
        away = True

        def put(self, *args, **more):  # type: ignore[no-untyped-def]
            if self.away:
                raise StorageUnavailableError("the server is away")
            return super().put(*args, **more)

    objects = Away(FolderAddress(tmp_path / "away"))
    submitted(store)
    one = chainer(store, objects, Clock())
    stop = threading.Event()
    stop.set()
    one.run(stop)
    assert (store.audit.waiting(), positions(objects)) == (0, [])
    objects.away = False
    one.run(stop)
    assert positions(objects) == [1]


def test_another_log_in_the_same_folder_is_seen(store: Store, objects: ObjectStore) -> None:
    submitted(store)
    chainer(store, objects, Clock()).run_once()
    objects.put(
        keys.audit_anchor("ab" * 32, 1), b'{"log":"%s","position":1,"hash":"x","at":"2026-01-01"}' % (b"ab" * 32)
    )
    report = EndpointAuditLog(store, objects).verify([Head("cd" * 32, 1, "0" * 64)])
    assert [one.fault for one in report.faults] == [Fault.FOREIGN, Fault.FOREIGN]
