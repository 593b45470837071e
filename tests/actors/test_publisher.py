"""From frames to one clip and its record, whatever happens in between. A real folder store."""

import hashlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from actors.encoder import read_metadata
from actors.publisher import Publisher
from actors.renderer import Rendered, TaskFailure
from schemas.catalog import Variant
from schemas.clip import Record, Status
from schemas.errors import CancelledError, RenderError, StorageUnavailableError
from storage.store import ObjectStore, open_store
from tests.models.tiny_variants import group_of, task_of, tiny_variant

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "out"))


@pytest.fixture
def variant() -> Variant:
    return tiny_variant("wan", Path("/weights"), needs={"gpus": 2}, price_usd_per_gpu_hour=7.2)


@pytest.fixture
def publisher(store: ObjectStore, variant: Variant) -> Publisher:
    return Publisher(store, variant, "abc", now=lambda: NOW)


def rendered(variant: Variant, prompt: str = "a", clip_format: str = "mp4", render_s: float = 10.0) -> Rendered:
    group = group_of(variant, clip_format=clip_format)
    frames = np.random.default_rng(len(prompt)).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    return Rendered(task_of(group, prompt, 7), group, frames, render_s=render_s, lost_s=1.0, attempts=2)


def objects(store: ObjectStore) -> list[str]:
    return sorted(info.key for info in store.list())


def path_of(uri: str | None) -> Path:
    assert uri is not None
    return Path(uri.removeprefix("file://"))


def test_a_clip_and_its_poster_are_stored_and_told_of(
    store: ObjectStore, publisher: Publisher, variant: Variant
) -> None:
    done = rendered(variant)
    record = publisher.publish(done, queue_s=1.5, load_s=2.5, attempts=1)
    fingerprint = done.task.fingerprint
    folder = f"clips/tiny-wan/{fingerprint[:2]}/{fingerprint}"
    assert objects(store) == [f"{folder}.mp4", f"{folder}.poster.jpg"]
    assert record.status is Status.SUCCEEDED
    assert (record.variant, record.revision, record.seed, record.attempts) == ("tiny-wan", "abc", 7, 3)
    assert record.clip is not None
    data = path_of(record.clip.uri).read_bytes()
    assert record.clip.sha256 == hashlib.sha256(data).hexdigest()
    assert record.clip.clip_bytes == len(data)
    assert (record.clip.width, record.clip.height, record.clip.frames, record.clip.fps) == (32, 32, 5, 8)
    assert path_of(record.clip.poster_uri).read_bytes()[:3] == b"\xff\xd8\xff"
    assert record.timings.queue_s == 1.5
    assert record.timings.load_s == 2.5
    assert record.timings.encode_s > 0
    assert record.timings.store_s > 0
    assert record.finished_at == "2026-01-02T03:04:05.678+00:00"


def test_the_bill_is_for_the_time_that_the_task_held_the_accelerators(publisher: Publisher, variant: Variant) -> None:
    record = publisher.publish(rendered(variant), load_s=4.0)
    assert record.timings.render_s == 10.0
    held_s = 10.0 + 1.0 + 4.0  # its clip, a call that was lost, its share of the load
    assert record.billed_gpu_s == pytest.approx(2 * held_s)  # two accelerators
    assert record.billed_usd == pytest.approx(held_s / 3600 * 7.2)  # the price is of both together


def test_the_file_says_what_it_is(publisher: Publisher, variant: Variant) -> None:
    record = publisher.publish(rendered(variant))
    assert record.clip is not None
    inside = read_metadata(path_of(record.clip.uri))
    assert inside["prompt"] == "a"
    assert inside["seed"] == 7
    assert inside["variant"] == "tiny-wan"
    assert inside["revision"] == "abc"
    assert inside["group"]["steps"] == 3
    assert inside["timings"]["render_s"] == 10.0


