"""Texts are encoded once, and clips are the same bit for bit as if they were encoded each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.families import arguments
from models.loaded import LoadedModel, to_clip
from models.model import PromptCounts, TaskMedia, ignore_step, nobody_cancelled
from models.prompt_cache import PromptCache, methods_of
from schemas.errors import StorageUnavailableError
from schemas.request import Mode
from schemas.task import RenderBatch
from tests.models.conftest import TinyFolder, TinyModel
from tests.models.tiny_variants import FAMILIES, I2V, SLOW, T2V, batch_of, group_of, media_of

PROMPTS = ("a red ball", "a much longer prompt than the others", "a red ball", "")
CASES = [
    pytest.param(family, mode, marks=[pytest.mark.slow] if family in SLOW else [], id=f"{family}-{mode.value}")
    for family, facts in FAMILIES.items()
    for mode in facts["modes"]
]


def cached(model: LoadedModel, **settings: Any) -> LoadedModel:
    """The same model with a cache of its own."""
    return replace(model, prompts=PromptCache(model.prompts.identity, **settings))


def render(model: LoadedModel, batch: RenderBatch) -> list[Any]:
    clips = model.render(batch, media_of(batch), ignore_step, nobody_cancelled)
    for clip in clips:
        assert isinstance(clip, np.ndarray), clip
    return list(clips)


@contextmanager
def encodings(model: LoadedModel) -> Iterator[list[int]]:
    """How many texts each call of a text encoder gets meanwhile."""
    seen: list[int] = []
    pipe = next(iter(model.pipes.values()))
    encoders = [part for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None]

    def count(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(len(args[0] if args else kwargs["input_ids"]))

    handles = [encoder.register_forward_pre_hook(count, with_kwargs=True) for encoder in encoders]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_clips_are_equal_bit_for_bit_with_and_without_what_was_kept(
    tiny_model: TinyModel, family: str, mode: Mode
) -> None:
    model = tiny_model(family)
    batch = batch_of(group_of(model.variant, mode), *PROMPTS)
    with_cache, without = cached(model), cached(model, memory_bytes=0)
    first, again, never = render(with_cache, batch), render(with_cache, batch), render(without, batch)
    for one, two, three in zip(first, again, never, strict=True):
        assert (one == two).all()
        assert (one == three).all()


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_a_task_alone_is_the_clip_that_the_pipeline_makes_by_itself(
    tiny_model: TinyModel, family: str, mode: Mode
) -> None:
    model = cached(tiny_model(family))
    batch = batch_of(group_of(model.variant, mode), "a red ball")
    render(model, batch)
    kept = render(model, batch)[0]
    pipe, (media,) = model.pipes[mode], media_of(batch)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(task.seed) for task in batch.tasks]
    guider = getattr(pipe, "guider", None)
    if guider is not None:
        pipe.guider = guider.new(guidance_scale=batch.group.guidance)
    torch.manual_seed(batch.tasks[0].seed)
    (plain,) = pipe(**arguments(model.forms[mode], model.variant, batch, [media], generators)).frames
    assert (to_clip(plain, batch, "plain") == kept).all()


@pytest.mark.parametrize(
    "family",
    [
        *(name for name in ("wan", "wan-vace", "ltx", "ltx-condition", "cogvideox", "animatediff")),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mochi", "hunyuanvideo", "hunyuanvideo15")),
    ],
)
def test_an_encoder_sees_each_text_once(tiny_model: TinyModel, family: str) -> None:
    model = cached(tiny_model(family))
    batch = batch_of(group_of(model.variant, T2V), *PROMPTS)
    with encodings(model) as seen:
        render(model, batch)
        assert seen
        assert set(seen) == {1}
        seen.clear()
        render(model, batch)
        render(model, RenderBatch(batch.group, batch.tasks[1:3]))
    assert seen == []
    assert model.prompt_counts.encoded > 0
    assert model.prompt_counts.reused > model.prompt_counts.encoded


def test_texts_are_counted_by_where_they_came_from(tiny_model: TinyModel) -> None:
    model = cached(tiny_model("wan"))
    # Three prompts and one negative prompt beside the empty one, which is a prompt too.
    render(model, batch_of(group_of(model.variant), *PROMPTS))
    assert model.prompt_counts == PromptCounts(encoded=4, from_memory=4)
    assert PromptCounts(5, 3, 1) - PromptCounts(2, 1, 1) == PromptCounts(3, 2, 0)


def test_without_guidance_no_negative_prompt_is_encoded(tiny_model: TinyModel) -> None:
    model = cached(tiny_model("wan"))
    render(model, batch_of(group_of(model.variant, guidance=1.0), "a", "b"))
    assert model.prompt_counts == PromptCounts(encoded=2)


def test_an_image_beside_the_text_changes_nothing_about_it(tiny_model: TinyModel) -> None:
    model = cached(tiny_model("wan"))
    batch = batch_of(group_of(model.variant, I2V), "a", "a")
    render(model, batch)
    before = model.prompt_counts
    render(model, batch)
    assert (model.prompt_counts - before).encoded == 0


def embeds(found: Any) -> torch.Tensor:
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("family", ["wan", "ltx", "animatediff"])
def test_what_a_text_becomes_does_not_depend_on_its_batch_mates(tiny_model: TinyModel, family: str) -> None:
    model = cached(tiny_model(family), memory_bytes=0)
    pipe = model.pipes[T2V]
    (name, *_) = methods_of(type(pipe))
    more = {"device": torch.device("cpu"), "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    given = more if name == "encode_prompt" else {}
    with torch.no_grad(), model.prompts.attached(pipe):
        together = getattr(pipe, name)(prompt=list(PROMPTS), **given)
        alone = [getattr(pipe, name)(prompt=[prompt], **given) for prompt in PROMPTS]
    assert torch.equal(embeds(together), torch.cat([embeds(one) for one in alone]))


@pytest.mark.slow
def test_an_empty_prompt_does_not_blank_its_batch_mates(tiny_model: TinyModel) -> None:
    model = tiny_model("mochi")
    pipe = model.pipes[T2V]
    pipe.register_to_config(force_zeros_for_empty_prompt=True)
    try:
        with torch.no_grad():
            blanked = pipe._get_t5_prompt_embeds(prompt=["a ball", ""])[1]
            with cached(model).prompts.attached(pipe):
                ours = pipe._get_t5_prompt_embeds(prompt=["a ball", ""])[1]
    finally:
        pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert not blanked.any(), "diffusers no longer does so: say so in models/prompt_cache.py"
    assert ours[0].any()
    assert not ours[1].any()


def test_a_model_without_texts_has_nothing_to_keep(tiny_model: TinyModel) -> None:
    import diffusers

    assert methods_of(diffusers.StableVideoDiffusionPipeline) == ()
    assert methods_of(diffusers.WanPipeline) == ("_get_t5_prompt_embeds",)
    assert methods_of(diffusers.HunyuanVideoPipeline) == ("_get_clip_prompt_embeds", "_get_llama_prompt_embeds")
    assert methods_of(diffusers.AnimateDiffPipeline) == ("encode_prompt",)


def test_memory_has_a_bound_and_what_was_used_last_is_kept(tiny_model: TinyModel) -> None:
    model = tiny_model("wan")
    group = group_of(model.variant, guidance=1.0)
    one_text = 512 * 32 * 4
    small = cached(model, memory_bytes=2 * one_text)
    for prompt in ("a", "b", "a", "c"):
        render(small, batch_of(group, prompt))
    before = small.prompt_counts
    assert before == PromptCounts(encoded=3, from_memory=1)
    render(small, batch_of(group, "a"))
    render(small, batch_of(group, "b"))
    assert small.prompt_counts - before == PromptCounts(encoded=1, from_memory=1)
    tiny = cached(model, memory_bytes=one_text - 1)
    render(tiny, batch_of(group, "a", "a"))
    assert tiny.prompt_counts == PromptCounts(encoded=2)


class Shelf:
    """A store in memory; `away` has it answer as one that is not there."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False

    def get(self, key: str) -> bytes | None:
        if self.away:
            raise StorageUnavailableError("the store is away")
        return self.objects.get(key)

    def put(self, key: str, data: bytes) -> None:
        if self.away:
            raise StorageUnavailableError("the store is away")
        self.objects[key] = data


