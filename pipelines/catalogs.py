"""Opening the catalog that a command means."""

from pathlib import Path

from pipelines.calibration import calibrated
from schemas.catalog import Catalog, load_catalog, shipped_catalog
from schemas.config import Config
from schemas.errors import ConfigError


def open_catalog(path: str | None, config: Config) -> Catalog:
    """The catalog at `path`, else the one the environment names, else the one that ships; with what was calibrated."""
    named = path or config.catalog
    return calibrated(load_catalog(Path(named)) if named else shipped_catalog(), config.cache_dir)


def check_variant(name: str | None, catalog: Catalog) -> None:
    """Raises ConfigError for a `--variant` that the catalog does not have."""
    if name is not None and name != "auto" and catalog.find(name) is None:
        raise ConfigError(f"--variant: unknown variant {name!r}; available: {', '.join(catalog.names)}")
