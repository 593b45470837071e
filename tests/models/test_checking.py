"""What is wrong with a variant is said before anything is loaded."""

from pathlib import Path

import pytest

from models.checking import problems
from models.weights import missing
from schemas.catalog import parse_catalog
from tests.pipelines.catalogs import TWO_VARIANTS


def problems_of(folder: Path, *changes: tuple[str, str]) -> tuple[str, ...]:
    text = TWO_VARIANTS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return problems(parse_catalog(text, "c.toml", folder)["small"])


WEIGHTS = 'weights = "embedded:tiny-random"'


def test_a_variant_in_order_has_no_problem(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('pipeline = "WanPipeline"', 'pipeline = "WanPipelin"', "pipeline: diffusers has no pipeline 'WanPipelin'"),
        ('"WanImageToVideoPipeline"', '"WanVideoPipeline"', "pipelines.image_to_video: diffusers has no pipeline"),
        ("steps = 2", 'steps = 2\nscheduler = "Euler"', "scheduler: diffusers has no scheduler 'Euler'"),
        (WEIGHTS, 'weights = "/no/such/folder"', "weights: /no/such/folder: not there"),
        (WEIGHTS, 'weights = "~nobody/folder"', "weights: ~nobody/folder: not there"),
        (WEIGHTS, 'weights = "embedded:none"', "weights: embedded:none: not there"),
        (WEIGHTS, 'weights = "./empty"', "no model_index.json in it"),
        ("steps = 2", 'steps = 2\nloras = [{ source = "./none" }]', r"loras\[0\].source: .*/none: not there"),
        ("steps = 2", 'steps = 2\nloras = [{ source = "./two" }]', r"has not one .* names one of: a.saf.*, b.saf"),
        ("steps = 2", 'steps = 2\nloras = [{ source = "./two", weight_file = "c" }]', "has not 'c'; weight_file names"),
        (
            'pipeline = "WanPipeline"',
            'pipeline = "AnimateDiffPipeline"\nmotion_loras = { pan_left = { source = "./none" } }',
            "motion_loras.pan_left.source: .*/none: not there",
        ),
        ("steps = 2", 'steps = 2\nmotion_adapter = "./gone"', "motion_adapter: .*/gone: not there"),
    ],
)
def test_what_is_wrong_names_its_field_and_the_choices(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        (tmp_path / "two" / f"{name}.safetensors").touch()
    (text,) = problems_of(tmp_path, (old, new))
    with pytest.raises(ValueError, match=said):
        raise ValueError(text)


def test_folders_are_named_from_the_catalogs_own_wherever_the_command_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my" / "weights").mkdir(parents=True)
    text = TWO_VARIANTS.replace("embedded:tiny-random", "my/weights", 1)
    monkeypatch.chdir("/")
    here = parse_catalog(text, "c.toml", tmp_path)["small"]
    assert here.weights == str(tmp_path / "my" / "weights")
    assert missing(here) is None
    monkeypatch.chdir(tmp_path)
    elsewhere = parse_catalog(text, "c.toml", tmp_path / "my")["small"]
    assert elsewhere.weights == "my/weights", "a repository of the hub, whatever lies where the command is typed"
