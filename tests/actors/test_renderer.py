"""One task's trouble stays its own: a real tiny model, and a script of what goes wrong."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from actors.renderer import Rendered, Renderer, TaskFailure
from models.loaded import LoadedModel
from models.model import TaskMedia
from schemas.errors import CancelledError, MediaError, OutOfMemoryError, RenderError, is_transient
from schemas.task import RenderBatch, Task
from tests.actors.scripted_model import ScriptedModel
from tests.models.conftest import TinyModel
from tests.models.tiny_variants import I2V, V2V, batch_of, group_of, noise_image, task_of


@pytest.fixture(scope="module")
def wan(tiny_model: TinyModel) -> LoadedModel:
    return tiny_model("wan")


def batch(wan: LoadedModel, *prompts: str) -> RenderBatch:
    return batch_of(group_of(wan.variant, steps=2), *prompts)


def kinds(outcomes: list[Rendered | TaskFailure]) -> list[str]:
    return [type(o.error).__name__ if isinstance(o, TaskFailure) else "clip" for o in outcomes]


def fail(prompt: str, *attempts: int) -> object:
    """Raise on `prompt`, on these of its attempts, or on all when none is given."""

    def fault(task: Task, attempt: int) -> Exception | None:
        return ValueError(f"no {prompt}") if task.prompt == prompt and attempt in (attempts or (attempt,)) else None

    return fault


def test_a_batch_is_one_call_and_answers_in_order(wan: LoadedModel) -> None:
    model = ScriptedModel(wan)
    outcomes = Renderer(model).render(batch(wan, "a", "b", "c"))
    assert model.calls == [("a", "b", "c")]
    assert [o.task.prompt for o in outcomes] == ["a", "b", "c"]
    assert kinds(outcomes) == ["clip"] * 3
    assert [o.attempts for o in outcomes] == [1, 1, 1]


def test_a_raising_task_fails_alone(wan: LoadedModel) -> None:
    model = ScriptedModel(wan, fail("b"))
    outcomes = Renderer(model).render(batch(wan, "a", "b", "c"))
    assert kinds(outcomes) == ["clip", "RenderError", "clip"]
    assert model.calls == [("a", "b", "c"), ("a",), ("b",), ("c",)]
    assert [o.attempts for o in outcomes] == [2, 2, 2]
    failed = outcomes[1]
    assert isinstance(failed, TaskFailure)
    assert str(failed.error) == "ValueError: no b"
    assert not is_transient(failed.error)


def test_batch_mates_of_a_raising_task_get_the_clips_that_they_would_have_had(wan: LoadedModel) -> None:
    expected = Renderer(wan).render(batch(wan, "a", "b"))[0]
    rescued = Renderer(ScriptedModel(wan, fail("b"))).render(batch(wan, "a", "b"))[0]
    assert isinstance(expected, Rendered)
    assert isinstance(rescued, Rendered)
    assert np.abs(expected.frames.astype(int) - rescued.frames).max() <= 1


def test_a_task_that_raises_once_is_rendered_by_the_second_call(wan: LoadedModel) -> None:
    outcomes = Renderer(ScriptedModel(wan, fail("b", 1))).render(batch(wan, "a", "b"))
    assert kinds(outcomes) == ["clip", "clip"]


def test_a_single_task_that_raises_is_not_called_again(wan: LoadedModel) -> None:
    model = ScriptedModel(wan, fail("a"))
    outcomes = Renderer(model).render(batch(wan, "a"))
    assert kinds(outcomes) == ["RenderError"]
    assert model.calls == [("a",)]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(wan: LoadedModel) -> None:
    model = ScriptedModel(wan, largest_batch=1)
    outcomes = Renderer(model).render(batch(wan, "a", "b", "c"))
    assert kinds(outcomes) == ["clip"] * 3
    assert model.calls == [("a", "b", "c"), ("a",), ("b", "c"), ("b",), ("c",)]
    assert [o.attempts for o in outcomes] == [2, 3, 3]


def test_a_task_that_never_fits_fails_as_out_of_memory_and_is_worth_another_place(wan: LoadedModel) -> None:
    outcomes = Renderer(ScriptedModel(wan, largest_batch=0)).render(batch(wan, "a", "b"))
    assert kinds(outcomes) == ["OutOfMemoryError"] * 2
    assert all(isinstance(o, TaskFailure) and is_transient(o.error) for o in outcomes)


def test_a_raising_task_in_a_batch_that_does_not_fit_still_fails_alone(wan: LoadedModel) -> None:
    model = ScriptedModel(wan, fail("c"), largest_batch=2)
    assert kinds(Renderer(model).render(batch(wan, "a", "b", "c", "d"))) == ["clip", "clip", "RenderError", "clip"]


def test_a_model_that_returns_too_few_clips_fails_each_task(wan: LoadedModel) -> None:
    class Short(ScriptedModel):
        def render(self, *arguments: object) -> tuple[object, ...]:  # type: ignore[override]
            return super().render(*arguments)[1:]  # type: ignore[arg-type]

    outcomes = Renderer(Short(wan)).render(batch(wan, "a", "b"))
    assert kinds(outcomes) == ["RenderError", "RenderError"]


def test_seconds_of_a_call_are_shared_and_those_of_lost_calls_kept_apart(wan: LoadedModel) -> None:
    ticks: Iterator[float] = itertools.count(0.0, 6.0)  # every call takes 6 s
    outcomes = Renderer(ScriptedModel(wan, fail("b")), clock=lambda: next(ticks)).render(batch(wan, "a", "b"))
    clip, failed = outcomes
    assert isinstance(clip, Rendered)
    assert (clip.render_s, clip.lost_s) == (6.0, 3.0)
    assert isinstance(failed, TaskFailure)
    assert failed.lost_s == 9.0
    assert clip.render_s + clip.lost_s + failed.lost_s == 3 * 6.0


def test_a_cancelled_task_never_reaches_the_model(wan: LoadedModel) -> None:
    model = ScriptedModel(wan)
    tasks = batch(wan, "a", "b")
    outcomes = Renderer(model).render(tasks, cancelled=lambda: frozenset({tasks.tasks[0].fingerprint}))
    assert kinds(outcomes) == ["CancelledError", "clip"]
    assert model.calls == [("b",)]


def test_a_batch_that_is_cancelled_half_way_stops(wan: LoadedModel) -> None:
    tasks = batch(wan, "a", "b")
    steps: list[int] = []
    everyone = frozenset(task.fingerprint for task in tasks.tasks)
    outcomes = Renderer(wan).render(
        tasks, lambda done, _: steps.append(done), lambda: everyone if steps else frozenset()
    )
    assert steps == [1]
    assert kinds(outcomes) == ["CancelledError", "CancelledError"]
    assert all(isinstance(o, TaskFailure) and isinstance(o.error, CancelledError) for o in outcomes)


def test_media_that_could_not_be_read_fail_only_their_own_task(wan: LoadedModel) -> None:
    group = group_of(wan.variant, I2V, steps=2)
    tasks = RenderBatch(group, tuple(task_of(group, "p", k, media=(f"{k}.png",)) for k in range(3)))
    model = ScriptedModel(wan)
    media = [TaskMedia((noise_image(0),)), MediaError("1.png: not there"), TaskMedia((noise_image(2),))]
    outcomes = Renderer(model).render(tasks, media=media)
    assert kinds(outcomes) == ["clip", "MediaError", "clip"]
    assert len(model.calls) == 1


def test_where_no_media_could_be_read_the_model_is_not_called(wan: LoadedModel) -> None:
    model = ScriptedModel(wan)
    assert kinds(Renderer(model).render(batch(wan, "a"), media=[MediaError("no")])) == ["MediaError"]
    assert model.calls == []


def test_a_video_becomes_another_video(wan: LoadedModel) -> None:
    group = group_of(wan.variant, V2V, steps=3, strength=0.7)
    work = RenderBatch(group, (task_of(group, "p", media=("in.mp4",)),))
    video = tuple(noise_image(seed) for seed in range(5))
    (outcome,) = Renderer(wan).render(work, media=[TaskMedia((video,))])
    assert isinstance(outcome, Rendered), outcome
    assert outcome.frames.shape == (5, 32, 32, 3)


def test_errors_of_ours_keep_their_class(wan: LoadedModel) -> None:
    for error in (OutOfMemoryError("full"), RenderError("broken")):

        def fault(task: Task, attempt: int, error: Exception = error) -> Exception:
            return error

        (outcome,) = Renderer(ScriptedModel(wan, fault)).render(batch(wan, "a"))
        assert isinstance(outcome, TaskFailure)
        assert outcome.error is error
