"""Calibrations are kept beside the catalog and used wherever it is opened."""

from pathlib import Path

import pyarrow as pa

from cluster.cost.model import Load, predict
from pipelines.calibration import Calibration, calibrated, keep, learn, learnt
from schemas.catalog import Catalog, CostProfile
from schemas.request import Mode
from schemas.run import GroupQuote
from schemas.task import Group
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


def group(frames: int = 17, steps: int = 2) -> Group:
    return Group(
        variant="small",
        variant_digest="0" * 16,
        mode=Mode.TEXT_TO_VIDEO,
        width=64,
        height=64,
        frames=frames,
        fps=8,
        steps=steps,
        guidance=3.0,
    )


def results(frames: int, render_s: list[float], status: str = "SUCCEEDED") -> pa.Table:
    rows = [
        {"status": status, "variant": "small", "width": 64, "height": 64, "frames": frames, "render_s": seconds}
        for seconds in render_s
    ]
    return pa.Table.from_pylist(rows)


def predicted_s(catalog: Catalog, frames: int = 17, batch: int = 4) -> float:
    one = group(frames)
    return predict(catalog["small"], "cpu", one.shape, one.steps, one.guidance, batch, load=Load.NONE).execution_s


def quoted(one: Group) -> GroupQuote:
    return GroupQuote(group=one, tasks=40, batches=10, batch_size=4, gpu_s=1.0, usd=0.0)


def test_what_a_run_took_is_quoted_next_time(tmp_path: Path) -> None:
    catalog = two_variants()
    share_s = 3 * predicted_s(catalog) / 4
    learn(tmp_path, catalog, "cpu", [quoted(group())], results(17, [share_s] * 39 + [50 * share_s]))
    again = learnt(catalog, tmp_path)
    assert predicted_s(again) > 1.5 * predicted_s(catalog)
    assert again["small"].digest == catalog["small"].digest
    assert again["swift"] == catalog["swift"]


def test_failed_rows_reused_rows_and_groups_that_cannot_be_told_apart_teach_nothing(tmp_path: Path) -> None:
    catalog = two_variants()
    learn(tmp_path, catalog, "cpu", [quoted(group())], results(17, [0.0] * 20))
    learn(tmp_path, catalog, "cpu", [quoted(group())], results(17, [99.0] * 20, "FAILED"))
    learn(tmp_path, catalog, "cpu", [quoted(group()), quoted(group(steps=9))], results(17, [99.0] * 20))
    assert learnt(catalog, tmp_path) == catalog


def test_an_unreadable_history_is_begun_anew(tmp_path: Path) -> None:
    catalog = two_variants()
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "history.json").write_text("{")
    assert learnt(catalog, tmp_path) == catalog
    learn(tmp_path, catalog, "cpu", [quoted(group())], results(17, [1.0] * 20))
    assert learnt(catalog, tmp_path) != catalog
