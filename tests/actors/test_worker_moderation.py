"""What moderation refuses never joins a call, or is never published; the others of its batch are."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from actors.moderator import Moderator
from actors.publisher import Publisher
from actors.renderer import Renderer, TaskFailure
from actors.work import WorkBatch, WorkItem
from actors.worker import Worker, WorkerSettings
from models.loaded import LoadedModel
from models.model import TaskMedia
from schemas.clip import Record, Status
from schemas.config import read_config
from schemas.errors import MediaError, ModerationRefusedError, RushesError
from schemas.moderation import ModerationOutcome, ModerationSettings
from schemas.task import Group, Task
from storage.store import open_store
from tests.actors.scripted_link import WAIT_S, ScriptedLink
from tests.models.conftest import TinyModel
from tests.models.tiny_variants import I2V, SIDE, batch_of, group_of
from tests.painted_model import PaintedModel
from tests.scripted_scorer import AMBER, NAME, RED


class ColouredMedia:
    """Each task's image has the colour that its prompt begins with."""

    def read(self, group: Group, tasks: Sequence[Task]) -> list[TaskMedia | RushesError]:
        return [self._of(task.prompt) for task in tasks]

    def _of(self, prompt: str) -> TaskMedia | RushesError:
        colours = {"red": RED, "amber": AMBER, "blue": (0, 0, 255)}
        if prompt.startswith("unreadable"):
            return MediaError("not an image")
        return TaskMedia((Image.new("RGB", (SIDE, SIDE), colours[prompt.split()[0]]),))


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> LoadedModel:
    return tiny_model("wan")


@pytest.fixture(scope="module")
def moderator() -> Iterator[Moderator]:
    with closing(Moderator(ModerationSettings(scorers=(NAME,)), read_config())) as found:
        yield found


def rendered(model: Any, moderator: Moderator, out: Path, *prompts: str, **settings: Any) -> tuple[Any, Publisher]:
    """The ends of a batch of these prompts, by prompt."""
    link = ScriptedLink()
    variant = model.variant.model_copy(update={"price_usd_per_gpu_hour": 3600.0})
    publisher = Publisher(open_store(str(out)), variant, "r", moderated_by="these settings")
    told = WorkerSettings(stall_s=60.0, load_s=8.0, **settings)
    worker: Worker[WorkItem] = Worker(
        Renderer(model), publisher, ColouredMedia(), link, told, moderator=moderator, now=lambda: 100.0
    )
    worker.start()
    batch = batch_of(group_of(model.variant, I2V, steps=1), *prompts)
    tasks = [replace(task, public_figures="auto") for task in batch.tasks]
    link.work.put(WorkBatch(batch.group, tuple(WorkItem(task, 40.0) for task in tasks)))
    try:
        return {prompt: one.end for prompt, one in link.results(len(prompts)).items()}, publisher
    finally:
        worker.stop(WAIT_S)


def stored(out: Path) -> set[str]:
    return {info.key for info in open_store(str(out)).list("clips/")}


def test_an_input_that_is_refused_never_joins_the_call(
    model: LoadedModel, moderator: Moderator, tmp_path: Path
) -> None:
    painted = PaintedModel(model)
    ends, publisher = rendered(painted, moderator, tmp_path, "red one", "blue one", "amber one", "unreadable")
    assert painted.calls == [("blue one", "amber one")]
    refused = ends["red one"]
    assert isinstance(refused, TaskFailure)
    assert isinstance(refused.error, ModerationRefusedError)
    record = publisher.record_failure(refused)
    assert (record.status, record.failure_code, record.billed_usd) == (Status.FAILED, "SAFETY.INPUT.IMAGE", 0.0)
    assert record.refused_by == "these settings"
    assert isinstance(ends["unreadable"], TaskFailure)
    assert isinstance(ends["unreadable"].error, MediaError)
    assert isinstance(ends["blue one"], Record)
    assert ends["blue one"].moderation.outcome is ModerationOutcome.ALLOW
    assert ends["amber one"].moderation.outcome is ModerationOutcome.FLAG, "it goes on, and is told of"


def test_of_a_clip_that_is_refused_nothing_is_stored_and_what_it_held_is_billed(
    model: LoadedModel, moderator: Moderator, tmp_path: Path
) -> None:
    ends, publisher = rendered(PaintedModel(model), moderator, tmp_path, "blue RED", "blue fine", "blue AMBER")
    refused = ends["blue RED"]
    assert isinstance(refused, TaskFailure)
    record = publisher.record_failure(refused)
    assert (record.failure_code, record.error_class) == ("SAFETY.OUTPUT.VIDEO", "ModerationRefusedError")
    published = ends["blue fine"]
    assert isinstance(published, Record)
    assert record.billed_usd == pytest.approx(published.billed_usd), "they shared the call and the load"
    assert record.billed_usd > 8.0 / 3
    assert ends["blue AMBER"].moderation.findings[0].category == "violence"
    assert len(stored(tmp_path)) == 4, "two clips and their posters"
    assert not [key for key in stored(tmp_path) if refused.task.fingerprint in key]


def test_a_clip_that_is_refused_is_free_where_the_settings_say_so(
    model: LoadedModel, moderator: Moderator, tmp_path: Path
) -> None:
    ends, publisher = rendered(PaintedModel(model), moderator, tmp_path, "blue RED", bill_refused=False)
    assert publisher.record_failure(ends["blue RED"]).billed_usd == 0.0
    assert stored(tmp_path) == set()
