"""What is done to a clip after it was rendered, by the worker with a real tiny model and a real folder of clips."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.decoder import read_frames
from actors.provenance import open_provenance, stage_edits
from actors.publisher import Publisher
from actors.renderer import Renderer, TaskFailure
from actors.work import WorkBatch, WorkItem
from actors.worker import Worker, WorkerSettings
from models.finishing import Finishing
from models.loaded import LoadedModel
from models.model import Frames, TaskMedia
from schemas.clip import ClipFormat, Record, Status
from schemas.errors import ConfigError, RushesError
from schemas.finish import FLOOR, FinishStage, chained, read_steps, resolved_finish
from schemas.task import Group, Task
from schemas.trust import CredentialsMode, TrustSettings
from storage import keys
from storage.store import ObjectStore, open_store
from tests.actors.scripted_link import WAIT_S, ScriptedLink
from tests.actors.scripted_model import ScriptedModel
from tests.models.conftest import TinyModel
from tests.models.tiny_variants import batch_of, group_of
from trust.credentials import read_credentials

ALL_THREE = [{"interpolate": 16}, {"upscale": 2}, {"fit": "pad", "size": "160:128"}]


class NoMedia:
    def read(self, group: Group, tasks: Sequence[Task]) -> list[TaskMedia | RushesError]:
        return [TaskMedia()] * len(tasks)


class Counting(Finishing):
    """Counts what is done; `fails` is the operation that raises, once."""

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.done: list[str] = []
        self.fails = fails

    def apply(self, stage: FinishStage, frames: Frames, fps: float) -> Frames:
        if stage.operation == self.fails:
            self.fails = ""
            raise ConfigError("scripted")
        self.done.append(stage.operation.value)
        return super().apply(stage, frames, fps)


@pytest.fixture(scope="module")
def wan(tiny_model: TinyModel) -> LoadedModel:
    return tiny_model("wan")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


Run = Callable[..., Record]


@pytest.fixture
def run(wan: LoadedModel, store: ObjectStore) -> Iterator[Run]:
    workers: list[Worker[WorkItem]] = []

    def run(
        told: Any, *, finishing: Finishing | None = None, model: Any = None, names: Any = keys.BULK_NAMES, **more: Any
    ) -> Any:
        link = ScriptedLink()
        publisher = Publisher(store, wan.variant, "r", finishing=finishing or Counting(), names=names, **more)
        worker = Worker(Renderer(model or wan), publisher, NoMedia(), link, WorkerSettings(stall_s=60.0))
        workers.append(worker)
        worker.start()
        link.work.put(work(wan, told))
        return link.results(1)["a"].end

    yield run
    for worker in workers:
        worker.stop(WAIT_S)


def work(wan: LoadedModel, told: Any) -> WorkBatch[WorkItem]:
    batch = batch_of(group_of(wan.variant, steps=2), "a")
    (task,) = batch.tasks
    stages = stages_of(told, batch.group)
    group = batch.group.model_copy(update={"finish": stages})
    group = Group.model_validate(group.model_dump())
    task = replace(task, fingerprint=chained(task.fingerprint, stages), base=task.fingerprint if stages else "")
    return WorkBatch(group, (WorkItem(task, 40.0),))


def stages_of(told: Any, group: Group) -> tuple[FinishStage, ...]:
    steps, wrong = read_steps(told)
    stages, issues = resolved_finish(steps, group.shape, group.fps, FLOOR)
    assert not (*wrong, *issues)
    return stages


def frames_of(store: ObjectStore, record: Record) -> Frames:
    assert record.clip is not None
    data = store.get(keys.clip(record.variant, record.fingerprint))
    return np.stack([np.asarray(image) for image in read_frames(data, ClipFormat.MP4)])


def test_a_window_moves_through_the_clip_that_the_model_made(run: Run, store: ObjectStore, wan: LoadedModel) -> None:
    told = [{"reframe": [{"at_s": 1, "pan": 8}]}]
    record = run(told)
    assert record.status is Status.SUCCEEDED
    (below,) = record.before
    (stage,) = stages_of(told, group_of(wan.variant, steps=2))
    made, shown = frames_of(store, below), frames_of(store, record)
    assert shown.shape[2] < made.shape[2]
    wanted = Finishing().apply(stage, made, 8.0).astype(float)
    assert np.abs(shown - wanted).mean() < 6, "but for the codec"
    assert stage_edits(stage)[0].action == "c2pa.cropped"


def test_each_stage_makes_a_clip_of_its_own_and_the_last_is_the_tasks(
    run: Run, store: ObjectStore, wan: LoadedModel
) -> None:
    record = run(ALL_THREE)
    assert isinstance(record, Record)
    assert record.status is Status.SUCCEEDED
    plain = group_of(wan.variant, steps=2)
    assert record.clip is not None
    shown = (record.clip.width, record.clip.height, record.clip.frames, record.clip.fps)
    assert shown == (160, 128, 2 * plain.frames, 16.0)
    assert frames_of(store, record).shape == (2 * plain.frames, 128, 160, 3)
    sizes = [(one.clip.width, one.clip.frames) for one in record.before if one.clip]
    assert sizes == [(32, plain.frames), (32, 2 * plain.frames), (64, 2 * plain.frames)]
    # The clip below is the very one that a task has to which nothing is done.
    alone = run([])
    assert alone.fingerprint == record.before[0].fingerprint
    # What was done is billed to the task, what was stored on the way is not billed twice.
    assert record.timings.finish_s > 0
    assert all(one.billed_gpu_s == 0 for one in record.before)


class Called(ScriptedModel):
    """Counts its calls."""

    count = 0

    def render(self, *given: Any) -> Any:
        self.count += 1
        return super().render(*given)


@pytest.mark.parametrize("names", [keys.BULK_NAMES, keys.TASK_NAMES], ids=["bulk", "endpoint"])
def test_a_stage_that_is_done_is_never_done_again(run: Run, wan: LoadedModel, names: Any) -> None:
    model, first = Called(wan), Counting(fails="upscale")
    failed = run(ALL_THREE, finishing=first, model=model, names=names)
    assert isinstance(failed, TaskFailure)
    assert (first.done, model.count) == (["interpolate"], 1)
    again = Counting()
    record = run(ALL_THREE, finishing=again, model=model, names=names)
    assert (again.done, model.count) == (["upscale", "fit"], 1)
    assert record.clip is not None
    assert record.timings.render_s == 0


def test_in_one_go_or_resumed_the_pixels_are_the_same(run: Run, store: ObjectStore) -> None:
    whole = run(ALL_THREE)
    pixels = frames_of(store, whole)
    # Its own clip is gone, and all but the first below it: as after a crash.
    store.delete([keys.clip(one.variant, one.fingerprint) for one in (whole, *whole.before[1:])])
    again = Counting()
    resumed = run(ALL_THREE, finishing=again)
    assert again.done == ["interpolate", "upscale", "fit"]
    assert [one.fingerprint for one in resumed.before] == [one.fingerprint for one in whole.before[1:]]
    np.testing.assert_array_equal(frames_of(store, resumed), pixels)


def cut_off(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


@pytest.mark.parametrize("damage", [cut_off, flipped])
def test_a_clip_on_the_way_that_is_damaged_is_made_again(
    run: Run, store: ObjectStore, wan: LoadedModel, damage: Callable[[bytes], bytes]
) -> None:
    whole = run(ALL_THREE)
    records = {one.fingerprint: one for one in whole.before}
    base, smooth, large = (keys.clip(one.variant, one.fingerprint) for one in whole.before)
    store.delete([keys.clip(whole.variant, whole.fingerprint), smooth])
    store.put(large, damage(store.get(large)))
    store.put(base, damage(store.get(base)))
    model, again = Called(wan), Counting()
    assert isinstance(run(ALL_THREE, finishing=again, model=model, recorded=records.get), Record)
    assert (again.done, model.count) == (["interpolate", "upscale", "fit"], 1)


def test_the_credentials_tell_what_was_done(run: Run, store: ObjectStore, tmp_path: Path) -> None:
    provenance = open_provenance(TrustSettings(credentials=CredentialsMode.ON), tmp_path / "state")
    record = run([{"interpolate": 16}, {"fit": "crop", "size": "64:48"}], provenance=provenance)
    path = tmp_path / "clip.mp4"
    store.download(keys.clip(record.variant, record.fingerprint), path)
    found = read_credentials(path)
    assert found is not None
    assert found.state == "valid"
    assert found.actions == ("c2pa.created", "c2pa.edited", "c2pa.resized", "c2pa.cropped")


def test_a_finished_clip_costs_what_its_finishers_cost(run: Run, wan: LoadedModel) -> None:
    dear = {name: one.model_copy(update={"price_usd_per_hour": 3600.0}) for name, one in FLOOR.items()}
    record = run([{"upscale": 2}], finishing=Finishing(dear))
    assert record.billed_finish_usd == pytest.approx(record.timings.finish_s, abs=1e-3)
    assert record.billed_usd >= record.billed_finish_usd > 0
