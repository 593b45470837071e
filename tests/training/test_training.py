"""The recipe of the embedded model, in miniature."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline

from training import blocks, denoiser
from training.__main__ import STAGES, run
from training.captions import caption, plain_caption
from training.denoiser import DenoiserConfig, shift_at
from training.drawing import COLOURS, MOTIONS, OFF_CENTRE_PX, SHAPES, combinations, draw, sample
from training.folder import assemble, save, scheduler
from training.placing import PlaceReader, answers, learn_places
from training.reading import ATTRIBUTES, teach
from training.text import build_text_encoder, build_tokenizer
from training.vae import VaeConfig, build, to_model_range
from training.words import FILLERS, RESERVED, vocabulary

SMALL = VaeConfig(latent_channels=32, width=80, patch_values=9, cube_values=40)
TINY = DenoiserConfig(
    layers=1,
    heads=2,
    head_dim=12,
    text_dim=16,
    reading_steps=2,
    placing_steps=2,
    steps=3,
    batch=2,
    pool=16,
    pool_start=8,
)


def drawn(count: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return to_model_range(np.stack([draw(sample(rng)) for _ in range(count)]))


def psnr_db(target: torch.Tensor, made: torch.Tensor) -> float:
    """Peak signal to noise of clips in [-1, 1], averaged over clips, in dB."""
    error = (target - made.clamp(-1, 1)).pow(2).flatten(1).mean(1)
    return float((10 * torch.log10(4 / error.clamp_min(1e-10))).mean())


@pytest.fixture(scope="module")
def codec() -> AutoencoderKLLTXVideo:
    vae = build(SMALL)
    code = blocks.fit(drawn(24, 1), SMALL.patch_values, SMALL.cube_values, SMALL.latent_channels)
    blocks.write(code, vae)
    return vae.eval()


def test_a_scene_depends_on_its_seed_alone() -> None:
    first, again = (draw(sample(np.random.default_rng(3))) for _ in range(2))
    assert (first == again).all()


def test_combinations_held_out_and_trained_are_disjoint_and_complete() -> None:
    held, trained = combinations(held=True), combinations(held=False)
    assert not set(held) & set(trained)
    assert len(held) + len(trained) == len(COLOURS) * (len(SHAPES) * len(MOTIONS) - 1)
    assert {shape for _, shape, _ in held} == set(SHAPES)


def test_every_word_of_every_caption_is_known_or_meant_to_be_unknown() -> None:
    tokenizer = build_tokenizer()
    known = set(vocabulary())
    rng = np.random.default_rng(4)
    for _ in range(300):
        words = caption(rng, sample(rng, pairs=0.2)).split()
        assert {word for word in words if word not in known} <= {"qwx"}
    assert not set(FILLERS) & set(RESERVED)
    assert tokenizer.unk_token_id not in tokenizer(plain_caption("red", "star", "up-left", "navy")).input_ids


def test_the_network_written_from_a_linear_code_computes_it(codec: AutoencoderKLLTXVideo) -> None:
    clips = drawn(4, 1)
    code = blocks.fit(drawn(24, 1), SMALL.patch_values, SMALL.cube_values, SMALL.latent_channels)
    with torch.no_grad():
        latents = codec.encode(clips).latent_dist.mean
        made = codec.decode(latents).sample
    assert latents.shape == (4, 32, 5, 4, 4)
    rows = blocks.to_patches(clips).movedim(1, -1)
    for basis in (code.patches, code.cubes):
        rows = blocks._gather(blocks._along(basis, rows))
    expected = blocks._along(code.blocks, rows) / code.blocks.deviation[:, None, None, None]
    assert torch.nn.functional.cosine_similarity(latents.flatten(), expected.flatten(), 0) > 0.99
    assert psnr_db(clips, made) > 24


def test_the_short_way_to_encode_is_exact(codec: AutoencoderKLLTXVideo) -> None:
    clips = drawn(2, 5)
    with torch.no_grad():
        assert torch.allclose(codec.encode(clips).latent_dist.mean, blocks.encode(codec, clips), atol=1e-4)


def test_a_denoiser_trains_resumes_and_ships_as_a_plain_folder(codec: AutoencoderKLLTXVideo, tmp_path: Path) -> None:
    denoiser.train(TINY, codec, tmp_path / "work")
    longer = TINY.model_copy(update={"steps": 5})
    model = denoiser.train(longer, codec, tmp_path / "work", resume=True)
    assert torch.load(tmp_path / "work" / "state.pt", weights_only=True)["step"] == 5
    assert save(assemble(deepcopy(codec), model), tmp_path / "folder") < 20_000_000
    pipeline = LTXPipeline.from_pretrained(tmp_path / "folder", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline(
        "a red ball",
        width=64,
        height=64,
        num_frames=17,
        frame_rate=8,
        num_inference_steps=2,
        output_type="np",
    ).frames
    assert frames.shape == (1, 17, 64, 64, 3)


def test_the_stages_make_the_folder_that_ships_one_after_the_other(tmp_path: Path) -> None:
    small = SMALL.model_copy(update={"fitted_clips": 24})
    for stage in STAGES:
        run(stage, tmp_path / "work", tmp_path / "out", small, TINY)
    pipeline = LTXPipeline.from_pretrained(tmp_path / "out" / "shapes", torch_dtype=torch.float32)
    assert pipeline.scheduler.config.flow_shift == TINY.shift
    assert pipeline.vae.config.latent_channels == SMALL.latent_channels


def test_a_sampler_told_the_clean_clip_arrives_at_it() -> None:
    sampler, clean = scheduler(2.0), torch.randn(1, 4, 8)
    sampler.set_timesteps(sigmas=np.linspace(1, 1 / 6, 6))
    x = torch.randn(1, 4, 8)
    for timestep in sampler.timesteps:
        x = sampler.step(clean, timestep, x, return_dict=False)[0]
    assert torch.allclose(x, clean, atol=1e-4)


def test_reading_is_learned_in_few_steps() -> None:
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(len(tokenizer), 0, 32)
    first = teach(encoder, tokenizer, steps=2, batch=8, seed=0)
    later = teach(encoder, tokenizer, steps=120, batch=16, seed=0)
    assert set(later) == set(ATTRIBUTES)
    assert later["colour"] > first["colour"] + 0.1


def test_a_schedule_may_be_told_in_minutes(codec: AutoencoderKLLTXVideo, tmp_path: Path) -> None:
    denoiser.train(TINY.model_copy(update={"minutes": 0.01}), codec, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert "read" in lines[0]
    assert lines[-1]["elapsed_s"] >= 0.6


def test_each_token_is_asked_for_what_lies_before_and_behind_it() -> None:
    before_t, behind_t, before_y, _, before_x, behind_x = answers((2, 1, 3), torch.device("cpu"))
    assert before_t.tolist() == [0, 0, 0, 1, 1, 1]
    assert behind_t.tolist() == [1, 1, 1, 0, 0, 0]
    assert before_y.tolist() == [0] * 6
    assert before_x.tolist() == [0, 1, 2, 0, 1, 2]
    assert behind_x.tolist() == [2, 1, 0, 2, 1, 0]
    with pytest.raises(ValueError, match="at most 16"):
        answers((1, 17, 1), torch.device("cpu"))


def test_tokens_find_out_from_noise_alone_where_they_stand() -> None:
    transformer = denoiser.build(DenoiserConfig(layers=2, heads=2, head_dim=24, text_dim=8), 32).transformer
    first = learn_places(transformer, PlaceReader(transformer), [(2, 2, 2)], steps=1, batch=16, seed=0)
    later = learn_places(transformer, PlaceReader(transformer), [(2, 2, 2)], steps=150, batch=16, seed=0)
    assert later > max(0.95, first)


def test_a_reader_without_a_call_to_read_says_so() -> None:
    transformer = denoiser.build(TINY, 32).transformer
    with pytest.raises(RuntimeError, match="was not called"):
        PlaceReader(transformer).loss((1, 1, 1))


def test_training_begins_near_pure_noise_and_comes_down() -> None:
    config = DenoiserConfig(shift=2.0, first_shift=8.0, shift_until=0.5)
    assert [shift_at(config, done) for done in (0.0, 0.25, 0.5, 1.0)] == [8.0, 5.0, 2.0, 2.0]


def test_paths_stay_near_the_middle_of_the_canvas_and_on_it() -> None:
    rng = np.random.default_rng(8)
    for _ in range(200):
        scene = sample(rng, width=96, height=64)
        (actor,) = scene.actors
        middle = (actor.path.min(axis=0) + actor.path.max(axis=0)) / 2
        assert np.abs(middle - (48, 32)).max() <= OFF_CENTRE_PX + 2.0  # a quick or slow circle is not whole
        assert (actor.path - actor.radius[:, None] > 0).all()
