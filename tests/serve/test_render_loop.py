"""A replica's loop with a real tiny model, a real folder for clips, and a dispatcher that is a script."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue as Fifo

import pytest

from actors.publisher import Publisher
from actors.renderer import Renderer
from models.loaded import LoadedModel
from models.model import Model
from schemas.clip import Status
from schemas.errors import StorageUnavailableError
from schemas.task import RenderBatch, Task
from serve.config import Queue
from serve.messages import Beat, Begun, Ended, Hello, Results, Work
from serve.render_loop import RenderLoop
from serve.tasks import Lease
from storage import keys
from storage.store import open_store
from tests.actors.conftest import _one_thread, tiny_folder, tiny_model
from tests.actors.scripted_model import ScriptedModel
from tests.models.conftest import TinyModel
from tests.models.tiny_variants import batch_of, group_of

__all__ = ["_one_thread", "tiny_folder", "tiny_model"]

WAIT_S = 30.0
QUEUE = Queue(heartbeat_s=0.02)


@pytest.fixture(scope="module")
def wan(tiny_model: TinyModel) -> LoadedModel:
    return tiny_model("wan")


class _NoLedger:
    def write(self, record: object) -> None: ...


@dataclass
class Dispatcher:
    """Gives out what is in `work`; keeps what it is told. `away` makes every call fail."""

    work: "Fifo[Work]" = field(default_factory=Fifo)
    told: "Fifo[Results]" = field(default_factory=Fifo)
    beats: list[Beat] = field(default_factory=list)
    unwanted: set[str] = field(default_factory=set)
    away: threading.Event = field(default_factory=threading.Event)
    pulled: "Fifo[str]" = field(default_factory=Fifo)
    refused: threading.Event = field(default_factory=threading.Event)
    told_begun: list[Begun] = field(default_factory=list)
    hellos: list[Hello] = field(default_factory=list)

    def _answer(self) -> None:
        if self.away.is_set():
            self.refused.set()
            raise ConnectionError("nobody there")

    def pull(self, hello: Hello) -> Work | None:
        self._answer()
        self.hellos.append(hello)
        self.pulled.put(hello.replica)
        try:
            return self.work.get(timeout=0.05)
        except Exception:
            return None

    def begun(self, said: Begun) -> None:
        self._answer()
        self.told_begun.append(said)

    def beat(self, beat: Beat) -> tuple[str, ...]:
        self._answer()
        self.beats.append(beat)
        return tuple(p.task_id for p in beat.progress if p.task_id in self.unwanted)

    def done(self, results: Results) -> None:
        self._answer()
        self.told.put(results)

    def results(self) -> Results:
        return self.told.get(timeout=WAIT_S)


Run = Callable[[Model, Dispatcher], RenderLoop]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    loops: list[RenderLoop] = []

    def started(model: Model, dispatcher: Dispatcher) -> RenderLoop:
        publisher = Publisher(open_store(str(tmp_path)), _NoLedger(), model.variant, "r", names=keys.TASK_NAMES)
        hello = Hello("r1", model.variant.name)
        loops.append(RenderLoop(Renderer(model), publisher, dispatcher, hello, QUEUE))
        loops[-1].start()
        return loops[-1]

    yield started
    for loop in loops:
        loop.stop(WAIT_S)


def work_of(model: LoadedModel, *prompts: str, attempt: int = 1) -> Work:
    batch = batch_of(group_of(model.variant, steps=3), *prompts)
    leases = tuple(
        Lease(task_id=t.fingerprint, seq=n, epoch=attempt, attempt=attempt) for n, t in enumerate(batch.tasks)
    )
    return Work(batch, leases, (0.0,) * len(leases), 8.0)


def statuses(results: Results) -> list[Status | None]:
    return [ended.outcome.status if ended.outcome is not None else None for ended in results.ended]


def test_a_batch_becomes_one_clip_a_task_under_the_tasks_own_key(wan: LoadedModel, run: Run, tmp_path: Path) -> None:
    dispatcher = Dispatcher()
    work = work_of(wan, "a", "b")
    dispatcher.work.put(work)
    run(wan, dispatcher)
    results = dispatcher.results()
    assert statuses(results) == [Status.SUCCEEDED] * 2
    stored = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "tasks").rglob("*.mp4"))
    assert stored == sorted(f"tasks/{task.fingerprint}/clip.mp4" for task in work.batch.tasks)
    assert results.render_s > 0


def test_the_next_batch_is_asked_for_before_the_present_one_is_published(wan: LoadedModel, run: Run) -> None:
    dispatcher = Dispatcher()
    asked = threading.Event()

    class Held(ScriptedModel):
        def render(self, batch: RenderBatch, media, on_step, cancelled):  # type: ignore[no-untyped-def]
            while not dispatcher.pulled.empty():
                dispatcher.pulled.get()
            clips = super().render(batch, media, on_step, cancelled)
            # All steps are done, the frames are not handed out yet: the pull comes now or never.
            assert dispatcher.pulled.get(timeout=WAIT_S) == "r1"
            asked.set()
            return clips

    dispatcher.work.put(work_of(wan, "a"))
    run(Held(wan), dispatcher)
    dispatcher.results()
    assert asked.is_set()


def test_a_batch_is_said_to_be_told_begunbefore_the_model_is_called_and_kept_in_later_pulls(
    wan: LoadedModel, run: Run
) -> None:
    dispatcher = Dispatcher()
    work = work_of(wan, "a", "b")
    told: list[list[Begun]] = []

    class Looks(ScriptedModel):
        def render(self, batch: RenderBatch, media, on_step, cancelled):  # type: ignore[no-untyped-def]
            told.append(list(dispatcher.told_begun))
            clips = super().render(batch, media, on_step, cancelled)
            waiting = threading.Event()
            while not dispatcher.hellos[-1].holds:  # the pull for the next batch
                assert not waiting.wait(0.005)
            return clips

    dispatcher.work.put(work)
    run(Looks(wan), dispatcher)
    dispatcher.results()
    assert told == [[Begun("r1", frozenset((lease.task_id, lease.epoch) for lease in work.leases))]]
    assert set(work.leases) in [set(hello.holds) for hello in dispatcher.hellos]


def test_what_was_rendered_while_the_dispatcher_was_away_is_told_when_it_is_back(wan: LoadedModel, run: Run) -> None:
    dispatcher = Dispatcher()

    class Leaves(ScriptedModel):
        def render(self, batch: RenderBatch, media, on_step, cancelled):  # type: ignore[no-untyped-def]
            dispatcher.away.set()
            return super().render(batch, media, on_step, cancelled)

    dispatcher.work.put(work_of(wan, "a"))
    run(Leaves(wan), dispatcher)
    assert dispatcher.refused.wait(WAIT_S)
    assert dispatcher.told.empty()
    dispatcher.away.clear()
    assert statuses(dispatcher.results()) == [Status.SUCCEEDED]


def test_an_unwanted_task_stops_at_its_next_step_and_its_mate_goes_on(wan: LoadedModel, run: Run) -> None:
    dispatcher = Dispatcher()
    work = work_of(wan, "kept", "unwanted")
    kept, unwanted = work.batch.tasks
    steps: list[int] = []

    class Waits(ScriptedModel):
        def render(self, batch: RenderBatch, media, on_step, cancelled):  # type: ignore[no-untyped-def]
            def step(done: int, total: int) -> None:
                steps.append(done)
                if done == 1:
                    dispatcher.unwanted.add(unwanted.fingerprint)
                    beaten = threading.Event()
                    while unwanted.fingerprint not in cancelled():
                        assert not beaten.wait(0.005)
                on_step(done, total)

            return super().render(batch, media, step, cancelled)

    dispatcher.work.put(work)
    run(Waits(wan), dispatcher)
    ended = {end.lease.task_id: end for end in dispatcher.results().ended}
    assert ended[kept.fingerprint].outcome.status is Status.SUCCEEDED  # type: ignore[union-attr]
    assert ended[unwanted.fingerprint].outcome.status is Status.CANCELLED  # type: ignore[union-attr]


def test_a_whole_batch_that_is_unwanted_ends_without_its_remaining_steps(wan: LoadedModel, run: Run) -> None:
    dispatcher = Dispatcher()
    work = work_of(wan, "unwanted")
    steps: list[int] = []

    class Waits(ScriptedModel):
        def render(self, batch: RenderBatch, media, on_step, cancelled):  # type: ignore[no-untyped-def]
            def step(done: int, total: int) -> None:
                steps.append(done)
                dispatcher.unwanted.add(work.batch.tasks[0].fingerprint)
                waiting = threading.Event()
                while not cancelled():
                    assert not waiting.wait(0.005)
                on_step(done, total)

            return super().render(batch, media, step, cancelled)

    dispatcher.work.put(work)
    run(Waits(wan), dispatcher)
    assert statuses(dispatcher.results()) == [Status.CANCELLED]
    assert steps == [1]


def test_heartbeats_tell_how_far_each_task_is(wan: LoadedModel, run: Run) -> None:
    dispatcher = Dispatcher()
    work = work_of(wan, "a")
    seen: list[float] = []

    class Watched(ScriptedModel):
        def render(self, batch: RenderBatch, media, on_step, cancelled):  # type: ignore[no-untyped-def]
            def step(done: int, total: int) -> None:
                on_step(done, total)
                waiting = threading.Event()
                while not any(p.progress == done / total for beat in dispatcher.beats for p in beat.progress):
                    assert not waiting.wait(0.005)
                seen.append(done / total)

            return super().render(batch, media, step, cancelled)

    dispatcher.work.put(work)
    run(Watched(wan), dispatcher)
    dispatcher.results()
    assert seen == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]


def test_a_clip_that_an_earlier_attempt_stored_is_not_rendered_again(wan: LoadedModel, run: Run) -> None:
    dispatcher, again = Dispatcher(), Dispatcher()
    dispatcher.work.put(work_of(wan, "a"))
    first = ScriptedModel(wan)
    run(first, dispatcher)
    before = dispatcher.results().ended[0].outcome
    second = ScriptedModel(wan)
    again.work.put(work_of(wan, "a", attempt=2))
    run(second, again)
    after = again.results().ended[0].outcome
    assert (first.calls, second.calls) == ([("a",)], [])
    assert before is not None
    assert after is not None
    assert (after.clip, after.variant, after.status) == (before.clip, before.variant, Status.SUCCEEDED)
    assert after.timings.render_s == pytest.approx(before.timings.render_s)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("secret path /srv/weights"), ("FAILED", "INTERNAL")),
        (StorageUnavailableError("the store is away"), None),
    ],
    ids=["of the model", "worth another try"],
)
def test_a_failure_is_told_without_its_details(
    wan: LoadedModel, run: Run, error: Exception, told: tuple[str, str] | None
) -> None:
    dispatcher = Dispatcher()

    def fault(task: Task, attempt: int) -> Exception | None:
        return error if task.prompt == "bad" else None

    dispatcher.work.put(work_of(wan, "good", "bad"))
    run(ScriptedModel(wan, fault), dispatcher)
    good, bad = dispatcher.results().ended
    assert good.outcome is not None
    assert good.outcome.status is Status.SUCCEEDED
    assert _code(bad) == told
    assert "/srv" not in repr(bad)


def _code(ended: Ended) -> tuple[str, str] | None:
    return None if ended.outcome is None else (ended.outcome.status.value, ended.outcome.failure_code)


def test_stopping_lets_what_it_holds_finish_and_pulls_no_more(wan: LoadedModel, run: Run) -> None:
    dispatcher = Dispatcher()
    inside, go_on = threading.Event(), threading.Event()

    class Held(ScriptedModel):
        def render(self, batch: RenderBatch, media, on_step, cancelled):  # type: ignore[no-untyped-def]
            inside.set()
            assert go_on.wait(WAIT_S)
            return super().render(batch, media, on_step, cancelled)

    dispatcher.work.put(work_of(wan, "a"))
    loop = run(Held(wan), dispatcher)
    assert inside.wait(WAIT_S)
    stopping = threading.Thread(target=loop.stop, args=(WAIT_S,))
    stopping.start()
    go_on.set()
    stopping.join(WAIT_S)
    assert statuses(dispatcher.results()) == [Status.SUCCEEDED]
    dispatcher.work.put(work_of(wan, "b"))
    assert dispatcher.work.qsize() == 1
    loop.check()


def test_a_loop_whose_thread_died_fails_its_health_check(wan: LoadedModel, run: Run) -> None:
    dispatcher = Dispatcher()

    class Broken(ScriptedModel):
        def render(self, batch: RenderBatch, media, on_step, cancelled):  # type: ignore[no-untyped-def]
            raise SystemExit("a library wanted to leave")

    dispatcher.work.put(work_of(wan, "a"))
    loop = run(Broken(wan), dispatcher)
    loop._threads[0].join(WAIT_S)
    with pytest.raises(RuntimeError, match="render loop ended"):
        loop.check()
