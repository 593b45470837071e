"""Measured costs beside the catalog: a file a variant and accelerator in the node's cache, used wherever a catalog is
opened. A calibration belongs to what was measured: change the variant's weights or speed settings and it is ignored."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.catalog import BatchPoint, Catalog, CostProfile, Variant


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
    return Catalog(variants=variants)


def _with(variant: Variant, path: Path) -> Variant:
    try:
        found = Calibration.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return variant
    return variant.model_copy(update={"cost": found.cost, "batch_curve": found.batch_curve})


def _path(cache: Path, variant: Variant) -> Path:
    return cache / "calibration" / f"{variant.name}-{variant.digest}-{variant.steps}.json"
