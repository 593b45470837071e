"""The model that the documentation adds in thirteen lines of TOML can be planned, loaded and rendered with."""

import json
import re
import shutil
from pathlib import Path

import pytest

import rushes
from models.loader import load
from schemas.catalog import load_catalog
from tests.models.conftest import TinyFolder
from tests.models.tiny_variants import batch_of, group_of, media_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-model.md"


@pytest.fixture(scope="module")
def catalog_file(tiny_folder: TinyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's catalog, with the folder that its first step makes beside it."""
    folder = tmp_path_factory.mktemp("mine")
    shutil.copytree(tiny_folder("wan"), folder / "my-wan")
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(shown.splitlines()) == 13
    path = folder / "my-models.toml"
    path.write_text(shown)
    return path


def test_the_documented_entry_says_what_its_folder_holds(catalog_file: Path) -> None:
    variant = load_catalog(catalog_file)["mine"]
    folder = Path(variant.weights)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == variant.pipeline
    vae = json.loads((folder / "vae" / "config.json").read_text())
    assert variant.latent.channels == vae["z_dim"]
    assert variant.latent.spatial == vae.get("scale_factor_spatial", 8)
    assert variant.latent.temporal == vae.get("scale_factor_temporal", 4)


def test_the_documented_entry_can_be_quoted(catalog_file: Path) -> None:
    rows = re.findall(r"'(\{.*?\})'", PAGE.read_text())
    manifest = catalog_file.with_name("two.jsonl")
    manifest.write_text("\n".join(rows))
    quote = rushes.estimate(str(manifest), catalog=str(catalog_file), variant="my-wan", device="cpu")
    assert (quote.rows, quote.to_render, quote.rejected) == (2, 2, 0)


def test_the_documented_entry_renders(catalog_file: Path) -> None:
    model = load(load_catalog(catalog_file)["my-wan"], device="cpu")
    batch = batch_of(group_of(model.variant), "a red circle moving left", "a green square")
    clips = model.render(batch, media_of(batch), lambda *_: None, lambda *_: ())
    assert [clip.shape for clip in clips] == [(17, 64, 64, 3)] * 2
