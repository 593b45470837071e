"""Reading catalogs: what is wrong is said with file, variant and field."""

from pathlib import Path

import pytest

from schemas.catalog import load_catalog, parse_catalog
from schemas.errors import CatalogError

GOOD = """
[variants.small]
pipeline = "WanPipeline"
weights = "./weights"
modes = ["text_to_video"]
steps = 8
fps = 8
aliases = ["gen4_turbo"]
shape = { divisor = 16, frame_step = 4, frame_offset = 1, max_frames = 33, max_pixels = 16384, native = [[64, 64, 17]] }
latent = { channels = 8, spatial = 8, temporal = 4 }
"""


def test_a_variant_is_found_by_name_and_by_alias() -> None:
    catalog = parse_catalog(GOOD, "cat.toml")
    assert catalog["gen4_turbo"] is catalog["small"]
    assert catalog.names == ("auto", "gen4_turbo", "small")


def test_a_relative_weights_folder_is_taken_from_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "cat.toml").write_text(GOOD)
    assert load_catalog(tmp_path / "cat.toml")["small"].weights == str(tmp_path / "weights")


def test_a_relative_lora_is_taken_from_the_files_own_folder_too(tmp_path: Path) -> None:
    (tmp_path / "cat.toml").write_text(GOOD.replace("fps = 8", 'fps = 8\nloras = [{ source = "./mine" }]'))
    assert load_catalog(tmp_path / "cat.toml")["small"].loras[0].source == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("steps = 8", "steps = 0"), r"cat\.toml: variants\.small\.steps: .*\(got 0\)"),
        (("fps = 8", "fsp = 8"), r"variants\.small\.(fps|fsp)"),
        (("text_to_video", "text_to_music"), r"variants\.small\.modes"),
        (('aliases = ["gen4_turbo"]', 'aliases = ["small"]'), r"the name 'small' is taken"),
        (('aliases = ["gen4_turbo"]', 'fallbacks = ["large"]'), r"unknown fallback 'large'; available: small"),
        (("[variants.small]", "[variant.small]"), r"unknown key 'variant'; available: extractors, finishers, variants"),
        (("steps = 8", "steps ="), "not TOML"),
        (
            ('"WanPipeline"', '"LTXPipeline"\nneeds = { gpus = 2 }'),
            r"cat\.toml: variants\.small: needs\.gpus: 2: LTXPipeline does not split .* more with WanPipeline",
        ),
        (
            (
                'modes = ["text_to_video"]',
                'modes = ["image_to_video"]\npipelines = { image_to_video = "WanVACEPipeline" }\nneeds = { gpus = 4 }',
            ),
            r"variants\.small: needs\.gpus: 4: WanVACEPipeline does not split",
        ),
        (
            ("steps = 8", "steps = 8\nneeds = { gpus = 1.5 }"),
            r"needs\.gpus: 1\.5 is no whole number .* available: 1, 2",
        ),
        (
            ("steps = 8", 'steps = 8\nneeds = { gpus = 2 }\nspeed = { cache = "mag" }'),
            r"needs\.gpus: 2: with speed\.cache = 'mag' each GPU skips",
        ),
    ],
)
def test_a_wrong_catalog_names_the_place(change: tuple[str, str], said: str) -> None:
    with pytest.raises(CatalogError, match=said):
        parse_catalog(GOOD.replace(*change), "cat.toml")


def test_a_clip_may_be_split_among_gpus_by_classes_that_can() -> None:
    on_two = GOOD.replace("steps = 8", "steps = 8\nneeds = { gpus = 2 }")
    assert parse_catalog(on_two, "cat.toml")["small"].needs.gpus == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"none\.toml: cannot be read"):
        load_catalog(tmp_path / "none.toml")


def test_the_digest_follows_what_decides_the_pixels_and_nothing_else() -> None:
    small = parse_catalog(GOOD, "cat.toml")["small"]
    assert small.digest == small.model_copy(update={"price_usd_per_gpu_hour": 9.0}).digest
    assert small.digest != parse_catalog(GOOD.replace("./weights", "other/weights"), "cat.toml")["small"].digest
