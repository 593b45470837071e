"""Everything that the environment may set, read in this one file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Defaults that no command-line option names."""

    model_config = ConfigDict(frozen=True)

    cache_dir: Path = Field(
        description="weights from s3://, file digests and measurements, shared by all processes of a machine"
    )
    state_dir: Path = Field(
        description="what a machine makes once and keeps: the development certificate, which endpoints run here"
    )
    catalog: str | None = Field(default=None, description="a catalog file, where no --catalog is given")
    prompt_cache_bytes: int = Field(
        default=256 * 1024 * 1024, ge=0, description="embeddings of texts that a loaded model keeps in memory; 0: none"
    )
    media_max_bytes: int = Field(default=200 * 1024 * 1024, ge=1, description="of one input image or video of a row")
    media_timeout_s: float = Field(default=120.0, gt=0, description="to fetch and decode one task's image or video")
    media_schemes: frozenset[str] | None = Field(
        default=None, description="where rows' media may be, e.g. 'https,data'; anywhere when not set"
    )


def read_config(environment: Mapping[str, str] | None = None) -> Config:
    """The configuration of this process: RUSHES_CACHE_DIR, RUSHES_STATE_DIR, RUSHES_CATALOG, RUSHES_PROMPT_CACHE_BYTES,
    RUSHES_MEDIA_MAX_BYTES, RUSHES_MEDIA_TIMEOUT_S, RUSHES_MEDIA_SCHEMES (such as 'https,data')."""
    env = os.environ if environment is None else environment
    cache = env.get("RUSHES_CACHE_DIR") or str(Path(env.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rushes")
    state = env.get("RUSHES_STATE_DIR") or str(
        Path(env.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "rushes"
    )
    given: dict[str, Any] = {
        "prompt_cache_bytes": env.get("RUSHES_PROMPT_CACHE_BYTES"),
        "media_max_bytes": env.get("RUSHES_MEDIA_MAX_BYTES"),
        "media_timeout_s": env.get("RUSHES_MEDIA_TIMEOUT_S"),
        "catalog": env.get("RUSHES_CATALOG"),
    }
    schemes = env.get("RUSHES_MEDIA_SCHEMES")
    if schemes:
        given["media_schemes"] = frozenset(name.strip() for name in schemes.split(","))
    return Config(cache_dir=Path(cache), state_dir=Path(state), **{k: v for k, v in given.items() if v})
