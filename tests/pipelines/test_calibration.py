"""Calibrations are kept beside the catalog and used wherever it is opened."""

from pathlib import Path

from pipelines.calibration import Calibration, calibrated, keep
from schemas.catalog import CostProfile
from tests.pipelines.catalogs import two_variants

FOUND = CostProfile(accelerator="H200", measured=True, fixed_s=9.0, step_s_per_token=1.0)


def test_a_kept_calibration_replaces_the_cost_and_nothing_else(tmp_path: Path) -> None:
    catalog = two_variants()
    keep(tmp_path, catalog["small"], Calibration(variant="small", cost=FOUND, batch_curve=()))
    found = calibrated(catalog, tmp_path)
    assert found["petit"].cost == FOUND, "aliases see it too"
    assert found["small"].digest == catalog["small"].digest, "clips that are there stay valid"
    assert found["swift"] == catalog["swift"]


def test_a_calibration_of_other_weights_is_ignored(tmp_path: Path) -> None:
    catalog = two_variants()
    other = catalog["small"].model_copy(update={"weights": "other/weights"})
    keep(tmp_path, other, Calibration(variant="small", cost=FOUND, batch_curve=()))
    assert calibrated(catalog, tmp_path)["small"].cost == catalog["small"].cost


def test_an_unreadable_calibration_is_passed_over(tmp_path: Path) -> None:
    catalog = two_variants()
    keep(tmp_path, catalog["small"], Calibration(variant="small", cost=FOUND, batch_curve=())).write_text("{")
    assert calibrated(catalog, tmp_path)["small"] == catalog["small"]
