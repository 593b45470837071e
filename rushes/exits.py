"""How commands end: exit codes, and errors in one place."""

import traceback
from enum import IntEnum
from typing import NoReturn

import typer

from rushes import console
from schemas.errors import CatalogError, ConfigError, InvalidRequestError, RushesError, one_line


class Exit(IntEnum):
    """What the exit codes mean."""

    OK = 0
    BROKE = 1
    USAGE = 2
    INCOMPLETE = 3
    INTERRUPTED = 130


class Debug:
    """Whether `--debug` was given: then errors are shown with where they came from."""

    wanted = False


def fail(error: RushesError) -> NoReturn:
    """Print the error on stderr and end: 2 when the user can mend it by asking differently, 1 otherwise."""
    if Debug.wanted:
        traceback.print_exception(error)
    console.err().print(f"error: {error}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(
        Exit.USAGE if isinstance(error, ConfigError | CatalogError | InvalidRequestError) else Exit.BROKE
    ) from None


def fail_unforeseen(error: Exception) -> NoReturn:
    """A mistake of ours, in one line; `--debug` shows where it is."""
    if Debug.wanted:
        traceback.print_exception(error)
    said = one_line(error)
    tail = "" if Debug.wanted else "; this should not happen: --debug shows where it came from"
    console.err().print(f"error: {type(error).__name__}: {said}{tail}", style="red", markup=False, soft_wrap=True)
    raise SystemExit(Exit.BROKE)
