"""Inputs go when they are old and nobody reads them, and are young again when they are sent again."""

import asyncio
import base64
import time
from pathlib import Path

import pytest

from schemas.clip import Status
from schemas.request import Request
from serve.config import DAY_S, ServeConfig
from serve.media.inputs import sweep
from serve.media.intake import Intake
from serve.store.contract import ApiKey, Batch, Store
from storage import keys
from storage.objects import ObjectStore
from tests.serve.media import samples
from tests.serve.store.samples import NOW, new_task, success

KEY = ApiKey(id="key_1", name="a", created_at=0.0)
KEEP_S = DAY_S


@pytest.fixture
def later() -> float:
    return time.time() + KEEP_S + 60


def put(objects: ObjectStore, name: str) -> str:
    key = keys.media_input(name, "png")
    objects.put(key, b"data")
    return objects.uri(key)


def left(objects: ObjectStore) -> list[str]:
    return sorted(info.key for info in objects.list())


def test_what_is_old_and_nobody_reads_is_removed(store: Store, objects: ObjectStore, later: float) -> None:
    waits, ended = put(objects, "waits"), put(objects, "ended")
    put(objects, "no task has it")
    objects.put("clips/old.png", b"no input")
    store.tasks.submit([new_task(request=Request(prompt="x", image=waits))], NOW)
    (over,) = store.tasks.submit([new_task(request=Request(prompt="x", video=ended))], NOW).tasks
    (lease,) = store.tasks.lease([over.seq], "r", "v", NOW + 9, NOW)
    assert store.tasks.finish(over.id, lease.epoch, success(), NOW + 1) is Status.SUCCEEDED
    assert sweep(store, objects, KEEP_S, time.time()) == 0, "nothing is old"
    assert sweep(store, objects, KEEP_S, later) == 2
    assert left(objects) == ["clips/old.png", "inputs/waits.png"]


def test_nothing_is_removed_while_a_bulk_run_goes_on(store: Store, objects: ObjectStore, later: float) -> None:
    put(objects, "in its manifest")
    store.batches.create(Batch("b", "key-a", NOW, 1, 0.0, Status.RUNNING, run_uri="file:///run"))
    assert sweep(store, objects, KEEP_S, later) == 0
    store.batches.update("b", Status.SUCCEEDED, {}, 0.0, NOW)
    assert sweep(store, objects, KEEP_S, later) == 1


def test_an_input_that_is_sent_again_is_young_again(store: Store, objects: ObjectStore, tmp_path: Path) -> None:
    now = [time.time()]
    config = ServeConfig(out=str(tmp_path / "out"))
    intake = Intake(config, store, objects, now=lambda: now[0])
    uri = "data:image/png;base64," + base64.b64encode(samples.image("PNG")).decode()

    def take() -> float:
        asyncio.run(intake.take(uri, "image", KEY, "promptImage"))
        (info,) = objects.list(keys.INPUTS)
        return info.modified.timestamp()

    first = take()
    assert take() == first, "while it is young it is left alone"
    now[0] += 0.6 * config.media.keep_inputs_s
    assert take() > first
