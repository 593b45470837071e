"""Training sees what the pipeline shows, learns, goes on where it was left, and ends in folders that render."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanVACEPipeline
from PIL import Image

from training.directed import denoising, distilling, networks
from training.directed.__main__ import STAGES, run
from training.directed.codec import CodecConfig, FastEncoder
from training.directed.conditions import Conditions, conditions
from training.directed.control import control
from training.directed.decoding import DecodingConfig
from training.directed.denoising import DenoisingConfig
from training.directed.director import Director, Order
from training.directed.distilling import DistillingConfig, leading_to, levels, moved
from training.directed.drawing import draw
from training.directed.folder import assemble
from training.directed.muon import Muons, orthogonalised
from training.directed.networks import NetworkConfig
from training.directed.scenes import sample

TINY = NetworkConfig(layers=2, control_layers=(0,), heads=2, head_dim=12, ffn=32, text_dim=32, text_layers=1)
SHORT = DenoisingConfig(
    networks=TINY, reading_steps=2, reading_batch=4, placing_steps=2, steps=3, batch=2, pool=60, pool_start=8
)


@pytest.fixture(scope="module")
def pipeline(codec: AutoencoderKLWan) -> WanVACEPipeline:
    return assemble(codec, networks.build(TINY))


def pixels(clip: torch.Tensor) -> np.ndarray:
    return np.asarray(((clip.permute(1, 2, 3, 0) + 1) * 127.5).round().byte().numpy())


def as_images(clip: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in pixels(clip)]


@torch.no_grad()
@pytest.mark.parametrize("task", ["text", "path", "mask", "ends", "style"])
def test_control_latents_are_those_of_the_pipeline(pipeline: WanVACEPipeline, task: str) -> None:
    rng = np.random.default_rng(1)
    shot = sample(rng, task, frames=5)
    given: Conditions = conditions(rng, [shot], draw([shot.scene]))
    video = as_images(given.video[0]) if task in ("path", "mask", "ends") else None
    mask = [Image.fromarray((m * 255).byte().numpy()) for m in given.mask[0, 0]] if video else None
    image = None if given.reference is None else as_images(given.reference[0])[0]
    seen, masked, shown = pipeline.preprocess_conditions(video, mask, image, 1, 128, 128, 5, torch.float32, "cpu")
    latents = pipeline.prepare_video_latents(seen, masked, shown, None, "cpu")
    theirs = torch.cat([latents, pipeline.prepare_masks(masked, shown)], dim=1)
    # A file has 256 levels, and gray is none of them: half a level is the difference.
    assert torch.allclose(control(FastEncoder(pipeline.vae), given), theirs, atol=0.05)


@torch.no_grad()
def test_prompts_are_encoded_as_the_pipeline_does(pipeline: WanVACEPipeline) -> None:
    parts = networks.Networks(pipeline.transformer, pipeline.text_encoder, pipeline.tokenizer)
    theirs, _ = pipeline.encode_prompt(
        "a red star moving up", max_sequence_length=32, do_classifier_free_guidance=False
    )
    assert torch.allclose(networks.encode_prompts(parts, ["a red star moving up"], 32), theirs, atol=1e-6)


def test_a_step_of_muon_turns_every_direction_by_as_much() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(6, 20)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_trains_convolutions_and_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    net = torch.nn.Conv3d(4, 4, 3, padding=1)
    x = torch.randn(2, 4, 3, 8, 8)
    trainers = Muons(net, rate=1e-2, matrix_rate=0.02)
    losses = []
    for step in range(20):
        loss = (net(x) - x).pow(2).mean()
        losses.append(float(loss.detach()))
        trainers.step(loss, 1.0)
        if step == 10:
            state = trainers.state_dict()
            trainers = Muons(net, rate=1e-2, matrix_rate=0.02)
            trainers.load_state_dict(state)
    assert losses[-1] < 0.6 * losses[0]


def test_the_end_of_a_segment_and_the_clip_that_leads_there_are_one_and_the_same() -> None:
    torch.manual_seed(0)
    noisy, clean = torch.randn(3, 2, 1, 2, 2), torch.randn(3, 2, 1, 2, 2)
    start, end = torch.tensor([1.0, 0.7, 0.4]), torch.tensor([0.7, 0.4, 0.0])
    there = moved(noisy, clean, start, end)
    assert torch.allclose(leading_to(noisy, there, start, end), clean, atol=1e-5)
    assert torch.allclose(there[2], clean[2])


def test_turbo_steps_are_those_that_its_scheduler_takes() -> None:
    from training.directed.folder import scheduler

    config = DistillingConfig()
    plan = scheduler(config.shift, order=1)
    plan.set_timesteps(config.segments)
    each = config.teacher_steps // config.segments
    assert torch.allclose(plan.sigmas, levels(config)[::each], atol=2e-3)


def test_a_student_that_is_its_perfect_teacher_has_nothing_to_learn(codec: AutoencoderKLWan) -> None:
    """Where the teacher says the same clean clip everywhere, every way ends there."""
    parts = networks.build(TINY)
    with torch.no_grad():
        parts.transformer.proj_out.weight.zero_()
        parts.transformer.proj_out.bias.fill_(0.3)
    latents, told = torch.randn(4, 16, 2, 4, 4), torch.randn(4, 96, 2, 4, 4)
    loss = distilling.distilling_loss(parts, parts, parts, latents, told, [""] * 4, DistillingConfig(), 32)
    assert float(loss.detach()) < 1e-6


def test_what_was_learned_by_heart_comes_out_of_the_pipeline(codec: AutoencoderKLWan) -> None:
    """One clip and its outlines, until the network knows them: the sampler has to arrive there from pure noise."""
    wide = TINY.model_copy(update={"head_dim": 24, "ffn": 96})
    parts = networks.build(wide)
    rng = np.random.default_rng(0)
    shot = sample(rng, "structure", width=64, height=64, frames=5, pairs=0)
    clips = draw([shot.scene])
    given, encode = conditions(rng, [shot], clips), FastEncoder(codec)
    latents, told = encode.normalised(clips), control(encode, given)
    trainers = Muons(parts.transformer, rate=3e-3, matrix_rate=0.02, slow=denoising.NOT_MATRICES)
    torch.manual_seed(0)
    for step in range(80):
        batch = latents.expand(8, -1, -1, -1, -1), told.expand(8, -1, -1, -1, -1)
        loss = denoising.flow_loss(parts, *batch, ["a star"] * 8, 3.0, 16)
        trainers.step(loss, min(1.0, (80 - step) / 40))
    pipe = assemble(codec, parts)
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        prompt="a star",
        video=as_images(given.video[0]),
        width=64,
        height=64,
        num_frames=5,
        num_inference_steps=4,
        guidance_scale=1.0,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).frames
    assert float((made - latents).pow(2).mean() / latents.var()) < 0.1


def test_every_stage_runs_goes_on_and_ends_in_folders_that_render(tmp_path: Path) -> None:
    decoder = DecodingConfig(steps=2, batch=1, pool=4, pool_start=2, add=1, window_px=32, window_frames=5)
    turbo = DistillingConfig(steps=2, batch=2, pool=60, pool_start=8, segments=2, teacher_steps=4)
    for stage in STAGES:
        run(stage, tmp_path, tmp_path / "out", CodecConfig(), decoder, SHORT, turbo, clips=8)
    (tmp_path / "denoiser" / "state.pt").unlink()  # as if it had been stopped before its first step
    run("denoiser", tmp_path, tmp_path / "out", CodecConfig(), decoder, SHORT, turbo)
    before = (tmp_path / "denoiser" / "log.jsonl").read_text()
    assert before.count("read") == 1
    assert before.count('placed": 0') == 4
    longer = SHORT.model_copy(update={"steps": 5})
    run("denoiser", tmp_path, tmp_path / "out", CodecConfig(), decoder, longer, turbo)
    added = (tmp_path / "denoiser" / "log.jsonl").read_text()[len(before) :]
    assert '"step": 5' in added
    assert "read" not in added
    rng = np.random.default_rng(0)
    for name, guidance in (("directed", 2.0), ("directed-turbo", 1.0)):
        director = Director(tmp_path / "out" / name, 2, guidance)
        for task in ("text", "mask", "style") if name == "directed" else ("text",):
            shot = sample(rng, task, width=96, height=64, frames=5)
            given = conditions(rng, [shot], draw([shot.scene]))
            order = Order(
                prompt="a red circle moving left",
                width=96,
                height=64,
                frames=5,
                seed=0,
                video=pixels(given.video[0]) if task == "mask" else None,
                mask=(given.mask[0, 0] * 255).byte().numpy() if task == "mask" else None,
                reference=None if given.reference is None else pixels(given.reference[0])[0],
            )
            clip = director.render(order)
            assert clip.shape == (5, 64, 96, 3)
        assert np.array_equal(clip, director.render(order))
    assert director.through_vae(clip).shape == clip.shape


def test_a_trained_decoder_is_trained_further_from_where_it_is(codec: AutoencoderKLWan, tmp_path: Path) -> None:
    trained = copy.deepcopy(codec)
    with torch.no_grad():
        trained.decoder.conv_out.bias.fill_(0.25)
    for folder, vae in (("work/vae", codec), ("trained", trained)):
        vae.save_pretrained(tmp_path / folder)
    still = DecodingConfig(steps=1, batch=1, pool=4, pool_start=2, window_px=32, window_frames=5, rate=0, matrix_rate=0)
    turbo = DistillingConfig()
    run("decoder", tmp_path / "work", tmp_path, CodecConfig(), still, SHORT, turbo, trained_vae=tmp_path / "trained")
    kept = torch.load(tmp_path / "work" / "decoder" / "state.pt", weights_only=True)["average"]
    assert torch.equal(kept["conv_out.bias"], torch.full((3,), 0.25))
