"""The fitted encoder is exact, fast, and true to what VACE takes for granted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from training.directed.codec import CodecConfig, FastEncoder, build, decode
from training.directed.decoding import DecodingConfig, averaged, clips_for, psnr, train


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return clips_for(np.random.default_rng(5), 2, torch.device("cpu"))


@torch.no_grad()
def test_the_matrix_gives_what_the_network_gives(codec: AutoencoderKLWan, clips: torch.Tensor) -> None:
    assert torch.allclose(FastEncoder(codec)(clips), codec.encode(clips).latent_dist.mode(), atol=2e-3)


def test_gray_is_zero_so_that_a_clip_under_a_mask_says_nothing(codec: AutoencoderKLWan) -> None:
    assert FastEncoder(codec)(torch.zeros(1, 3, 5, 32, 32)).abs().max() < 1e-5


def test_a_clip_that_stands_still_is_coded_as_its_first_frame(codec: AutoencoderKLWan, clips: torch.Tensor) -> None:
    still = clips[:, :, :1].expand(-1, -1, 5, -1, -1)
    codes = FastEncoder(codec)(still)
    assert torch.allclose(codes[:, :, 0], codes[:, :, 1], atol=1e-3)


def test_latents_have_a_variance_of_about_one(codec: AutoencoderKLWan, clips: torch.Tensor) -> None:
    assert 0.2 < float(FastEncoder(codec).normalised(clips).var()) < 5


@torch.no_grad()
def test_decoding_without_the_clamp_is_the_decoding_of_the_class(codec: AutoencoderKLWan, clips: torch.Tensor) -> None:
    latents = FastEncoder(codec)(clips[:1, :, :5, :32, :32])
    assert torch.equal(decode(codec, latents).clamp(-1, 1), codec.decode(latents).sample)


def test_latents_come_back_from_the_transformers_units(codec: AutoencoderKLWan, clips: torch.Tensor) -> None:
    encode = FastEncoder(codec)
    assert torch.allclose(encode.restored(encode.normalised(clips)), encode(clips), atol=1e-4)


def test_the_decoder_learns_goes_on_where_it_was_left_and_leaves_the_encoder_alone(
    codec: AutoencoderKLWan, tmp_path: Path
) -> None:
    out = tmp_path
    vae = build(CodecConfig())
    vae.load_state_dict(codec.state_dict())
    vae.register_to_config(latents_mean=codec.config.latents_mean, latents_std=codec.config.latents_std)
    before = {name: value.clone() for name, value in vae.encoder.state_dict().items()}
    short = DecodingConfig(steps=12, batch=2, pool=8, pool_start=4, add=1, window_px=32, window_frames=5)
    windows = clips_for(np.random.default_rng(6), 2, torch.device("cpu"))[..., :5, 32:96, 32:96]
    codes = FastEncoder(vae)(windows)
    with torch.no_grad():
        untrained = psnr(decode(vae, codes), windows)
    train(short, vae, out)
    train(short.model_copy(update={"steps": 24}), vae, out)
    averaged(vae, out / "state.pt")
    with torch.no_grad():
        assert psnr(decode(vae, codes), windows) > untrained
    assert all(torch.equal(before[name], value) for name, value in vae.encoder.state_dict().items())
    assert [line.split(",")[0] for line in (out / "log.jsonl").read_text().splitlines()] == [
        '{"step": 12',
        '{"step": 24',
    ]
