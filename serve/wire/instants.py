"""Instants on the wire: ISO 8601 in UTC, with milliseconds and a Z, as Runway writes them."""

import math
from datetime import UTC, datetime


def iso(at: float | None) -> str | None:
    """None for what has not happened, and for what never will."""
    if at is None or not math.isfinite(at):
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def day(at: float) -> str:
    """The UTC date."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def midnight(at: float) -> float:
    """The beginning of the UTC day of `at`."""
    return at - at % 86_400
