"""Everything that the environment may set, read in this one file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Defaults that no command-line option names."""

    model_config = ConfigDict(frozen=True)

    cache_dir: Path = Field(description="node-local weights, shared by the actors of a node")
    catalog: str | None = None
    media_max_bytes: int = Field(default=200 * 1024 * 1024, ge=1)
    media_timeout_s: float = Field(default=60.0, gt=0)
    media_schemes: frozenset[str] | None = Field(default=None, description="where rows' media may be; None: anywhere")


def read_config(environment: Mapping[str, str] | None = None) -> Config:
    """The configuration of this process: RUSHES_CACHE_DIR, RUSHES_CATALOG, RUSHES_MEDIA_MAX_BYTES,
    RUSHES_MEDIA_SCHEMES (such as 'https,data')."""
    env = os.environ if environment is None else environment
    cache = env.get("RUSHES_CACHE_DIR") or str(Path(env.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rushes")
    given: dict[str, Any] = {"media_max_bytes": env.get("RUSHES_MEDIA_MAX_BYTES"), "catalog": env.get("RUSHES_CATALOG")}
    schemes = env.get("RUSHES_MEDIA_SCHEMES")
    if schemes:
        given["media_schemes"] = frozenset(name.strip() for name in schemes.split(","))
    return Config(cache_dir=Path(cache), **{k: v for k, v in given.items() if v})
