"""What the turbo model does worst is taught alone, and what it does otherwise stays."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from training.directed import networks
from training.directed.director import Director, Order
from training.directed.distilling import DistillingConfig, levels
from training.directed.focusing import FocusConfig, kept_loss, levels_of_steps, taught, train
from training.directed.folder import assemble
from training.drawing import held_out
from training.folder import save

TINY = networks.NetworkConfig(layers=2, control_layers=(0,), heads=2, head_dim=12, ffn=32, text_dim=32, text_layers=1)


def test_what_is_taught_does_the_motion_at_one_pace_and_is_nothing_that_is_held_out() -> None:
    rng = np.random.default_rng(0)
    config = FocusConfig(taught={"triangle spinning": 0.5, "star circling": 0.5}, pace=0.8)
    seen = set()
    for _ in range(60):
        shot = taught(rng, config, 160, 96)
        (actor,) = shot.scene.actors
        assert not held_out(actor.colour, actor.shape, actor.motion)
        if actor.motion == "spinning":
            assert float(actor.angle[-1]) == pytest.approx(0.8 * math.pi, rel=1e-5)
        seen.add((actor.shape, actor.motion))
    assert seen == {("triangle", "spinning"), ("star", "circling")}


def test_levels_are_those_at_which_the_turbo_model_is_called() -> None:
    config = DistillingConfig(segments=3, teacher_steps=18)
    grid = levels(config)
    assert levels_of_steps(config).tolist() == [float(grid[k]) for k in (0, 6, 12)]
    assert float(levels_of_steps(config)[0]) == 1.0


def test_a_model_that_has_not_changed_keeps_everything() -> None:
    made = networks.build(TINY)
    before = networks.Networks(copy.deepcopy(made.transformer), made.text_encoder, made.tokenizer)
    given = torch.randn(2, 16, 2, 4, 4), torch.randn(2, 96, 2, 4, 4), ["a red star", ""], torch.tensor([1.0, 0.5])
    assert float(kept_loss(made, before, *given).detach()) == 0.0
    with torch.no_grad():
        made.transformer.proj_out.bias.add_(1.0)
    assert float(kept_loss(made, before, *given).detach()) > 0.5


def test_only_the_transformer_is_trained_and_it_goes_on_where_it_was_left(
    codec: AutoencoderKLWan, tmp_path: Path
) -> None:
    parts = networks.build(TINY)
    save(assemble(copy.deepcopy(codec), parts, order=1), tmp_path / "turbo")
    config = FocusConfig(minutes=0.01, batch=1, pool=60, pool_start=8)
    train(config, DistillingConfig(), tmp_path / "turbo", tmp_path / "work")
    first = [json.loads(line) for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    longer = config.model_copy(update={"minutes": 0.03})
    made = train(longer, DistillingConfig(), tmp_path / "turbo", tmp_path / "work")
    last = json.loads((tmp_path / "work" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] > first[-1]["step"]
    for name, value in parts.text_encoder.state_dict().items():
        assert torch.allclose(made.text_encoder.state_dict()[name], value.half().float(), atol=1e-6), name
    moved = made.transformer.proj_out.weight - parts.transformer.proj_out.weight.half().float()
    assert float(moved.detach().abs().max()) > 0
    save(made, tmp_path / "out")
    assert Director(tmp_path / "out", 1, 1.0).render(Order("a red star", 64, 64, 5, 0)).shape == (5, 64, 64, 3)
