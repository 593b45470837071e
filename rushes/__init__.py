"""Rushes renders video in bulk on a Ray cluster.

    >>> import rushes
    >>> summary = rushes.render("prompts.jsonl", out="out/demo")
    >>> summary.succeeded, summary.failed, summary.rejected

The same from a shell: `rushes render prompts.jsonl --out out/demo`.
"""

from typing import Any

from schemas.errors import (
    CatalogError,
    ConfigError,
    InvalidRequestError,
    PermanentError,
    RushesError,
    StorageError,
    TransientError,
)
from schemas.run import RunOptions, RunQuote, RunSummary

__all__ = [
    "CatalogError",
    "ConfigError",
    "InvalidRequestError",
    "PermanentError",
    "RunOptions",
    "RunQuote",
    "RunSummary",
    "RushesError",
    "StorageError",
    "TransientError",
    "estimate",
    "render",
]


def render(manifest: str, out: str, **options: Any) -> RunSummary:
    """Render a manifest into `out` and return the account of it. Options are those of `RunOptions`.

    Raises ConfigError for options that do not fit and RushesError when the run cannot go on; rows that fail or are
    rejected do not raise: they are counted in the summary and told in the results.
    """
    from pipelines.run import render as run

    return run(RunOptions(manifest=manifest, out=out, **options))


def estimate(manifest: str, out: str = "", **options: Any) -> RunQuote:
    """The quote of a manifest, without rendering. With `out`, what is done there is not quoted again."""
    from pipelines.run import estimate as run

    return run(RunOptions(manifest=manifest, out=out, **options)).quote
