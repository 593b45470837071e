"""The worker with a real tiny model, a real folder of clips, and a link that is a script."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.publisher import Publisher
from actors.renderer import Renderer, TaskFailure
from actors.work import Stage, WorkBatch, WorkItem
from actors.worker import Worker, WorkerSettings
from models.loaded import LoadedModel
from models.model import Model, TaskMedia
from schemas.clip import Record, Status
from schemas.errors import CancelledError, MediaError, PublishError, QuarantinedError, RushesError, StorageError
from schemas.task import Group, RenderBatch, Task
from storage.store import ObjectStore, open_store
from tests.actors.scripted_link import WAIT_S, ScriptedLink
from tests.actors.scripted_model import ScriptedModel
from tests.models.conftest import TinyModel
from tests.models.tiny_variants import batch_of, group_of

SETTINGS = WorkerSettings(stall_s=60.0)


class NoMedia:
    """A reader for tasks that bring nothing; `on_read` is called first."""

    def __init__(self, on_read: Callable[[Sequence[Task]], None] = lambda tasks: None) -> None:
        self.on_read = on_read

    def read(self, group: Group, tasks: Sequence[Task]) -> list[TaskMedia | RushesError]:
        self.on_read(tasks)
        return [TaskMedia()] * len(tasks)


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at

    def add(self, seconds: float) -> None:
        self.at += seconds


class ScriptedStore:
    """A real store; `on_put` is called with each key first."""

    def __init__(self, inner: ObjectStore, on_put: Callable[[str], None]) -> None:
        self._inner, self._on_put = inner, on_put

    def put(self, key: str, data: bytes | Path, content_type: str = "", if_absent: bool = False) -> bool:
        self._on_put(key)
        return self._inner.put(key, data, content_type, if_absent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class InStep(ScriptedModel):
    """Calls `on_call` with the batch before each call, and `on_step` with (cancelled, steps done) after each step."""

    def __init__(self, inner: Model, on_step: Any = None, on_call: Any = None, before_step: Any = None) -> None:
        super().__init__(inner)
        self._step, self._call, self._before_step = on_step, on_call, before_step

    def render(self, batch: RenderBatch, media: Any, on_step: Any, cancelled: Any) -> Any:
        if self._call is not None:
            self._call(batch)

        def step(done: int, total: int) -> None:
            if self._before_step is not None:
                self._before_step()
            on_step(done, total)
            if self._step is not None:
                self._step(cancelled, done)

        return super().render(batch, media, step, cancelled)


@pytest.fixture(scope="module")
def wan(tiny_model: TinyModel) -> LoadedModel:
    return tiny_model("wan")


@pytest.fixture
def link() -> ScriptedLink:
    return ScriptedLink()


Run = Callable[..., Worker[WorkItem]]


@pytest.fixture
def run(tmp_path: Path, link: ScriptedLink) -> Iterator[Run]:
    workers: list[Worker[WorkItem]] = []

    def started(
        model: Model, *, on_put: Any = None, media: Any = None, clock: Any = time.perf_counter, **settings: Any
    ) -> Worker[WorkItem]:
        folder = open_store(str(tmp_path))
        store: Any = ScriptedStore(folder, on_put) if on_put is not None else folder
        publisher = Publisher(store, model.variant, "r")
        told = replace(SETTINGS, **settings)
        renderer, reader = Renderer(model), media or NoMedia()
        workers.append(Worker(renderer, publisher, reader, link, told, clock=clock, now=lambda: 100.0))
        workers[-1].start()
        return workers[-1]

    yield started
    for worker in workers:
        worker.stop(WAIT_S)


def work(model: Model, *prompts: str, suspects: dict[str, int] | None = None, **fields: Any) -> WorkBatch[WorkItem]:
    batch = batch_of(group_of(model.variant, steps=3), *prompts)
    losses = suspects or {}
    return WorkBatch(batch.group, tuple(WorkItem(t, 40.0, losses.get(t.prompt, 0), **fields) for t in batch.tasks))


def wait_for(condition: Callable[[], bool]) -> None:
    turns = threading.Event()
    for _ in range(int(WAIT_S / 0.005)):
        if condition():
            return
        turns.wait(0.005)
    raise AssertionError("it never came to be")


# -- what runs at the same time --------------------------------------------------------------------------------------


def test_a_batch_becomes_one_record_a_task_with_its_seconds(wan: LoadedModel, link: ScriptedLink, run: Run) -> None:
    link.work.put(work(wan, "a", "b"))
    run(wan, load_s=6.0)
    ends = link.results(2)
    records = [ends[prompt].end for prompt in ("a", "b")]
    assert all(isinstance(record, Record) and record.status is Status.SUCCEEDED for record in records)
    assert [record.timings.queue_s for record in records if isinstance(record, Record)] == [60.0, 60.0]
    assert [record.timings.load_s for record in records if isinstance(record, Record)] == [3.0, 3.0]
    (end,) = link.ends
    assert end.one_call
    assert end.busy_s > 0


def test_the_next_batch_renders_while_the_last_one_is_published(wan: LoadedModel, link: ScriptedLink, run: Run) -> None:
    def on_put(key: str) -> None:
        assert link.events["begun b"].wait(WAIT_S), "b did not render while a was being stored"

    link.work.put(work(wan, "a"))
    link.work.put(work(wan, "b"))
    run(wan, on_put=on_put)
    assert link.kinds(2) == {"a": "clip", "b": "clip"}


def test_a_slow_store_stops_the_model_before_a_third_batch(wan: LoadedModel, link: ScriptedLink, run: Run) -> None:
    unpublished: list[int] = []
    link.looks = lambda call: unpublished.append(len(link.rendering_over) - len(link.ends)) if call == "begin" else None
    store = threading.Event()
    for prompt in "abcd":
        link.work.put(work(wan, prompt))
    run(wan, on_put=lambda key: store.wait(WAIT_S) and None)
    assert link.events["rendered b"].wait(WAIT_S)
    wait_for(lambda: ("c",) in link.given)
    assert link.begun == [("a",), ("b",)]
    store.set()
    assert link.kinds(4) == dict.fromkeys("abcd", "clip")
    assert max(unpublished) <= 1


def test_the_next_batchs_media_are_read_while_the_present_one_renders(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    read = {prompt: threading.Event() for prompt in "ab"}

    def on_call(batch: RenderBatch) -> None:
        if batch.tasks[0].prompt == "a":
            assert read["b"].wait(WAIT_S), "the accelerator had to wait for media"

    link.work.put(work(wan, "a"))
    link.work.put(work(wan, "b"))
    run(InStep(wan, on_call=on_call), media=NoMedia(lambda tasks: read[tasks[0].prompt].set()))
    assert link.kinds(2) == {"a": "clip", "b": "clip"}


def test_asking_late_means_after_the_last_step_where_there_are_no_media(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    asked: list[int] = []
    steps: list[int] = []
    link.looks = lambda call: asked.append(len(steps)) if call == "next" else None
    link.work.put(work(wan, "a"))
    link.work.put(work(wan, "b"))
    run(InStep(wan, lambda _, done: steps.append(done)), ask_late=True)
    assert link.kinds(2) == {"a": "clip", "b": "clip"}
    assert asked[0] == 0
    assert asked[1] >= 2, "the step that is being told of is not in the list yet"


@pytest.mark.parametrize(("reading_s", "asked_after"), [(0.0, 3), (3.0, 2), (8.0, 1)])
def test_asking_late_leaves_the_time_that_reading_media_takes(
    wan: LoadedModel, link: ScriptedLink, run: Run, reading_s: float, asked_after: int
) -> None:
    """A step takes two seconds, reading the first batch twice what is expected of the next."""
    clock = Clock()
    given: list[int] = []

    def on_step(cancelled: Any, done: int) -> None:
        if len(link.begun) == 1 and done == asked_after:
            wait_for(lambda: len(link.given) == 2)
        if len(link.begun) == 1:
            given.append(len(link.given))

    link.work.put(work(wan, "a"))
    link.work.put(work(wan, "b"))
    model = InStep(wan, on_step, before_step=lambda: clock.add(2.0))
    run(model, media=NoMedia(lambda tasks: clock.add(2 * reading_s)), ask_late=True, clock=clock)
    assert link.kinds(2) == {"a": "clip", "b": "clip"}
    assert given == [2 if done >= asked_after else 1 for done in (1, 2, 3)]


# -- whoever ends processes ------------------------------------------------------------------------------------------

SILENT = """
import threading
from actors.renderer import Renderer
from actors.work import WorkBatch, WorkItem
from actors.worker import Worker, WorkerSettings
from schemas.task import Group, Task
from tests.actors.scripted_link import ScriptedLink
from tests.actors.test_worker import NoMedia

