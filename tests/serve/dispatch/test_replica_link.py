"""A replica's worker and its link, with a real tiny model, a real folder for clips, and a scripted dispatcher."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Queue as Fifo

import pytest

from actors.media_reader import ConfinedMediaReader
from actors.moderator import Moderator
from actors.publisher import Publisher
from actors.renderer import Renderer
from actors.worker import Worker, WorkerSettings
from models.loaded import LoadedModel
from models.model import Model
from schemas.clip import Status
from schemas.config import read_config
from schemas.errors import StorageUnavailableError
from schemas.moderation import ModerationOutcome, ModerationSettings
from schemas.task import RenderBatch, Task
from serve.dispatch.messages import Beat, Begun, Ended, Hello, Results, Work
from serve.dispatch.replica_link import LeasedItem, ReplicaLink
from serve.tasks import Lease
from storage import keys
from storage.store import open_store
from tests.actors.conftest import _one_thread, tiny_folder, tiny_model
from tests.actors.fetches import fetch
from tests.actors.scripted_model import ScriptedModel
from tests.models.conftest import TinyModel
from tests.models.tiny_variants import I2V, batch_of, group_of, task_of
from tests.painted_model import PaintedModel
from tests.scripted_scorer import NAME

__all__ = ["_one_thread", "tiny_folder", "tiny_model"]

WAIT_S = 30.0
SETTINGS = WorkerSettings(stall_s=60.0, beat_s=0.02, ask_late=True)


@pytest.fixture(scope="module")
def wan(tiny_model: TinyModel) -> LoadedModel:
    return tiny_model("wan")


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


Run = Callable[[Model, Dispatcher], Worker[LeasedItem]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    loops: list[Worker[LeasedItem]] = []

    def started(model: Model, dispatcher: Dispatcher) -> Worker[LeasedItem]:
        publisher = Publisher(open_store(str(tmp_path)), model.variant, "r", names=keys.TASK_NAMES)
        hello = Hello("r1", model.variant.name)
        link = ReplicaLink(dispatcher, hello, publisher)
        loops.append(Worker(Renderer(model), publisher, ConfinedMediaReader(fetch, 30.0), link, SETTINGS))
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


def test_what_moderation_refuses_ends_for_good_with_its_code_and_its_bill(wan: LoadedModel, tmp_path: Path) -> None:
    dispatcher, variant = Dispatcher(), wan.variant.model_copy(update={"price_usd_per_gpu_hour": 3600.0})
    publisher = Publisher(open_store(str(tmp_path)), variant, "r", names=keys.TASK_NAMES)
    link = ReplicaLink(dispatcher, Hello("r1", wan.variant.name), publisher)
    dispatcher.work.put(work_of(wan, "RED", "fine", "AMBER"))
    with closing(Moderator(ModerationSettings(scorers=(NAME,)), read_config())) as moderator:
        worker = Worker(
            Renderer(PaintedModel(wan)),
            publisher,
            ConfinedMediaReader(fetch, 30.0),
            link,
            SETTINGS,
            moderator=moderator,
        )
        worker.start()
        refused, fine, flagged = [one.outcome for one in dispatcher.results().ended]
        worker.stop(WAIT_S)
    assert refused is not None
    assert (refused.status, refused.failure_code) == (Status.FAILED, "SAFETY.OUTPUT.VIDEO")
    assert refused.failure == "content moderation refused the rendered video: violence"
    assert refused.moderation.is_refused
    assert refused.billed_usd > 0
    assert refused.timings.render_s > 0
    assert fine is not None
    assert fine.moderation.findings == ()
    assert flagged is not None
    assert (flagged.status, flagged.moderation.outcome) == (Status.SUCCEEDED, ModerationOutcome.FLAG)
    assert len(list((tmp_path / "tasks").rglob("*.*"))) == 4, "two clips and their posters"


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


def test_a_batch_is_told_as_begun_before_the_model_is_called_and_held_in_later_pulls(
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
    assert bad.blameless is isinstance(error, StorageUnavailableError), "an outage of the object store is no attempt"
    assert "/srv" not in repr(bad)


def _code(ended: Ended) -> tuple[str, str] | None:
    return None if ended.outcome is None else (ended.outcome.status.value, ended.outcome.failure_code)


def test_a_batch_that_comes_twice_is_rendered_once(wan: LoadedModel, run: Run) -> None:
    """The dispatcher answers again where it does not know that its answer arrived."""
    dispatcher = Dispatcher()
    work = work_of(wan, "a")
    model = ScriptedModel(wan)
    store = threading.Event()

    class Slow(Dispatcher):
        def done(self, results: Results) -> None:
            assert store.wait(WAIT_S)
            super().done(results)

    dispatcher = Slow()
    dispatcher.work.put(work)
    dispatcher.work.put(work)
    dispatcher.work.put(work_of(wan, "b"))
    run(model, dispatcher)
    waiting = threading.Event()
    while dispatcher.work.qsize():
        assert not waiting.wait(0.005)
    store.set()
    told = [dispatcher.results(), dispatcher.results()]
    assert [statuses(results) for results in told] == [[Status.SUCCEEDED]] * 2
    assert model.calls == [("a",), ("b",)]


def test_of_tasks_given_out_together_those_tried_before_are_begun_and_told_one_by_one(
    wan: LoadedModel, run: Run
) -> None:
    dispatcher = Dispatcher()
    fresh, tried = work_of(wan, "a", "b"), work_of(wan, "a", "b", attempt=2)
    mixed = replace(fresh, leases=(fresh.leases[0], tried.leases[1]))
    dispatcher.work.put(mixed)
    run(wan, dispatcher)
    ended = [dispatcher.results().ended, dispatcher.results().ended]
    assert [[end.lease for end in ends] for ends in ended] == [[mixed.leases[0]], [mixed.leases[1]]]
    assert [len(said.leases) for said in dispatcher.told_begun] == [1, 1]


def test_media_that_cannot_be_read_fail_their_task_with_runways_code(wan: LoadedModel, run: Run) -> None:
    dispatcher = Dispatcher()
    group = group_of(wan.variant, I2V, steps=2)
    tasks = tuple(task_of(group, "p", k, media=(uri,)) for k, uri in enumerate(("good", "junk", "away")))
    leases = tuple(Lease(task_id=t.fingerprint, seq=n, epoch=1, attempt=1) for n, t in enumerate(tasks))
    dispatcher.work.put(Work(RenderBatch(group, tasks), leases, (0.0,) * 3, 8.0))
    run(wan, dispatcher)
    good, junk, away = dispatcher.results().ended
    assert good.outcome is not None
    assert good.outcome.status is Status.SUCCEEDED
    assert _code(junk) == ("FAILED", "ASSET.INVALID")
    assert _code(away) is None, "worth another attempt"
    assert away.cause == "MediaUnavailableError"
