"""The training for a GPU, on a CPU: what it feeds on, how it counts, and that it ends in folders that render."""

import argparse
import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file
from torch import nn

from training.directed import accelerated, blocks, networks, reading
from training.directed.batches import Batch, batch_like
from training.directed.codec import FastEncoder
from training.directed.decoding import DecodingConfig
from training.directed.denoising import DenoisingConfig
from training.directed.director import Director, Order
from training.directed.distilling import DistillingConfig
from training.directed.graphs import Follower
from training.directed.muon import orthogonalised
from training.directed.shots import Kind
from training.directed.supply import SENTENCES, TOKENS, Table, deliver, describe, told

TINY = networks.NetworkConfig(layers=2, control_layers=(0,), heads=2, head_dim=12, ffn=32, text_dim=32, text_layers=1)
WINDOWS = DecodingConfig(window_px=32, window_frames=5)


def table(rows: int) -> Table:
    """Row k holds k everywhere."""
    number = torch.arange(rows)
    return Table(
        number.half().view(-1, 1, 1, 1, 1).expand(-1, 16, 2, 4, 4).clone(),
        number.half().view(-1, 1, 1, 1, 1).expand(-1, 32, 2, 4, 4).clone(),
        torch.ones(rows, 64, 2, 4, 4, dtype=torch.uint8),
        number.to(torch.int16).view(-1, 1, 1).expand(-1, SENTENCES, TOKENS).clone(),
        rows,
    )


@torch.no_grad()
def test_prompts_read_without_waiting_are_read_as_the_encoder_reads_them() -> None:
    parts = networks.build(TINY)
    prompts = ["a red star moving up", "a blue circle"]
    ids = parts.tokenizer(prompts, padding="max_length", max_length=24, return_tensors="pt").input_ids
    theirs = networks.encode_prompts(parts, prompts, 40)
    assert torch.allclose(networks.read_tokens(parts.text_encoder, ids, 40), theirs, atol=1e-5)


def test_a_batch_keeps_what_belongs_together_and_drops_its_share_of_prompts() -> None:
    torch.manual_seed(0)
    source = table(50)
    batch: Batch = batch_like(source, 400)
    empty = torch.full((1, TOKENS), 99, dtype=torch.int16)
    batch.draw(source, empty, 0.25, torch.Generator().manual_seed(1))
    rows, said = batch.latents[:, 0, 0, 0, 0].long(), batch.tokens[:, 0]
    assert torch.equal(rows, batch.told[:, 3, 1, 2, 2].long())
    kept = said != 99
    assert torch.equal(said[kept], rows[kept])
    assert 0.15 < 1 - float(kept.float().mean()) < 0.35
    assert len(set(rows.tolist())) > 40
    assert float(batch.uniform.min()) >= 0
    assert float(batch.uniform.max()) <= 1
    # One number in each of as many equal parts of (0, 1).
    assert torch.equal((batch.uniform * 400).floor().clamp_max(399).long(), torch.arange(400))


def test_a_table_overwrites_its_oldest_shots_and_shows_only_what_has_arrived() -> None:
    source, full = table(6), table(6)
    source.filled = 0
    parts = tuple(t[:4] + 1 for t in (full.latents, full.told, full.mask, full.tokens))
    source.put(*parts)
    assert source.filled == 0
    source.publish(4)
    assert (source.filled, source.next) == (4, 4)
    source.put(*(p + 10 for p in parts))
    source.publish(4)
    assert (source.filled, source.next) == (4, 4)
    assert source.latents[:4, 0, 0, 0, 0].tolist() == [11, 12, 13, 14]


def test_a_follower_ends_where_its_module_stays() -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 3)
    follower = Follower(module, decay=0.9)
    before = copy.deepcopy(module)
    with torch.no_grad():
        module.weight.add_(1.0)
    follower.follow(0)
    (mine,) = follower.modules
    assert isinstance(mine, nn.Linear)
    moved = mine.weight - before.weight
    assert torch.allclose(moved, torch.full_like(moved, 0.9))  # the first step keeps a tenth
    for step in range(200):
        follower.follow(step)
    assert torch.allclose(mine.weight, module.weight, atol=1e-4)


def test_matrices_are_turned_together_as_they_are_alone() -> None:
    torch.manual_seed(0)
    some = torch.randn(3, 20, 6)
    each = torch.stack([orthogonalised(one) for one in some])
    assert torch.allclose(orthogonalised(some), each, atol=1e-5)


def test_padding_is_not_asked_what_the_sentence_says() -> None:
    torch.manual_seed(0)
    asked = reading.heads(8)
    hidden, goal = torch.randn(2, 5, 8), torch.zeros(2, len(reading.ATTRIBUTES), dtype=torch.long)
    there = torch.tensor([[True] * 5, [True, True, False, False, False]])
    changed = hidden.clone()
    changed[1, 2:] = 100.0
    assert torch.allclose(reading.loss(hidden, there, goal, asked)[0], reading.loss(changed, there, goal, asked)[0])
    assert torch.equal(reading.loss(hidden, there, goal, asked)[1], reading.loss(changed, there, goal, asked)[1])


