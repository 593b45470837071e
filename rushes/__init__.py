"""Rushes renders video in bulk on a Ray cluster.

    >>> import rushes
    >>> summary = rushes.render("prompts.jsonl", out="out/demo")
    >>> summary.succeeded, summary.failed, summary.rejected

The same from a shell: `rushes render prompts.jsonl --out out/demo`.
"""

import importlib
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from typing import Literal, Unpack

    from schemas.audit import AuditSettings
    from schemas.clip import ClipFormat
    from schemas.errors import (
        CatalogError,
        ConfigError,
        InvalidRequestError,
        PermanentError,
        RushesError,
        StorageError,
        TransientError,
    )
    from schemas.finish import FitMode
    from schemas.moderation import ModerationSettings
    from schemas.run import RunOptions, RunQuote, RunSummary
    from schemas.trust import TrustSettings

    __version__: str

__all__ = [
    "AuditSettings",
    "CatalogError",
    "ConfigError",
    "InvalidRequestError",
    "ModerationSettings",
    "Options",
    "PermanentError",
    "RunOptions",
    "RunQuote",
    "RunSummary",
    "RushesError",
    "StorageError",
    "TransientError",
    "TrustSettings",
    "__version__",
    "estimate",
    "render",
]

# Looked up when they are asked for: the command line starts without them.
_PLACES = {
    **dict.fromkeys(("RunOptions", "RunQuote", "RunSummary"), "schemas.run"),
    "AuditSettings": "schemas.audit",
    "ModerationSettings": "schemas.moderation",
    "TrustSettings": "schemas.trust",
    **{name: "schemas.errors" for name in __all__ if name.endswith("Error")},
}


class Options(TypedDict, total=False):
    """What `render` and `estimate` take by keyword: the fields of `RunOptions`."""

    catalog: str | None
    variant: str | None
    limit: int | None
    snap: bool
    fit: "FitMode | None"
    loras: tuple[str, ...] | None
    encoding: str | None
    strict: bool
    templates: str | None
    clip_format: "ClipFormat"
    address: str | None
    device: "Literal['auto', 'cpu', 'cuda']"
    retry_quarantined: bool
    verify: bool
    stall_timeout_s: float
    contact_sheet_clips: int
    max_concurrent: int | None
    trust: "TrustSettings"
    audit: "AuditSettings"
    moderation: "ModerationSettings"


def render(manifest: str, out: str, **options: "Unpack[Options]") -> "RunSummary":
    """Render a manifest into `out` and return the account of it.

    Raises ConfigError for options that do not fit and RushesError when the run cannot go on; rows that fail or are
    rejected do not raise: they are counted in the summary and told in the results.
    """
    from pipelines.run import render as run
    from schemas.run import RunOptions

    return run(RunOptions(manifest=manifest, out=out, **options))


def estimate(manifest: str, out: str = "", **options: "Unpack[Options]") -> "RunQuote":
    """The quote of a manifest, without rendering. With `out`, what is done there is not quoted again."""
    from pipelines.estimate import estimate as run
    from schemas.run import RunOptions

    return run(RunOptions(manifest=manifest, out=out, **options)).quote


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rushes")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'rushes' has no attribute {name!r}")
