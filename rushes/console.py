"""Where commands print: for people on a terminal, whole lines into a pipe."""

import sys

from rich.console import Console

# Into a pipe nothing is cut: what reads it has no edge.
_PIPE_WIDTH = 1000


def out() -> Console:
    """stdout."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def err() -> Console:
    """stderr."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH, highlight=False)
