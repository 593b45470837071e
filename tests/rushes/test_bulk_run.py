"""One attempt at a bulk run of an endpoint: what it renders, what it says in the store, and when it stops."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.topology import Topology
from rushes.bulk_run import BulkRun
from schemas.clip import Status
from serve.bulk import BulkOptions, Hold
from serve.config import ServeConfig
from serve.store.contract import ApiKey, Batch, Store
from serve.store.engine import open_store
from storage import keys
from storage.store import open_store as open_objects
from tests.pipelines.catalogs import TWO_VARIANTS

pytestmark = pytest.mark.ray

ROWS = [
    {"id": "one", "prompt": "a red circle", "variant": "small", "num_frames": 5, "seed": 1},
    {"id": "two", "prompt": "a red circle", "variant": "small", "num_frames": 5, "seed": 2},
    {"id": "three", "prompt": "a blue square", "variant": "swift", "num_frames": 5, "seed": 3},
    {"id": "bad", "prompt": "a blue square", "variant": "large"},
]


@pytest.fixture
def settings(tmp_path: Path) -> ServeConfig:
    (tmp_path / "catalog.toml").write_text(TWO_VARIANTS)
    return ServeConfig(out=str(tmp_path / "out"), catalog=str(tmp_path / "catalog.toml"))


@pytest.fixture
def store(settings: ServeConfig) -> Iterator[Store]:
    opened = open_store(settings.database_url)
    yield opened
    opened.close()


def begun(store: Store, folder: Path, key_id: str = "local", **options: object) -> Batch:
    """A batch whose attempt 'a' was launched."""
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    batch = Batch(
        "b1",
        key_id,
        time.time(),
        0,
        0.0,
        manifest_uri=str(folder / "m.jsonl"),
        run_uri=str(folder / "run"),
        details=BulkOptions(trusted=True, **options).as_details(),  # type: ignore[arg-type]
    )
    store.batches.begin(batch)
    Hold("a", time.time()).write(store, batch.id)
    return batch


def now_of(store: Store) -> Batch:
    batch = store.batches.get("b1")
    assert batch is not None
    return batch


def test_it_renders_its_manifest_and_says_so(
    store: Store, settings: ServeConfig, tmp_path: Path, ray_cluster: Topology
) -> None:
    batch = begun(store, tmp_path, max_concurrent=1)
    assert BulkRun(store, settings, batch, "a").work() == 0
    found = now_of(store)
    assert (found.status, found.total, found.failure) == (Status.SUCCEEDED, 4, "")
    assert found.counts == {"succeeded": 3, "failed": 0, "rejected": 1}
    held = Hold.read(store, "b1")
    assert held is not None
    assert (held.attempt, held.spoke) == ("a", True)
    plans = [info.key for info in open_objects(str(tmp_path / "run")).list(keys.PLAN)]
    assert plans
    assert all(key.split("/")[1].endswith("-a") for key in plans), "a plan folder of its own"


def test_more_rows_than_its_key_may_have_today_are_not_begun(
    store: Store, settings: ServeConfig, tmp_path: Path, ray_cluster: Topology
) -> None:
    store.keys.add(ApiKey("key-a", "a", 0.0, max_daily=3), "digest")
    batch = begun(store, tmp_path, "key-a")
    assert BulkRun(store, settings, batch, "a").work() == 0
    found = now_of(store)
    assert (found.status, found.counts) == (Status.FAILED, {})
    assert found.failure == "3 tasks a day, 0 made, 4 more asked for"


def test_a_run_that_is_quoted_above_its_limit_is_not_begun(
    store: Store, settings: ServeConfig, tmp_path: Path, ray_cluster: Topology
) -> None:
    dear = TWO_VARIANTS.replace("price_usd_per_gpu_hour = 2.0", "price_usd_per_gpu_hour = 90000.0")
    (tmp_path / "catalog.toml").write_text(dear)
    batch = begun(store, tmp_path, max_usd=0.01)
    assert BulkRun(store, settings, batch, "a").work() == 0
    assert (now_of(store).status, "more than the limit of $0.01" in now_of(store).failure) == (Status.FAILED, True)


def test_an_attempt_that_is_not_the_last_does_nothing(store: Store, settings: ServeConfig, tmp_path: Path) -> None:
    batch = begun(store, tmp_path)
    Hold("b", time.time()).write(store, batch.id)
    assert BulkRun(store, settings, batch, "a").work() == 0
    assert now_of(store).status is Status.PENDING
    assert not (tmp_path / "run").exists()


def test_a_manifest_that_cannot_be_read_is_a_reason(store: Store, settings: ServeConfig, tmp_path: Path) -> None:
    batch = begun(store, tmp_path)
    (tmp_path / "m.jsonl").unlink()
    assert BulkRun(store, settings, batch, "a").work() == 0
    assert (now_of(store).status, "m.jsonl" in now_of(store).failure) == (Status.FAILED, True)