@pytest.mark.parametrize(("clip_format", "suffix"), [("webm", "webm"), ("gif", "gif"), ("png", "zip")])
def test_other_formats_have_their_own_suffix(
    publisher: Publisher, variant: Variant, clip_format: str, suffix: str
) -> None:
    record = publisher.publish(rendered(variant, clip_format=clip_format))
    assert record.clip is not None
    assert record.clip.uri.endswith(f".{suffix}")


def test_publishing_again_keeps_the_first_file_and_describes_it(
    store: ObjectStore, publisher: Publisher, variant: Variant
) -> None:
    first = publisher.publish(rendered(variant))
    again = publisher.publish(rendered(variant, render_s=99.0))  # another attempt, with other seconds in its file
    assert first.clip == again.clip
    assert len([key for key in objects(store) if key.endswith(".mp4")]) == 1


class Unreliable:
    """A real store whose calls of `put` fail where a script says so."""

    def __init__(self, inner: ObjectStore, fails: Callable[[str, int], bool]) -> None:
        self._inner = inner
        self._fails = fails
        self.puts: list[str] = []

    def put(self, key: str, data: bytes | Path, content_type: str = "", if_absent: bool = False) -> bool:
        self.puts.append(key)
        if self._fails(key, len(self.puts)):
            raise StorageUnavailableError("503")
        return self._inner.put(key, data, content_type, if_absent)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@pytest.mark.parametrize("broken_put", [1, 2])
def test_wherever_the_store_goes_away_a_second_publish_completes_it(
    store: ObjectStore, variant: Variant, broken_put: int
) -> None:
    flaky = Unreliable(store, lambda _, count: count == broken_put)
    publisher = Publisher(flaky, variant, "abc")  # type: ignore[arg-type]
    done = rendered(variant)
    with pytest.raises(StorageUnavailableError):
        publisher.publish(done)
    record = publisher.publish(done)
    assert record.clip is not None
    assert record.clip.sha256 == hashlib.sha256(path_of(record.clip.uri).read_bytes()).hexdigest()
    assert len(objects(store)) == 2


def test_a_clip_means_that_its_poster_is_there(store: ObjectStore, variant: Variant) -> None:
    order = Unreliable(store, lambda *_: False)
    Publisher(order, variant, "abc").publish(rendered(variant))  # type: ignore[arg-type]
    assert ["poster" if "poster" in key else "clip" for key in order.puts] == ["poster", "clip"]


def test_many_threads_publish_many_clips(store: ObjectStore, publisher: Publisher, variant: Variant) -> None:
    prompts = [f"prompt {'x' * k}" for k in range(6)]
    threads = [threading.Thread(target=publisher.publish, args=(rendered(variant, p),)) for p in prompts * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([key for key in objects(store) if key.endswith(".mp4")]) == 6


def test_a_failure_is_recorded_and_not_billed(store: ObjectStore, publisher: Publisher, variant: Variant) -> None:
    group = group_of(variant)
    failure = TaskFailure(task_of(group, "a"), group, RenderError("ValueError: no"), lost_s=4.0, attempts=2)
    record: Record = publisher.record_failure(failure, attempts=1, quarantined=True)
    assert record.status is Status.FAILED
    assert (record.error_class, record.error) == ("RenderError", "ValueError: no")
    assert (record.attempts, record.quarantined) == (3, True)
    assert (record.billed_gpu_s, record.billed_usd) == (0.0, 0.0)
    assert record.clip is None
    account = json.loads(store.get(f"failures/{record.fingerprint}.json"))
    assert (account["prompt"], account["error"]) == ("a", "ValueError: no")


def test_a_cancelled_task_is_recorded_as_cancelled(publisher: Publisher, variant: Variant) -> None:
    group = group_of(variant)
    failure = TaskFailure(task_of(group, "a"), group, CancelledError("nobody wants it"))
    assert publisher.record_failure(failure).status is Status.CANCELLED
