"""Tiny pipelines are real checkpoints: small, repeatable, loadable by plain diffusers."""

from pathlib import Path

import diffusers
import pytest
import torch

from models.weights import EMBEDDED, check_safe
from tests.models.conftest import TinyFolder
from tests.models.tiny_variants import FAMILIES, SLOW
from training.tiny import BUILDERS, build, main

CLASSES = {
    **{facts["folder"]: FAMILIES[facts["folder"]]["pipeline"] for facts in FAMILIES.values()},
    "cogvideox-control": "CogVideoXFunControlPipeline",
    "easyanimate-control": "EasyAnimateControlPipeline",
    "easyanimate-camera": "EasyAnimateControlPipeline",
    "easyanimate-inpaint": "EasyAnimateInpaintPipeline",
}


@pytest.mark.parametrize(
    "family",
    [pytest.param(folder, marks=[pytest.mark.slow] if folder in SLOW else []) for folder in sorted(CLASSES)],
)
def test_a_tiny_pipeline_loads_by_its_folder_alone_and_is_small(tiny_folder: TinyFolder, family: str) -> None:
    folder = tiny_folder(family)
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    assert type(pipe).__name__ == CLASSES[family]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 20 * 2**20
    check_safe(folder)


def test_every_builder_is_tested() -> None:
    assert set(BUILDERS) == set(CLASSES)


def test_two_builds_are_equal_and_leave_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two = build("wan", tmp_path / "one"), build("wan", tmp_path / "two")
    assert torch.equal(torch.rand(3), expected)
    for path in one.rglob("*.safetensors"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()


def test_the_command_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wan", str(tmp_path / "out"), "--dtype", "float16"]) == 0
    assert "a tiny random wan, 0." in capsys.readouterr().out
    assert diffusers.WanPipeline.from_pretrained(tmp_path / "out", dtype=torch.float16).dtype == torch.float16


def test_the_one_that_ships_is_small_and_says_that_it_is_random() -> None:
    folder = EMBEDDED / "tiny-random"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1.5 * 2**20
