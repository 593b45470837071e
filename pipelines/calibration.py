"""Measured costs beside the catalog: files in the node's cache, used wherever a catalog is opened. `rushes calibrate`
keeps one a variant; every run that rendered adds what its calls took to a history of all (`cluster.cost.calibration`).
Both belong to what was measured: change the variant's weights or speed settings and they are ignored."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.cost.calibration import Calibrator
from cluster.cost.fit import Measured
from cluster.cost.model import call_shape
from cluster.cost.service_times_state import ServiceTimesState
from schemas.catalog import BatchPoint, Catalog, CostProfile, Variant
from schemas.clip import Status
from schemas.run import GroupQuote

_SAMPLES = 16  # calls of one group that a run tells of: enough to settle it, few enough for others to be remembered


class Calibration(BaseModel):
    """What `rushes calibrate` found."""

    model_config = ConfigDict(frozen=True)

    variant: str
    cost: CostProfile
    batch_curve: tuple[BatchPoint, ...]


def keep(cache: Path, variant: Variant, calibration: Calibration) -> Path:
    """Write a calibration; returns where."""
    path = _path(cache, variant)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(calibration.model_dump_json(indent=1))
    return path


def calibrated(catalog: Catalog, cache: Path) -> Catalog:
    """The catalog with every calibration that is kept in `cache`. An unreadable one is passed over."""
    variants = {name: _with(variant, _path(cache, variant)) for name, variant in catalog.variants.items()}
    return catalog.with_variants(variants)


def learnt(catalog: Catalog, cache: Path) -> Catalog:
    """The catalog with what finished runs took. For quotes and batch sizes, never for which variant `auto` is: the same
    manifest must mean the same tasks after a run as before it."""
    variants = dict(catalog.variants)
    history = Calibrator(variants.values(), _history(cache))
    seen: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for call in history.times.seen():
        seen[call.key.variant][call.key.accelerator] += call.calls
    for name, places in seen.items():
        # A profile is of one accelerator and scaled to the others: take the one that most is known of.
        cost, curve = history.profile(name, max(sorted(places), key=lambda where: places[where]))
        variants[name] = variants[name].model_copy(update={"cost": cost, "batch_curve": curve})
    return catalog.with_variants(variants)


def learn(cache: Path, catalog: Catalog, accelerator: str, groups: Sequence[GroupQuote], results: pa.Table) -> None:
    """Add a run's model calls to the history: `results` are its rows, `groups` what was planned of them.

    Rows do not say their steps: groups that differ in nothing else are left out.
    """
    planned: dict[tuple[str, int, int, int], list[GroupQuote]] = defaultdict(list)
    for quote in groups:
        group = quote.group
        shape = group.clip_shape
        planned[group.variant, shape.width, shape.height, shape.frames].append(quote)
    calls: dict[tuple[str, int, int, int], list[float]] = defaultdict(list)
    columns = ("status", "variant", "width", "height", "frames", "render_s")
    for row in zip(*(results.column(name).to_pylist() for name in columns), strict=True):
        status, variant_name, width, height, frames, render_s = row
        if status == Status.SUCCEEDED.value and render_s > 0:
            calls[variant_name, width, height, frames].append(render_s)
    history = Calibrator(catalog.variants.values(), _history(cache))
    for key, shares_s in calls.items():
        if len(planned[key]) != 1:
            continue
        quote = planned[key][0]
        variant, group = catalog[quote.group.variant], quote.group
        batch = max(1, round(quote.tasks / quote.batches))
        where = accelerator if variant.needs.gpus else "cpu"
        for share_s in shares_s[:: max(1, len(shares_s) // _SAMPLES)][:_SAMPLES]:
            call = Measured(call_shape(variant, group), group.steps, group.guidance, batch, share_s * batch)
            history.observe(variant.name, where, call)
    path = _history_path(cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(history.state.model_dump_json())
    fresh.replace(path)


def _history(cache: Path) -> ServiceTimesState | None:
    try:
        return ServiceTimesState.model_validate_json(_history_path(cache).read_text())
    except (OSError, ValidationError):
        return None


def _history_path(cache: Path) -> Path:
    return cache / "calibration" / "history.json"


def _with(variant: Variant, path: Path) -> Variant:
    try:
        found = Calibration.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return variant
    return variant.model_copy(update={"cost": found.cost, "batch_curve": found.batch_curve})


def _path(cache: Path, variant: Variant) -> Path:
    return cache / "calibration" / f"{variant.name}-{variant.digest}-{variant.steps}.json"