def test_shared_blocks_say_what_the_blocks_of_diffusers_say() -> None:
    given = torch.randn(2, 16, 2, 4, 6), torch.rand(2), torch.randn(2, 7, 32), torch.randn(2, 96, 2, 4, 6)
    theirs = networks.build(TINY).transformer
    mine = copy.deepcopy(theirs)
    blocks.share_blocks(mine, compiled=False)
    said, wanted = (networks.predict(which, *given) for which in (mine, theirs))
    assert torch.allclose(said, wanted, atol=1e-6)
    for loss in (said.square().mean(), wanted.square().mean()):
        loss.backward()
    for own, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert own.grad is not None
        assert torch.allclose(own.grad, other.grad, atol=1e-6)


@torch.no_grad()
def test_a_copy_whose_ends_are_kept_single_has_ends_of_its_own() -> None:
    given = torch.randn(2, 16, 2, 4, 6), torch.rand(2), torch.randn(2, 7, 32), torch.randn(2, 96, 2, 4, 6)
    first = networks.build(TINY).transformer
    blocks.keep_single(first)
    before = networks.predict(first, *given)
    second = copy.deepcopy(first)
    blocks.keep_single(second)
    for part in (first.patch_embedding, first.vace_patch_embedding, first.proj_out):
        part.weight.zero_()
    assert torch.equal(networks.predict(second, *given), before)
    assert not torch.equal(networks.predict(first, *given), before)


@torch.no_grad()
def test_what_is_delivered_fits_together(codec: AutoencoderKLWan) -> None:
    parts = networks.build(TINY)
    which = Kind(1, 17, True)
    described = describe(np.random.default_rng(0), parts.tokenizer, which, 2)
    latents, steered, mask, tokens, windows = deliver(described, FastEncoder(codec), torch.device("cpu"), WINDOWS)
    assert latents.shape == (2, 16, 6, 12, 20)
    assert steered.shape == (2, 32, 6, 12, 20)
    assert mask.shape == (2, 64, 6, 12, 20)
    assert torch.equal(mask[:, :, 0], torch.zeros_like(mask[:, :, 0]))  # the reference is not to be made
    assert tokens.shape == (2, SENTENCES, TOKENS)
    assert windows.shape == (2, 3, 5, 32, 32)
    said, answers = told(np.random.default_rng(0), parts.tokenizer, 3)
    assert said.shape == (3, SENTENCES, TOKENS)
    assert answers.shape == (3, len(reading.ATTRIBUTES))


@pytest.mark.slow
def test_it_ends_in_folders_that_render(codec: AutoencoderKLWan, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path / "vae")
    given = argparse.Namespace(
        work=tmp_path, vae=None, teacher=None, student=None, out=None, folders=None, denoise_s=0.5, turbo_s=0.5,
        total_s=None, decoder_batch=1, rows=200, processes=1, read=8, shots_per_s=1000.0, device="cpu", compile=False,
        layout=False, seed=0,
    )  # fmt: skip
    config = DenoisingConfig(networks=TINY, batch=2, reading_steps=2, reading_batch=1, placing_steps=2)
    accelerated.train(given, config, WINDOWS, DistillingConfig())
    for name in ("directed", "directed-turbo"):
        director = Director(tmp_path / name, 1, 1.0)
        clip = director.render(Order("a red star", 64, 64, 5, 0))
        assert clip.shape == (5, 64, 64, 3)
    again = argparse.Namespace(**vars(given) | {
        "vae": tmp_path / "directed" / "vae", "teacher": tmp_path / "directed", "student": tmp_path / "directed-turbo",
        "out": tmp_path / "again",
    })  # fmt: skip
    accelerated.train(again, config, WINDOWS, DistillingConfig(warmup_steps=10**9))
    first, second = (
        load_file(folder / "directed-turbo" / "transformer" / "diffusion_pytorch_model.safetensors")
        for folder in (tmp_path, tmp_path / "again")
    )
    assert not (tmp_path / "again" / "directed").exists()  # the teacher stays as it is
    for name, value in first.items():
        assert torch.allclose(value.float(), second[name].float(), atol=2e-3), name  # hardly moved at such a rate
    mask = np.zeros((5, 64, 64), np.uint8)
    mask[:, :, 32:] = 255
    source = np.full((5, 64, 64, 3), 77, np.uint8)
    clip = director.render(Order("a red star", 64, 64, 5, 0, video=source, mask=mask, spared=source))
    assert (clip[:, :, :32] == 77).all()
    assert (clip[:, :, 32:] != 77).any()
