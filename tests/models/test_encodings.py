"""Videos and pictures are encoded once, and clips are the same bit for bit as if they were encoded each time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from models.encodings import EncodingCounts, Encodings
from models.loaded import LoadedModel
from models.model import ignore_step, nobody_cancelled
from schemas.task import RenderBatch
from tests.models.conftest import TinyModel
from tests.models.tiny_variants import FAMILIES, I2V, SLOW, T2V, batch_of, group_of, media_of

CASES = [
    pytest.param(family, mode, marks=[pytest.mark.slow] if family in SLOW else [], id=f"{family}-{mode.value}")
    for family, facts in FAMILIES.items()
    for mode in facts["modes"]
    if mode is not T2V or family == "wan-vace"
]


def render(model: LoadedModel, batch: RenderBatch) -> list[Any]:
    clips = model.render(batch, media_of(batch), ignore_step, nobody_cancelled)
    for clip in clips:
        assert isinstance(clip, np.ndarray), clip
    return list(clips)


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_clips_are_the_same_from_memory(family: str, mode: Any, tiny_model: TinyModel) -> None:
    model = tiny_model(family)
    batch = batch_of(group_of(model.variant, mode), "a red ball")
    plain = render(replace(model, encodings=Encodings(0)), batch)
    keeping = replace(model, encodings=Encodings())
    first = render(keeping, batch)
    encoded = keeping.encodings.counts.encoded
    again = render(keeping, batch)
    for one in (first, again):
        assert all(np.array_equal(a, b) for a, b in zip(one, plain, strict=True))
    assert encoded > 0
    assert keeping.encodings.counts.encoded == encoded, "encoded anew"
    assert keeping.encodings.counts.reused >= encoded


def test_a_clip_of_text_alone_encodes_one_grey_video_and_the_next_one_none(tiny_model: TinyModel) -> None:
    model = replace(tiny_model("wan-vace"), encodings=Encodings())
    group = group_of(model.variant, T2V)
    for prompt, counts in (("a red ball", EncodingCounts(1, 1)), ("a blue box", EncodingCounts(1, 3))):
        render(model, batch_of(group, prompt))
        assert model.encodings.counts == counts


def test_another_first_frame_is_encoded(tiny_model: TinyModel) -> None:
    model = replace(tiny_model("wan-vace"), encodings=Encodings())
    batch = batch_of(group_of(model.variant, I2V), "a red ball", "a blue box")  # each has a picture of its own
    render(model, batch)
    # Two videos that show the frame, one of what is to be made.
    assert model.encodings.counts == EncodingCounts(3, 1)


class Vae:
    """Encodes as its videos' first numbers; counts its calls."""

    def __init__(self, deterministic: bool = False) -> None:
        self.calls = 0
        self.deterministic = deterministic

    def encode(self, video: torch.Tensor, return_dict: bool = True) -> Any:
        self.calls += 1
        found = DiagonalGaussianDistribution(video[:, :2].clone(), self.deterministic)
        return AutoencoderKLOutput(latent_dist=found) if return_dict else (found,)


class Pipe:
    def __init__(self, vae: Any) -> None:
        self.vae = vae


VIDEO = torch.arange(1 * 4 * 3 * 2 * 2, dtype=torch.float32).reshape(1, 4, 3, 2, 2)


@torch.no_grad()
def test_what_a_pipeline_writes_to_an_encoding_does_not_come_back() -> None:
    pipe = Pipe(Vae())
    with Encodings().attached(pipe):
        for _ in range(3):
            mode = pipe.vae.encode(VIDEO).latent_dist.mode()
            assert torch.equal(mode, VIDEO[:, :1])
            mode.zero_()
    assert pipe.vae.calls == 1


@torch.no_grad()
def test_draws_from_a_kept_distribution_are_those_of_the_generator() -> None:
    pipe = Pipe(Vae())

    def drawn() -> torch.Tensor:
        return pipe.vae.encode(VIDEO / 100).latent_dist.sample(torch.Generator().manual_seed(7))

    plain = drawn()
    with Encodings().attached(pipe):
        assert torch.equal(drawn(), plain)
        assert torch.equal(drawn(), plain)
    assert pipe.vae.calls == 2


@torch.no_grad()
def test_inputs_that_differ_in_a_number_a_precision_or_a_shape_are_told_apart() -> None:
    pipe = Pipe(Vae())
    other = VIDEO.clone()
    other[0, 3, 2, 1, 1] += 1
    grey = torch.zeros_like(VIDEO)
    different = (VIDEO, other, VIDEO.double(), VIDEO[:, :, :2], VIDEO.transpose(3, 4), grey, grey + 1, grey[:, :, :1])
    with Encodings().attached(pipe):
        for _ in range(2):
            for video in different:
                assert torch.equal(pipe.vae.encode(video).latent_dist.mode(), video[:, :1])
    assert pipe.vae.calls == len(different)


@torch.no_grad()
def test_a_zero_is_a_zero_whatever_its_sign() -> None:
    pipe = Pipe(Vae())
    with Encodings().attached(pipe):
        for sign in (1, -1):
            blanked = VIDEO.clone()
            blanked[:, 1:] *= 0 * sign
            blanked[:, :, 0] = 0.0 * sign
            pipe.vae.encode(blanked)
    assert pipe.vae.calls == 1


@torch.no_grad()
def test_memory_is_bounded_and_what_was_used_last_stays() -> None:
    pipe = Pipe(Vae())
    kept_bytes = VIDEO[:, :2].nbytes
    with Encodings(2 * kept_bytes).attached(pipe):
        for video in (VIDEO, VIDEO + 1, VIDEO, VIDEO + 2, VIDEO):
            pipe.vae.encode(video)
        assert pipe.vae.calls == 3
        pipe.vae.encode(VIDEO + 1)
        assert pipe.vae.calls == 4
    with Encodings(kept_bytes - 1).attached(pipe):
        pipe.vae.encode(VIDEO)
        pipe.vae.encode(VIDEO)
        assert pipe.vae.calls == 6


def test_calls_of_another_kind_go_to_the_vae_as_they_are() -> None:
    pipe = Pipe(Vae())
    with Encodings().attached(pipe):
        for _ in range(2):
            pipe.vae.encode(VIDEO)  # under autograd
            with torch.no_grad():
                assert isinstance(pipe.vae.encode(VIDEO, return_dict=False), tuple)
    assert pipe.vae.calls == 4
    settled = Pipe(Vae(deterministic=True))
    with torch.no_grad(), Encodings().attached(settled):
        for _ in range(2):
            assert settled.vae.encode(VIDEO).latent_dist.deterministic
    assert settled.vae.calls == 2
    assert "encode" not in vars(settled.vae), "left behind"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_on_a_gpu_only_plain_videos_are_known() -> None:
    pipe = Pipe(Vae())
    with Encodings().attached(pipe):
        for _ in range(2):
            pipe.vae.encode(torch.zeros_like(VIDEO).cuda())
            pipe.vae.encode(VIDEO.cuda())
    assert pipe.vae.calls == 3
