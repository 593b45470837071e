"""Clips of several calls, by the renderer and the worker with real tiny models and a real folder.

The pipelines of `tests.models.obedient` render what they are shown, and gray where they are shown nothing: so it can be
seen what a chunk was told of the one before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.chunk_store import StoredChunks
from actors.publisher import Publisher
from actors.renderer import Rendered, Renderer, TaskFailure
from actors.work import WorkBatch, WorkItem
from actors.worker import Worker, WorkerSettings
from models.loaded import LoadedModel
from models.loader import load
from models.model import Frames, TaskMedia, WrappedModel
from schemas.chunks import Windows
from schemas.clip import Record
from schemas.conditions import Condition
from schemas.errors import BadOutputError, ModerationRefusedError, RenderError
from schemas.finish import FLOOR, chained, read_steps, resolved_finish
from schemas.inputs import Kind, Role
from schemas.moderation import Finding, ModeratedPart, Moderation, ModerationOutcome
from schemas.task import Group, RenderBatch, Task
from storage import keys
from storage.store import ObjectStore, open_store
from tests.actors.scripted_link import WAIT_S, ScriptedLink
from tests.actors.test_finish import NoMedia
from tests.models import obedient
from tests.models.conftest import TinyFolder
from tests.models.tiny_variants import I2V, T2V, group_of, task_of, tiny_variant

SIDE = 32
SHAPE = {
    "divisor": 16, "frame_step": 4, "frame_offset": 1, "max_frames": 9, "max_pixels": 65536, "native": [(SIDE, SIDE, 9)]
}  # fmt: skip
RED, GREEN, BLUE, GRAY = (230, 30, 30), (30, 230, 30), (30, 30, 230), (128, 128, 128)
FIRST = Condition(role=Role.FIRST_FRAME, medium="image", frame=0)
NAMES = pytest.mark.parametrize("names", [keys.BULK_NAMES, keys.TASK_NAMES], ids=["bulk", "endpoint"])


class Counting(WrappedModel):
    """Keeps its calls. `dies_at`: the call that the process does not survive; `fails_at`: that raises, once."""

    def __init__(self, inner: Any, dies_at: int | None = None, fails_at: int | None = None) -> None:
        super().__init__(inner)
        self.calls: list[RenderBatch] = []
        self.shown: list[tuple[TaskMedia, ...]] = []
        self.dies_at, self.fails_at = dies_at, fails_at

    def render(self, batch: RenderBatch, media: Any, on_step: Any, cancelled: Any) -> Any:
        if len(self.calls) == self.dies_at:
            raise KeyboardInterrupt
        self.calls.append(batch)
        self.shown.append(media)
        if len(self.calls) - 1 == self.fails_at:
            raise RuntimeError("scripted")
        return super().render(batch, media, on_step, cancelled)


@pytest.fixture(scope="module")
def vace(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    chunks = {"frames": 9, "overlap": 1, "max_s": 30}
    folder = obedient.vace(tmp_path_factory.mktemp("vace"))
    return load(
        tiny_variant("wan-vace", folder, shape=SHAPE, chunks=chunks, guidance=1.0, steps=2, fps=8), device="cpu"
    )


@pytest.fixture(scope="module")
def random_vace(tiny_folder: TinyFolder) -> LoadedModel:
    """Its weights are random: what it renders depends on prompt and seed."""
    chunks = {"frames": 9, "overlap": 1, "max_s": 30}
    return load(tiny_variant("wan-vace", tiny_folder("wan-vace"), shape=SHAPE, chunks=chunks, steps=2), device="cpu")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def long_group(model: LoadedModel, *conditions: Condition, overlap: int = 1, **changes: Any) -> Group:
    windows = Windows(frames=9, overlap=overlap)
    mode = I2V if any(one.role in (Role.FIRST_FRAME, Role.KEYFRAME) for one in conditions) else T2V
    return group_of(model.variant, mode, **{"frames": 24, "chunks": windows, "conditions": conditions, **changes})


def long_task(group: Group, prompt: str = "a", seed: int = 1, later: tuple[str, ...] = ()) -> Task:
    media = tuple("x" for _ in group.conditions)
    return replace(task_of(group, prompt, seed, media=media), later=later)


def rendered(model: Any, group: Group, *tasks: Task, media: Any = None, **more: Any) -> list[Any]:
    given = [TaskMedia()] * len(tasks) if media is None else media
    return Renderer(model).render(RenderBatch(group, tasks), media=given, **more)


def frames_of(outcome: Any) -> Frames:
    assert isinstance(outcome, Rendered), outcome
    return outcome.frames


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour)


def colour_of(pixels: Any) -> tuple[int, ...]:
    return tuple(round(float(value)) for value in pixels.reshape(-1, 3).mean(axis=0))


def off(pixels: Any, colour: tuple[int, int, int]) -> int:
    return max(abs(a - b) for a, b in zip(colour_of(pixels), colour, strict=True))


# -- what a chunk is told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [1, 5])
def test_a_chunk_begins_with_the_last_frames_of_the_one_before(vace: LoadedModel, overlap: int) -> None:
    model = Counting(vace)
    group = long_group(vace, FIRST, overlap=overlap)
    (made,) = rendered(model, group, long_task(group), media=[TaskMedia((plain(RED),))])
    clip = frames_of(made)
    assert clip.shape == (24, SIDE, SIDE, 3)
    for call, chunk, (shown,) in list(zip(model.calls, group.cuts, model.shown, strict=True))[1:]:
        known = min(overlap, chunk.first)
        conditions = call.group.conditions
        assert [(one.role, one.frame) for one in conditions] == [
            (Role.KEYFRAME if frame else Role.FIRST_FRAME, frame) for frame in range(known)
        ]
        told = np.stack([np.asarray(one) for one in shown.inputs])
        np.testing.assert_array_equal(told, clip[chunk.first - known : chunk.first])
        # The call itself renders what it is shown: so the frame that is dropped is the one that it follows.
        again = vace.render(call, (shown,), lambda *_: None, frozenset)[0]
        assert isinstance(again, np.ndarray)
        seam = np.abs(again[:known].astype(int) - clip[chunk.first - known : chunk.first].astype(int))
        assert seam.mean() < 4, "continuous, but for what the autoencoder loses"


def test_inputs_reach_the_chunk_in_which_they_are(vace: LoadedModel) -> None:
    """A structure that changes its colour at frame 12, a keyframe in the last chunk, and a first frame."""
    structure = Condition(role=Role.STRUCTURE, medium="video", kind=Kind.RAW)
    late = Condition(role=Role.KEYFRAME, medium="image", frame=20)
    group = long_group(vace, FIRST, structure, late)
    moving = tuple(plain(GREEN if frame < 12 else BLUE) for frame in range(24))
    model = Counting(vace)
    (made,) = rendered(model, group, long_task(group), media=[TaskMedia((plain(RED), moving, plain(RED)))])
    clip = frames_of(made)
    assert off(clip[0], RED) < 20
    assert off(clip[2:9], GREEN) < 20
    assert off(clip[13:17], BLUE) < 20
    placed = [[(one.role.value, one.frame) for one in call.group.conditions if one.frame] for call in model.calls]
    assert placed == [[], [], [("keyframe", 4)]]


def test_a_group_is_called_chunk_by_chunk_with_seeds_of_their_own_and_progress_counts_all(vace: LoadedModel) -> None:
    model, steps = Counting(vace), []
    group = long_group(vace)
    rendered(model, group, long_task(group), on_step=lambda done, total: steps.append((done, total)))
    assert [call.group.mode for call in model.calls] == [T2V, I2V, I2V]
    assert [call.group.frames for call in model.calls] == [9, 9, 9]
    assert len({call.tasks[0].seed for call in model.calls}) == 3
    assert model.calls[0].tasks[0].seed == 1
    assert steps == [(done, 6) for done in range(1, 7)]


# -- prompts -----------------------------------------------------------------------------------------------------------


def test_a_later_prompt_changes_the_later_pixels_and_no_others(random_vace: LoadedModel) -> None:
    group = long_group(random_vace, turns=(12,))
    model = Counting(random_vace)
    one, other = (
        frames_of(rendered(model, group, long_task(group, "a red ball", later=(text,)))[0])
        for text in ("a blue cat", "a heap of green stones")
    )
    np.testing.assert_array_equal(one[:12], other[:12])
    assert np.abs(one[12:].astype(int) - other[12:].astype(int)).max() > 0
    assert [call.tasks[0].prompt for call in model.calls[: len(group.cuts)]] == [
        "a red ball", "a red ball", "a blue cat", "a blue cat",
    ]  # fmt: skip


def test_an_earlier_prompt_acts_on_its_own_time(random_vace: LoadedModel) -> None:
    group = long_group(random_vace, turns=(12,))
    one, other = (
        frames_of(rendered(random_vace, group, long_task(group, text, later=("a blue cat",)))[0])
        for text in ("a red ball", "a heap of green stones")
    )
    assert np.abs(one[:12].astype(int) - other[:12].astype(int)).max() > 0


# -- going on ----------------------------------------------------------------------------------------------------------


@NAMES
def test_who_dies_between_two_chunks_leaves_only_the_rest_to_do(
    random_vace: LoadedModel, store: ObjectStore, names: Any
) -> None:
    group = long_group(random_vace)
    task = replace(long_task(group), fingerprint="0b9e6ee5")
    whole = frames_of(rendered(random_vace, group, task)[0])
    chunks = StoredChunks(store, random_vace.variant.name, names)
    dying = Counting(random_vace, dies_at=2)
    with pytest.raises(KeyboardInterrupt):
        rendered(dying, group, task, chunks=chunks)
    assert len(dying.calls) == 2
    next_one, steps = Counting(random_vace), []
    made = rendered(next_one, group, task, chunks=chunks, on_step=lambda *told: steps.append(told))
    assert [call.tasks[0].seed for call in next_one.calls] == [dying_seed(random_vace, group, task)]
    np.testing.assert_array_equal(frames_of(made[0]), whole)
    assert steps == [(5, 6), (6, 6)]


def dying_seed(model: LoadedModel, group: Group, task: Task) -> int:
    """Of the third call, whoever makes it."""
    counting = Counting(model)
    rendered(counting, group, task)
    return counting.calls[2].tasks[0].seed


def test_a_call_that_raises_is_made_again_and_those_before_it_are_not(vace: LoadedModel, store: ObjectStore) -> None:
    group = long_group(vace)
    tasks = (long_task(group, "a", 1), long_task(group, "b", 2))
    model = Counting(vace, fails_at=1)
    made = rendered(model, group, *tasks, chunks=StoredChunks(store, "v", keys.BULK_NAMES))
    assert [type(one) for one in made] == [Rendered, Rendered]
    # Both together, both together and raised; then each alone for what it lacks.
    assert [len(call.tasks) for call in model.calls] == [2, 2, 1, 1, 1, 1]


def test_a_task_without_a_chunk_leaves_the_others_to_go_on(vace: LoadedModel) -> None:
    class Bad(Counting):
        def render(self, *given: Any) -> Any:
            first, *others = super().render(*given)
            return (BadOutputError("nan") if len(self.calls) == 2 else first, *others)

    group = long_group(vace)
    model = Bad(vace)
    bad, good = rendered(model, group, long_task(group, "a", 1), long_task(group, "b", 2))
    assert isinstance(bad, TaskFailure)
    assert isinstance(good, Rendered)
    assert [len(call.tasks) for call in model.calls] == [2, 2, 1]


def test_chunks_that_are_damaged_or_of_another_variant_are_made_again(vace: LoadedModel, store: ObjectStore) -> None:
    group = long_group(vace)
    task = long_task(group)
    chunks = StoredChunks(store, "v", keys.TASK_NAMES)
    rendered(vace, group, task, chunks=chunks)
    kept = [one.key for one in store.list(keys.task_prefix(task.fingerprint))]
    assert len(kept) == 3
    assert all(chunks.get(task, group, chunk) is not None for chunk in group.cuts)
    store.put(kept[1], b"damaged", "application/zip")
    assert [chunks.get(task, group, chunk) is None for chunk in group.cuts] == [False, True, False]
    other = StoredChunks(store, "another", keys.TASK_NAMES)
    assert other.get(task, group, group.cuts[0]) is None


def test_a_store_that_refuses_costs_no_clip(vace: LoadedModel, store: ObjectStore, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RenderError("full")

    monkeypatch.setattr(type(store), "put", refuse)
    group = long_group(vace)
    (made,) = rendered(vace, group, long_task(group), chunks=StoredChunks(store, "v", keys.BULK_NAMES))
    assert isinstance(made, Rendered)


# -- published ---------------------------------------------------------------------------------------------------------


def worked(
    model: Any, store: ObjectStore, group: Group, task: Task, names: Any = keys.BULK_NAMES, **more: Any
) -> Record | TaskFailure:
    link = ScriptedLink()
    publisher = Publisher(store, model.variant, "r", names=names)
    worker: Worker[WorkItem] = Worker(Renderer(model), publisher, NoMedia(), link, WorkerSettings(stall_s=60.0), **more)
    worker.start()
    try:
        link.work.put(WorkBatch(group, (WorkItem(task, 40.0),)))
        return link.results(1)[task.prompt].end
    finally:
        worker.stop(WAIT_S)


@NAMES
def test_chunks_go_when_the_clip_is_there(vace: LoadedModel, store: ObjectStore, names: Any) -> None:
    group = long_group(vace, turns=(10,))
    task = long_task(group, later=("b",))
    rendered(vace, group, task, chunks=StoredChunks(store, vace.variant.name, names))
    before = {one.key for one in store.list("")}
    assert len(before) == len(group.cuts)
    model = Counting(vace)
    record = worked(model, store, group, task, names)
    assert isinstance(record, Record)
    assert record.clip is not None
    assert (record.clip.frames, model.calls) == (24, []), "all that was there was taken"
    assert not before & {one.key for one in store.list("")}


def test_what_is_done_to_a_long_clip_afterwards_goes_on_from_its_chunks(vace: LoadedModel, store: ObjectStore) -> None:
    plain_group = long_group(vace)
    task = long_task(plain_group)
    rendered(vace, plain_group, task, chunks=StoredChunks(store, vace.variant.name, keys.BULK_NAMES))
    steps, _ = read_steps([{"upscale": 2}])
    stages, _ = resolved_finish(steps, plain_group.shape, plain_group.fps, FLOOR)
    group = Group.model_validate({**plain_group.model_dump(), "finish": stages})
    finished = replace(task, fingerprint=chained(task.fingerprint, stages), base=task.fingerprint)
    model = Counting(vace)
    record = worked(model, store, group, finished)
    assert isinstance(record, Record)
    assert record.clip is not None
    assert (record.clip.width, record.clip.frames, model.calls) == (2 * SIDE, 24, [])
    assert not list(store.list(keys.CHUNKS))


def test_a_clip_that_moderation_refuses_leaves_no_chunk(vace: LoadedModel, store: ObjectStore) -> None:
    said = Finding(part=ModeratedPart.OUTPUT_VIDEO, outcome=ModerationOutcome.REFUSE, scorer="t", category="violence")
    found = Moderation(findings=(said,))

    class Refusing:
        def media(self, *_: Any) -> Moderation:
            return Moderation()

        def clip(self, *_: Any) -> Moderation:
            return found

    group = long_group(vace)
    end = worked(vace, store, group, long_task(group), moderator=Refusing())
    assert isinstance(end, TaskFailure)
    assert isinstance(end.error, ModerationRefusedError)
    assert not list(store.list(keys.CHUNKS))
