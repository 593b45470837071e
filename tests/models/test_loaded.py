"""Rendering with real diffusers pipelines, tiny and random."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch

from models.loaded import LoadedModel
from models.loader import load
from models.model import TaskMedia, ignore_step, nobody_cancelled
from schemas.errors import BadOutputError, CancelledError, MediaError, OutOfMemoryError, RenderError
from schemas.request import Mode
from schemas.task import RenderBatch
from tests.models.conftest import TinyFolder, TinyModel
from tests.models.tiny_variants import FAMILIES, I2V, SLOW, batch_of, group_of, media_of, tiny_variant

CASES = [
    pytest.param(family, mode, marks=[pytest.mark.slow] if family in SLOW else [], id=f"{family}-{mode.value}")
    for family, facts in FAMILIES.items()
    for mode in facts["modes"]
]


def render(model: LoadedModel, batch: RenderBatch, media: tuple[TaskMedia, ...] | None = None) -> list[Any]:
    """The clips of a batch, all of which must be there."""
    clips = model.render(batch, media or media_of(batch), ignore_step, nobody_cancelled)
    for clip in clips:
        assert isinstance(clip, np.ndarray), clip
    return list(clips)


def worst(left: Any, right: Any) -> int:
    return int(np.abs(left.astype(int) - right.astype(int)).max())


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_a_clip_does_not_depend_on_its_batch_mates(tiny_model: TinyModel, family: str, mode: Mode) -> None:
    model = tiny_model(family)
    batch = batch_of(group_of(model.variant, mode), "a red ball", "a much longer prompt than the others", "")
    media = media_of(batch)
    together = render(model, batch, media)
    for task, own_media, clip in zip(batch.tasks, media, together, strict=True):
        alone = render(model, RenderBatch(batch.group, (task,)), (own_media,))[0]
        assert clip.shape == (batch.group.frames, batch.group.height, batch.group.width, 3)
        # Sums over a batch run in another order than over one: a rounding step of 1 of 255, in few values.
        assert worst(clip, alone) <= 1
        assert (clip != alone).mean() < 0.001
    assert worst(together[0], together[1]) > 8, "different tasks gave the same clip"


def test_the_same_batch_renders_the_same_bytes_whatever_was_rendered_before(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    batch = batch_of(group_of(model.variant), "a", "b")
    first = render(model, batch)
    torch.rand(7)
    render(model, batch_of(group_of(model.variant), "something else"))
    assert all((a == b).all() for a, b in zip(first, render(model, batch), strict=True))


def test_a_negative_prompt_of_a_batch_mate_changes_nothing(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    plain, negative = batch_of(group_of(model.variant), "a", "b").tasks
    assert negative.negative_prompt
    group = group_of(model.variant)
    alone = render(model, RenderBatch(group, (plain,)))[0]
    beside = render(model, RenderBatch(group, (negative, plain)))[1]
    assert worst(alone, beside) <= 1


@pytest.mark.parametrize("family", ["wan", "ltx", "animatediff"])
def test_progress_counts_every_step_once(tiny_model: TinyModel, family: str) -> None:
    model = tiny_model(family)
    seen: list[tuple[int, int]] = []
    batch = batch_of(group_of(model.variant, steps=4), "a", "b")
    model.render(batch, media_of(batch), lambda done, total: seen.append((done, total)), nobody_cancelled)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_progress_of_tasks_rendered_one_by_one_runs_over_all_of_them(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    seen: list[tuple[int, int]] = []
    batch = batch_of(group_of(model.variant, I2V, steps=2), "a", "b")
    model.render(batch, media_of(batch), lambda done, total: seen.append((done, total)), nobody_cancelled)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    "family", ["wan", "animatediff", pytest.param("svd", marks=pytest.mark.slow), "cogvideox", "ltx"]
)
def test_cancelling_every_task_stops_after_the_step(tiny_model: TinyModel, family: str) -> None:
    model = tiny_model(family)
    batch = batch_of(group_of(model.variant, steps=4), "a", "b")
    before = render(model, batch)
    steps: list[int] = []
    everyone = frozenset(task.fingerprint for task in batch.tasks)
    clips = model.render(
        batch, media_of(batch), lambda done, _: steps.append(done), lambda: everyone if steps else frozenset()
    )
    assert steps == [1]
    assert all(isinstance(clip, CancelledError) for clip in clips)
    assert all((a == b).all() for a, b in zip(before, render(model, batch), strict=True)), "the model was left dirty"


def test_cancelling_one_task_leaves_its_batch_mate_as_it_was(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    batch = batch_of(group_of(model.variant), "a", "b")
    gone, kept = model.render(batch, media_of(batch), ignore_step, lambda: frozenset({batch.tasks[0].fingerprint}))
    assert isinstance(gone, CancelledError)
    assert (kept == render(model, batch)[1]).all()


def test_frames_that_are_not_numbers_are_no_clip(tiny_folder: TinyFolder) -> None:
    model = load(tiny_variant("wan", tiny_folder("wan")), device="cpu")
    with torch.no_grad():
        model.pipes[Mode.TEXT_TO_VIDEO].vae.post_quant_conv.bias.fill_(float("nan"))
    batch = batch_of(group_of(model.variant), "a")
    (clip,) = model.render(batch, media_of(batch), ignore_step, nobody_cancelled)
    assert isinstance(clip, BadOutputError)
    assert "NaN" in str(clip)


def test_a_frame_count_that_the_model_rounds_away_is_no_clip(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    batch = batch_of(group_of(model.variant, frames=7), "a")
    (clip,) = model.render(batch, media_of(batch), ignore_step, nobody_cancelled)
    assert isinstance(clip, BadOutputError)
    assert "5×3×32×32, not 7×3×32×32" in str(clip)


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError, "CUDA out of memory"),
        (MemoryError(), OutOfMemoryError, "MemoryError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemoryError, "allocate"),
        (ValueError("bad latents"), RenderError, "ValueError: bad latents"),
    ],
)
def test_what_the_pipeline_raises_becomes_an_error_of_ours(
    tiny_folder: TinyFolder, raised: Exception, expected: type[Exception], text: str
) -> None:
    model = load(tiny_variant("wan", tiny_folder("wan")), device="cpu")

    def fail(*_: object) -> None:
        raise raised

    handle = model.pipes[Mode.TEXT_TO_VIDEO].transformer.register_forward_pre_hook(fail)
    batch = batch_of(group_of(model.variant), "a")
    with pytest.raises(expected, match=text):
        model.render(batch, media_of(batch), ignore_step, nobody_cancelled)
    handle.remove()
    render(model, batch)


def test_a_request_may_name_another_scheduler(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    own = render(model, batch_of(group_of(model.variant), "a"))[0]
    other = render(model, batch_of(group_of(model.variant, scheduler="UniPCMultistepScheduler"), "a"))[0]
    assert worst(own, other) > 0
    assert (own == render(model, batch_of(group_of(model.variant), "a"))[0]).all(), "the model's own came back"


def test_an_unknown_scheduler_is_refused_with_the_choices(tiny_model: TinyModel) -> None:
    model = tiny_model("animatediff")
    batch = batch_of(group_of(model.variant, scheduler="FlowMatchEulerDiscreteScheduler"), "a")
    with pytest.raises(RenderError, match=r"available: DDIMScheduler, .*EulerDiscreteScheduler"):
        model.render(batch, media_of(batch), ignore_step, nobody_cancelled)


def test_schedulers_that_ignore_generators_render_tasks_one_by_one(tiny_folder: TinyFolder) -> None:
    options = {"stochastic_sampling": True}
    model = load(tiny_variant("wan", tiny_folder("wan"), scheduler_options=options), device="cpu")
    batch = batch_of(group_of(model.variant), "a", "b")
    together = render(model, batch)
    alone = [render(model, RenderBatch(batch.group, (task,)))[0] for task in batch.tasks]
    assert all((a == b).all() for a, b in zip(together, alone, strict=True))


def test_a_task_without_its_image_is_refused(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    batch = batch_of(group_of(model.variant, I2V), "a")
    with pytest.raises(MediaError, match="needs 'first_frame'"):
        model.render(batch, (TaskMedia(),), ignore_step, nobody_cancelled)


def test_strength_decides_how_much_of_a_video_stays(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    clips = {}
    for strength in (0.3, 0.9):
        batch = batch_of(group_of(model.variant, Mode.VIDEO_TO_VIDEO, steps=6, strength=strength), "a")
        clips[strength] = render(model, batch)[0]
    assert worst(clips[0.3], clips[0.9]) > 0


def test_a_strength_that_leaves_no_step_is_refused_with_the_least(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    batch = batch_of(group_of(model.variant, Mode.VIDEO_TO_VIDEO, steps=3, strength=0.3), "a")
    with pytest.raises(RenderError, match=r"strength 0\.3 of 3 steps leaves none; at least 0\.33"):
        render(model, batch)


@pytest.mark.slow
def test_guidance_reaches_a_pipeline_that_has_a_guider(tiny_model: TinyModel) -> None:
    model = tiny_model("hunyuanvideo15")
    clips = [
        render(model, batch_of(group_of(model.variant, guidance=guidance, steps=2), "a"))[0] for guidance in (1.0, 9.0)
    ]
    assert model.pipes[Mode.TEXT_TO_VIDEO].guider.guidance_scale == 9.0
    assert worst(*clips) > 0


def test_an_error_keeps_nothing_of_the_call_alive(tiny_folder: TinyFolder) -> None:
    model = load(tiny_variant("wan", tiny_folder("wan")), device="cpu")
    latents: list[weakref.ref[torch.Tensor]] = []

    def fail(_: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        latents.append(weakref.ref(kwargs["hidden_states"]))
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.pipes[Mode.TEXT_TO_VIDEO].transformer.register_forward_pre_hook(fail, with_kwargs=True)
    batch = batch_of(group_of(model.variant), "a")
    with pytest.raises(OutOfMemoryError) as caught:
        model.render(batch, media_of(batch), ignore_step, nobody_cancelled)
    assert caught.value is not None
    assert latents[0]() is None
