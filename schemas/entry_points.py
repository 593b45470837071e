"""Objects of others by entry point: what installed packages offer under a group's name."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from schemas.errors import ConfigError


def find(group: str, name: str, unknown: str, *, more: str = "") -> EntryPoint:
    """The entry point called `name`. Loads nothing. Raises ConfigError that says what there would be: `unknown` is how
    it begins ("signer: unknown 'kms'"), `more` tells of other ways to say it."""
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        choices = ", ".join(sorted(found)) or f"none: no installed package has entry points of {group}"
        raise ConfigError(f"{unknown}; available: {choices}{more}")
    return found[name]


def made(point: EntryPoint, what: str) -> Any:
    """What the callable behind it returns. Raises ConfigError that says what it raised; `what` names the setting."""
    try:
        return point.load()()
    except Exception as error:  # somebody else's
        raise ConfigError(f"{what} {point.name!r}: {type(error).__name__}: {error}") from error