@pytest.mark.parametrize(
    "family",
    ["wan", "ltx", "animatediff", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mochi", "hunyuanvideo"))],
)
def test_other_processes_take_what_one_left(tiny_model: TinyModel, family: str) -> None:
    model, shelf = tiny_model(family), Shelf()
    batch = batch_of(group_of(model.variant, T2V), *PROMPTS)
    one, other = (cached(model, store=shelf, large_parameters=0) for _ in range(2))
    clips = render(one, batch)
    with encodings(other) as seen:
        taken = render(other, batch)
    assert seen == []
    assert other.prompt_counts.encoded == 0
    assert other.prompt_counts.from_store == one.prompt_counts.encoded == len(shelf.objects)
    assert all((a == b).all() for a, b in zip(clips, taken, strict=True))


def test_small_encoders_do_not_ask_a_store(tiny_model: TinyModel) -> None:
    model, shelf = tiny_model("wan"), Shelf()
    render(cached(model, store=shelf), batch_of(group_of(model.variant), "a"))
    assert shelf.objects == {}


def test_a_store_that_is_away_or_damaged_costs_an_encoding(tiny_model: TinyModel) -> None:
    model, shelf = tiny_model("wan"), Shelf()
    batch = batch_of(group_of(model.variant), "a", "b")
    clips = render(cached(model, store=shelf, large_parameters=0), batch)
    shelf.objects = {key: data[:-7] for key, data in shelf.objects.items()}
    damaged = cached(model, store=shelf, large_parameters=0)
    assert all((a == b).all() for a, b in zip(clips, render(damaged, batch), strict=True))
    assert damaged.prompt_counts.from_store == 0
    shelf.away = True
    alone = cached(model, store=shelf, large_parameters=0)
    assert all((a == b).all() for a, b in zip(clips, render(alone, batch), strict=True))
    assert alone.prompt_counts.encoded == 4


def test_embeddings_of_other_weights_adapters_or_precision_are_others(tiny_model: TinyModel) -> None:
    model, shelf = tiny_model("wan"), Shelf()
    batch = batch_of(group_of(model.variant, guidance=1.0), "a")
    for identity in ("weights one", "weights two"):
        prompts = PromptCache(identity, store=shelf, large_parameters=0)
        render(replace(model, prompts=prompts), batch)
        assert prompts.counts == PromptCounts(encoded=1)
    assert len(shelf.objects) == 2
    assert model.revision in model.prompts.identity
    assert model.variant.digest in model.prompts.identity
    assert torch.__version__ in model.prompts.identity


class Longest:
    """Pads to the longest of the batch, as some pipelines do, and takes an image as others do."""

    components: dict[str, Any] = {}  # noqa: RUF012

    def _get_text_prompt_embeds(self, prompt: list[str], image: Any = None, scale: float = 1.0) -> torch.Tensor:
        longest = max(map(len, prompt))
        shift = 0.0 if image is None else float(image.sum())
        return torch.stack([torch.tensor([ord(c) * scale + shift for c in text.ljust(longest)]) for text in prompt])


def test_what_is_not_one_row_a_text_goes_to_the_pipelines_own_method() -> None:
    cache, pipe = PromptCache("longest"), Longest()
    with cache.attached(pipe):
        assert torch.equal(pipe._get_text_prompt_embeds(["ab", "c"]), Longest()._get_text_prompt_embeds(["ab", "c"]))
        assert torch.equal(pipe._get_text_prompt_embeds(["ab", "c"]), Longest()._get_text_prompt_embeds(["ab", "c"]))
    assert "_get_text_prompt_embeds" not in vars(pipe)


def test_other_arguments_are_other_embeddings_and_pictures_are_not_looked_up() -> None:
    cache, pipe = PromptCache("longest"), Longest()
    with cache.attached(pipe):
        one, two = pipe._get_text_prompt_embeds(["ab"]), pipe._get_text_prompt_embeds(["ab"], scale=2.0)
        assert torch.equal(two, 2 * one)
        assert torch.equal(pipe._get_text_prompt_embeds("ab"), one)
        before = cache.counts
        for value in (1.0, 2.0):
            shown = pipe._get_text_prompt_embeds(["ab"], image=torch.tensor([value]))
            assert torch.equal(shown, one + value)
        assert cache.counts == before
        one += 1  # what a pipeline does to what it got is not what is kept
        assert torch.equal(pipe._get_text_prompt_embeds(["ab"]), one - 1)


def test_a_loaded_model_forgets_nothing_of_its_own_and_keeps_no_stand_in(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    from models.loader import load
    from tests.models.tiny_variants import tiny_variant

    model = load(tiny_variant("wan", tiny_folder("wan")), device="cpu", prompt_bytes=0)
    batch = batch_of(group_of(model.variant), "a")
    model.render(batch, (TaskMedia(),), ignore_step, nobody_cancelled)
    assert "_get_t5_prompt_embeds" not in vars(model.pipes[T2V])
    assert model.prompts.memory_bytes == 0