class Hangs:
    def render(self, *arguments):
        threading.Event().wait()

group = Group(variant="v", variant_digest="d", mode="text_to_video", width=32, height=32, frames=5, fps=8,
              steps=3, guidance=1.0)
link = ScriptedLink()
link.work.put(WorkBatch(group, (WorkItem(Task("f", "a", "", 1), 0.0),)))
Worker(Renderer(Hangs()), None, NoMedia(), link, WorkerSettings(stall_s=0.3)).start()
threading.Event().wait(60)
"""


def test_a_model_without_a_step_for_too_long_ends_the_process() -> None:
    told = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=False, timeout=120)
    assert told.returncode == -signal.SIGKILL, told.stderr


def test_a_suspect_is_rendered_alone_with_nothing_else_in_the_process(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    beside: list[tuple[int, int]] = []

    def look(call: str) -> None:
        if call == "begin":
            beside.append((len(link.rendering_over) - len(link.ends), len(link.given)))

    link.looks = look
    model = ScriptedModel(wan)
    link.work.put(work(wan, "before"))
    link.work.put(work(wan, "a", "b", "c", "d", suspects={"b": 1, "d": 1}))
    link.work.put(work(wan, "after"))
    run(model)
    assert link.kinds(6) == dict.fromkeys(("before", "a", "b", "c", "d", "after"), "clip")
    assert model.calls == [("before",), ("a", "c"), ("b",), ("d",), ("after",)]
    assert link.begun == model.calls
    assert [unpublished for unpublished, _ in beside[2:4]] == [0, 0], "nothing is unpublished"
    assert [given for _, given in beside[1:4]] == [2, 2, 2], "and nothing else was asked for"


def test_a_task_that_cost_too_many_processes_fails_unrendered(wan: LoadedModel, link: ScriptedLink, run: Run) -> None:
    model = ScriptedModel(wan)
    link.work.put(work(wan, "poison", "mate", suspects={"poison": 2}))
    run(model, quarantine_losses=2)
    ends = link.results(2)
    poison = ends["poison"].end
    assert isinstance(poison, TaskFailure)
    assert isinstance(poison.error, QuarantinedError)
    assert "died 2 times" in str(poison.error)
    assert model.calls == link.begun == [("mate",)]


def test_what_an_earlier_attempt_stored_is_not_rendered_again(wan: LoadedModel, link: ScriptedLink, run: Run) -> None:
    link.records["a"] = Record(fingerprint="a", status=Status.SUCCEEDED, variant="v", seed=1)
    model = ScriptedModel(wan)
    link.work.put(work(wan, "a", "b", again=True))
    run(model)
    assert link.results(2)["a"].end is link.records["a"]
    assert model.calls == [("b",)]
    assert [end.found for end in link.ends] == [True, False]


def test_a_store_that_cannot_be_asked_for_earlier_clips_stops_nobody(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    def look(call: str) -> None:
        if call == "found":
            raise KeyError("Contents")

    link.looks = look
    link.work.put(work(wan, "a", again=True))
    run(wan)
    assert link.kinds(1) == {"a": "clip"}


# -- one task's trouble ----------------------------------------------------------------------------------------------


class _Unencodable(np.ndarray):
    """Frames over which an encoder stumbles."""

    def __iter__(self) -> Iterator[Any]:
        raise KeyError("no such codec option")


def _fails_in_render(wan: LoadedModel, error: Exception) -> dict[str, Any]:
    return {"model": ScriptedModel(wan, lambda task, _: error if task.prompt == "bad" else None)}


def _fails_in_media(wan: LoadedModel, error: Exception) -> dict[str, Any]:
    class Reader(NoMedia):
        def read(self, group: Group, tasks: Sequence[Task]) -> list[TaskMedia | RushesError]:
            return [MediaError(str(error)) if task.prompt == "bad" else TaskMedia() for task in tasks]

    return {"model": wan, "media": Reader()}


def _fails_in_encode(wan: LoadedModel, error: Exception) -> dict[str, Any]:
    class Painted(ScriptedModel):
        def render(self, batch: RenderBatch, media: Any, on_step: Any, cancelled: Any) -> Any:
            clips = super().render(batch, media, on_step, cancelled)
            return tuple(
                clip.view(_Unencodable) if task.prompt == "bad" else clip
                for task, clip in zip(batch.tasks, clips, strict=True)
            )

    return {"model": Painted(wan)}


def _fails_in_store(wan: LoadedModel, error: Exception) -> dict[str, Any]:
    bad = work(wan, "good", "bad", "fine").items[1].task.fingerprint

    def on_put(key: str) -> None:
        if bad in key:
            raise error

    return {"model": wan, "on_put": on_put}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (_fails_in_media, "MediaError"),
        (_fails_in_render, "RenderError"),
        (_fails_in_encode, "PublishError"),
        (_fails_in_store, "PublishError"),
    ],
)
@pytest.mark.parametrize(
    "error", [ValueError("broken"), KeyError("x"), MemoryError(), UnicodeDecodeError("a", b"", 0, 1, "b")]
)
def test_whatever_a_stage_raises_about_one_task_is_that_tasks_failure(
    wan: LoadedModel, link: ScriptedLink, run: Run, script: Any, expected: str, error: Exception
) -> None:
    link.work.put(work(wan, "good", "bad", "fine"))
    link.work.put(work(wan, "next"))
    worker = run(**script(wan, error))
    assert link.kinds(4) == {"good": "clip", "bad": expected, "fine": "clip", "next": "clip"}
    worker.check()


def test_a_reader_that_raises_fails_the_batch_and_not_the_worker(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    def on_read(tasks: Sequence[Task]) -> None:
        if tasks[0].prompt == "a":
            raise RuntimeError("no more threads")

    link.work.put(work(wan, "a"))
    link.work.put(work(wan, "b"))
    run(wan, media=NoMedia(on_read))
    assert link.kinds(2) == {"a": "MediaError", "b": "clip"}


def test_a_refusing_store_is_told_as_the_stores_own_error(wan: LoadedModel, link: ScriptedLink, run: Run) -> None:
    def refuse(key: str) -> None:
        raise StorageError("AccessDenied")

    link.work.put(work(wan, "a"))
    run(wan, on_put=refuse)
    assert link.kinds(1) == {"a": "StorageError"}


def test_seconds_of_a_clip_that_could_not_be_stored_are_lost_ones(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    def refuse(key: str) -> None:
        raise ValueError("no")

    link.work.put(work(wan, "a"))
    run(wan, on_put=refuse)
    failure = link.results(1)["a"].end
    assert isinstance(failure, TaskFailure)
    assert isinstance(failure.error, PublishError)
    assert failure.lost_s > 0


# -- what is not wanted any more -------------------------------------------------------------------------------------


def test_an_unwanted_task_stops_at_its_next_step_and_its_mate_goes_on(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    def on_step(cancelled: Any, done: int) -> None:
        if done == 1:
            link.unwanted.add("unwanted")
            wait_for(lambda: bool(cancelled()))

    link.work.put(work(wan, "kept", "unwanted"))
    run(InStep(wan, on_step), beat_s=0.01)
    assert link.kinds(2) == {"kept": "clip", "unwanted": "CancelledError"}


def test_a_whole_batch_that_is_unwanted_ends_without_its_remaining_steps(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    steps: list[int] = []

    def on_step(cancelled: Any, done: int) -> None:
        steps.append(done)
        link.unwanted.add("unwanted")
        wait_for(lambda: bool(cancelled()))

    link.work.put(work(wan, "unwanted"))
    run(InStep(wan, on_step), beat_s=0.01)
    end = link.results(1)["unwanted"].end
    assert isinstance(end, TaskFailure)
    assert isinstance(end.error, CancelledError)
    assert steps == [1]


def test_an_answer_about_an_earlier_item_does_not_stop_the_same_task_given_out_again(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    first, second = work(wan, "a"), work(wan, "a")
    late_answers: list[object] = []

    def beat(progress: Any) -> Any:
        if any(at.item is second.items[0] for at in progress):
            late_answers.append(first.items[0])
        return late_answers[:1]

    def on_step(cancelled: Any, done: int) -> None:
        if len(link.begun) == 2:
            seen = len(late_answers)
            wait_for(lambda: len(late_answers) > seen + 1)
            assert not cancelled()

    link.beat = beat  # type: ignore[method-assign]
    link.work.put(first)
    link.work.put(second)
    worker = run(InStep(wan, on_step), beat_s=0.01)
    wait_for(lambda: len(link.ends) == 2)
    assert [isinstance(end.ends[0].end, Record) for end in link.ends] == [True, True]
    worker.check()


def test_heartbeats_tell_stage_and_share_of_every_item(wan: LoadedModel, link: ScriptedLink, run: Run) -> None:
    def seen(stage: Stage, share: float) -> bool:
        return any(at.stage is stage and at.share == share for beat in list(link.beats) for at in beat)

    def on_step(cancelled: Any, done: int) -> None:
        wait_for(lambda: seen(Stage.RENDERING, done / 3))

    def on_put(key: str) -> None:
        wait_for(lambda: seen(Stage.ENCODING, 1.0))

    media = NoMedia(lambda tasks: wait_for(lambda: seen(Stage.WAITING, 0.0)))
    link.work.put(work(wan, "a"))
    run(InStep(wan, on_step), on_put=on_put, media=media, beat_s=0.01)
    assert link.kinds(1) == {"a": "clip"}
    wait_for(lambda: link.beats[-1] == ())


# -- its end ---------------------------------------------------------------------------------------------------------


def test_stopping_lets_what_it_holds_finish_and_asks_for_no_more(
    wan: LoadedModel, link: ScriptedLink, run: Run
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def on_call(batch: RenderBatch) -> None:
        inside.set()
        assert go_on.wait(WAIT_S)

    link.work.put(work(wan, "a"))
    worker = run(InStep(wan, on_call=on_call), ask_late=True)
    assert inside.wait(WAIT_S)
    finished: list[bool] = []
    stopping = threading.Thread(target=lambda: finished.append(worker.stop(WAIT_S)))
    stopping.start()
    wait_for(worker._stopping.is_set)
    link.work.put(work(wan, "b"))
    go_on.set()
    stopping.join(WAIT_S)
    assert finished == [True]
    assert link.kinds(1) == {"a": "clip"}
    assert link.work.qsize() == 1
    worker.check()


def test_a_worker_whose_thread_died_says_so(wan: LoadedModel, link: ScriptedLink, run: Run) -> None:
    def leave(batch: RenderBatch) -> None:
        raise SystemExit("a library wanted to leave")

    link.work.put(work(wan, "a"))
    worker = run(InStep(wan, on_call=leave))
    worker._threads["render"].join(WAIT_S)
    with pytest.raises(RuntimeError, match="the worker ended"):
        worker.check()
