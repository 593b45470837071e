"""A simulated fleet: pools of accelerators between which models move, read from TOML.

[[pools]]
name = "h100"
accelerator = "H100"
count = 16
speed = 2.0              # times the reference accelerator of the trace's exec_s
vram_gib = 80
load_warm_s = 3.0        # from the host's memory
load_cold_s = 35.0       # from the store
host_cache = 4           # models; or host_cache_gib
price_usd_per_hour = 4.0

[variants.wan-14b]       # optional, all of it
vram_gib = 60            # without it a model fills its accelerator
fallbacks = ["wan-1b"]
time_factor = 1.0        # seconds relative to the other variants, for a task that falls back
quality = 0.9

[variants.wan-14b-fast]  # a variant that the trace never asks for may be a fallback, too
weights = "wan-14b"      # needs no load where these weights are resident; without it they are its own
time_factor = 0.4
"""

import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import ConfigError

MOST_ACCELERATORS = 100_000
"""Of one pool: each is an object with its own memory."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class FleetPool(_Frozen):
    """Accelerators of one type."""

    name: str = ""
    accelerator: str = ""
    count: int = Field(ge=0, le=MOST_ACCELERATORS)
    speed: float = Field(default=1.0, gt=0)
    vram_gib: float = Field(default=0.0, ge=0)
    load_warm_s: float = Field(default=3.0, ge=0)
    load_cold_s: float = Field(default=35.0, ge=0)
    host_cache: int = Field(default=0, ge=0, description="models that one accelerator's host keeps in memory")
    host_cache_gib: float = Field(default=0.0, ge=0, description="instead of a count, where model sizes are known")
    price_usd_per_hour: float = Field(default=1.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _other_spellings(cls, values: object) -> object:
        if isinstance(values, dict):
            values = dict(values)
            for other in ("host_cache_models", "host_cache_size"):
                if other in values:
                    values["host_cache"] = values.pop(other)
            if isinstance(values.get("host_cache"), float) and not values["host_cache"].is_integer():
                values["host_cache_gib"] = values.pop("host_cache")
            if "price_usd_per_gpu_hour" in values:
                values["price_usd_per_hour"] = values.pop("price_usd_per_gpu_hour")
            values.setdefault("name", values.get("accelerator", ""))
        return values


class FleetVariant(_Frozen):
    """What the simulation knows of a variant beside its name."""

    vram_gib: float = Field(default=0.0, ge=0)
    weights: str = Field(default="", description="variants that name the same ones share a load; else its own name")
    fallbacks: tuple[str, ...] = ()
    time_factor: float = Field(default=1.0, gt=0)
    quality: float = Field(default=0.5, ge=0, le=1)


class Fleet(_Frozen):
    """The pools, and whatever is said of the variants."""

    pools: tuple[FleetPool, ...] = Field(min_length=1)
    variants: dict[str, FleetVariant] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [pool.name for pool in self.pools]
        if len(set(names)) != len(names):
            raise ValueError(f"two pools have one name: {', '.join(sorted(names))}; give each a `name`")
        if not any(pool.count for pool in self.pools):
            raise ValueError("there is no accelerator in it: every count is 0")
        return self

    @property
    def count(self) -> int:
        return sum(pool.count for pool in self.pools)

    @property
    def speed(self) -> float:
        """Reference accelerators that it is worth."""
        return sum(pool.count * pool.speed for pool in self.pools)


def parse_fleet(text: str, where: str) -> Fleet:
    """Read a fleet from TOML. Raises ConfigError naming file and field."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from error
    if "pool" in table and "pools" not in table:
        table["pools"] = table.pop("pool")
    named = table.get("pools")
    if isinstance(named, dict) and all(isinstance(pool, dict) for pool in named.values()):
        table["pools"] = [{"name": name, **pool} for name, pool in named.items()]  # [pools.NAME] instead of [[pools]]
    try:
        return Fleet.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            models: dict[str, type[BaseModel]] = {"pools": FleetPool, "variants": FleetVariant}
            known = models.get(str(first["loc"][0]), Fleet).model_fields
            why = f"unknown key; available: {', '.join(known)}"
        elif first["type"] == "missing":
            why = "missing; a fleet is [[pools]], each with at least a count" if field == "pools" else "missing"
        else:
            got = "" if isinstance(first["input"], dict | list | Fleet) else f" (got {first['input']!r})"
            why = first["msg"].removeprefix("Value error, ") + got
        raise ConfigError(f"{where}: {field}: {why}".replace(": : ", ": ")) from error


def load_fleet(path: Path) -> Fleet:
    """Read a fleet file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    return parse_fleet(text, str(path))
