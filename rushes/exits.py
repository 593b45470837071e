"""How commands end: exit codes, and errors in one place."""

from enum import IntEnum
from typing import NoReturn

import typer
from rich.console import Console

from schemas.errors import CatalogError, ConfigError, RushesError


class Exit(IntEnum):
    """What the exit codes mean."""

    OK = 0
    BROKE = 1
    USAGE = 2
    INCOMPLETE = 3
    INTERRUPTED = 130


def fail(error: RushesError) -> NoReturn:
    """Print the error on stderr and end: 2 when the user can mend it by asking differently, 1 otherwise."""
    Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(Exit.USAGE if isinstance(error, ConfigError | CatalogError) else Exit.BROKE) from None
