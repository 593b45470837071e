"""Which clusters of this machine `rushes serve` started, so that `rushes serve status`, `drain` and `down` find theirs
among others."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from schemas.errors import ConfigError

_FOLDER = "endpoints"


@contextmanager
def noted(state_dir: Path, address: str, origin: str) -> Iterator[None]:
    """While this process serves at `origin`: its cluster is at `address`. Without a place for a note there is none."""
    note = state_dir / _FOLDER / f"{os.getpid()}.json"
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"address": address, "origin": origin}))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def address_of_endpoint(state_dir: Path) -> str | None:
    """The cluster of the one `rushes serve` of this user that runs here; None for none. ConfigError for several."""
    found: dict[str, str] = {}
    for note in sorted((state_dir / _FOLDER).glob("*.json")):
        try:
            said = json.loads(note.read_text())
            if note.stem.isdecimal() and psutil.pid_exists(int(note.stem)):
                found[str(said["address"])] = str(said["origin"])
            else:
                note.unlink(missing_ok=True)  # of a process that was killed
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if len(found) > 1:
        choices = ", ".join(f"{address} ({origin})" for address, origin in found.items())
        raise ConfigError(f"--address auto: several endpoints run on this machine; available: {choices}")
    return next(iter(found), None)
