"""A model that is split among processes renders what one process renders, and its processes end with it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.distributed as dist

from models.components import component_class
from models.loader import load, load_model
from models.model import Frames, ignore_step, nobody_cancelled
from models.sharded import ShardedModel, split_denoiser
from schemas.catalog import Variant
from schemas.errors import CancelledError, RenderError, VariantLoadError
from schemas.request import Mode
from schemas.sharding import SPLIT
from tests.models.conftest import TinyFolder, TinyModel
from tests.models.tiny_variants import batch_of, group_of, media_of, tiny_variant

T2V = Mode.TEXT_TO_VIDEO
TWO = {"needs": {"gpus": 2, "cpus": 1}}


@pytest.fixture(scope="module")
def variant(tiny_folder: TinyFolder) -> Variant:
    return tiny_variant("wan", tiny_folder("wan"), **TWO)


@pytest.fixture(scope="module")
def sharded(variant: Variant) -> Iterator[ShardedModel]:
    model = load_model(variant, modes=[T2V])
    assert isinstance(model, ShardedModel)
    yield model
    model.close()


def rendered(model: Any, *prompts: str, on_step: Any = ignore_step, **changes: Any) -> tuple[Any, ...]:
    batch = batch_of(group_of(model.variant, T2V, **changes), *prompts)
    found: tuple[Any, ...] = model.render(batch, media_of(batch), on_step, nobody_cancelled)
    return found


def apart(some: tuple[Frames, ...], others: tuple[Frames, ...]) -> int:
    return max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(some, others, strict=True))


def test_two_processes_render_what_one_does(sharded: ShardedModel, tiny_model: TinyModel) -> None:
    one, steps = tiny_model("wan"), []
    found = rendered(sharded, "a red ball", "a fox", on_step=lambda done, total: steps.append((done, total)))
    assert apart(found, rendered(one, "a red ball", "a fox")) <= 1
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert sharded.revision == one.revision
    assert sharded.prompt_counts.encoded >= 3


def test_what_nobody_wants_any_more_is_left_by_all_at_the_same_step(sharded: ShardedModel) -> None:
    batch = batch_of(group_of(sharded.variant, T2V), "a")
    seen: list[int] = []

    def cancelled() -> frozenset[str]:
        return frozenset(task.fingerprint for task in batch.tasks) if seen else frozenset()

    (end,) = sharded.render(batch, media_of(batch), lambda done, total: seen.append(done), cancelled)
    assert isinstance(end, CancelledError)
    assert seen == [1]
    assert isinstance(rendered(sharded, "a")[0], np.ndarray)


@pytest.mark.slow
def test_a_process_that_dies_fails_its_call_and_the_next_has_new_ones(sharded: ShardedModel) -> None:
    def kill(done: int, total: int) -> None:
        sharded._ranks[1][0].kill()

    with pytest.raises(RenderError, match="the process of GPU 1 ended with -9"):
        rendered(sharded, "a", on_step=kill)
    assert sharded._ranks == []
    assert isinstance(rendered(sharded, "a")[0], np.ndarray)


def _split_in_two(rank: int, pipe: Any, file: Path, out: Path) -> None:
    """The call of one of two processes: what its blocks were given, and what came out."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    split_denoiser(pipe, 2, "cpu")
    given: list[int] = []
    pipe.transformer.blocks[1].register_forward_pre_hook(lambda _, arguments: given.append(arguments[0].shape[1]))
    torch.save((given, _pixels(pipe)), out)


def _pixels(pipe: Any) -> torch.Tensor:
    with torch.inference_mode():
        call = {"width": 32, "height": 32, "num_frames": 5, "num_inference_steps": 2, "output_type": "pt"}
        made: torch.Tensor = pipe(prompt=["a"], generator=torch.Generator().manual_seed(1), **call).frames
    return made


def test_each_process_has_half_of_the_tokens(variant: Variant, tmp_path: Path) -> None:
    pipe = load(variant, device="cpu", modes=[T2V]).pipes[T2V]
    whole = _pixels(pipe)
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            try:
                _split_in_two(rank, pipe, tmp_path / "meeting", tmp_path / f"{rank}.pt")
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    for rank in range(2):
        given, found = torch.load(tmp_path / f"{rank}.pt")
        assert set(given) == {4}  # of 8
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-4)


def test_the_classes_that_split_have_denoisers_of_which_diffusers_says_how() -> None:
    for name in SPLIT:
        assert component_class(getattr(diffusers, name), "transformer")._cp_plan


def test_a_denoiser_without_a_plan_is_refused(tiny_model: TinyModel) -> None:
    pipe = next(iter(tiny_model("cogvideox").pipes.values()))
    with pytest.raises(VariantLoadError, match="CogVideoXTransformer3DModel .transformer. cannot be split"):
        split_denoiser(pipe, 2, "cpu")


def test_on_a_cpu_that_was_asked_for_it_is_one_process(variant: Variant) -> None:
    assert not isinstance(load_model(variant, device="cpu", modes=[T2V]), ShardedModel)
