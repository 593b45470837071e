"""The catalog that ships: every entry names what exists and keeps its own rules."""

from pathlib import Path

import diffusers
import pytest

import rushes
from models.families import call_form, check_modes
from models.loader import pipeline_class
from models.weights import EMBEDDED
from schemas.catalog import Catalog, Variant, load_catalog
from schemas.shape import Shape

CATALOG: Catalog = load_catalog(Path(rushes.__file__).parent / "catalog.toml")
VARIANTS = [pytest.param(variant, id=variant.name) for variant in CATALOG.variants.values()]

# What people run; the list shrinks only on purpose.
FAMILIES = ("LTX", "Wan", "CogVideoX", "StableVideoDiffusion", "AnimateDiff", "HunyuanVideo", "Mochi")


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_classes_exist_and_take_its_modes_and_options(variant: Variant) -> None:
    for mode in variant.modes:
        cls = pipeline_class(variant, variant.pipeline_for(mode))
        check_modes(call_form(cls.__name__, cls.__call__), variant, mode)


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_native_shapes_keep_its_own_rule(variant: Variant) -> None:
    for width, height, frames in variant.shape.native:
        shape = Shape(width=width, height=height, frames=frames)
        assert variant.shape.issues(shape) == ()
        assert variant.latent.tokens(shape) > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_fallbacks_render_all_of_its_modes(variant: Variant) -> None:
    for name in variant.fallbacks:
        assert set(variant.modes) <= set(CATALOG[name].modes), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_scheduler_takes_its_options(variant: Variant) -> None:
    if variant.scheduler is not None:
        known = getattr(diffusers, variant.scheduler)._get_init_keys(getattr(diffusers, variant.scheduler))
        assert set(variant.scheduler_options) <= set(known)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_says_what_it_needs_and_under_which_licence(variant: Variant) -> None:
    assert variant.title
    assert variant.license
    assert variant.min_steps <= variant.steps
    assert variant.cost.parameters_b > 0
    assert variant.cost.layers > 0
    if variant.needs.gpus:
        # The denoiser alone must fit, or the estimate is wrong; 2 bytes a parameter.
        assert variant.needs.vram_gib > 2 * variant.cost.parameters_b
        assert variant.price_usd_per_gpu_hour > 0
    if variant.weights.startswith("embedded:"):
        assert (EMBEDDED / variant.weights.removeprefix("embedded:") / "model_index.json").is_file()


def test_it_holds_the_open_models_that_people_run() -> None:
    classes = {variant.pipeline_for(mode) for variant in CATALOG.variants.values() for mode in variant.modes}
    assert [family for family in FAMILIES if not any(name.startswith(family) for name in classes)] == []


def test_nothing_is_called_measured_that_was_not() -> None:
    assert [v.name for v in CATALOG.variants.values() if v.cost.measured and v.cost.accelerator != "cpu"] == []


def test_all_weights_that_ship_stay_under_25_mb() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*.safetensors")) < 25_000_000
