"""Processes from outside: waited for, killed, found; and a port for those that are started again."""

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 300.0
TURN_S = 0.02
# Between questions that cost whoever is asked something: on two cores they would slow what they wait for.
DEAR_TURN_S = 0.2


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), f"the end of process {pid}")


def try_kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def terminate(family: list[int]) -> None:
    """SIGTERM to all of them, as a service manager sends it."""
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def family_of(pid: int) -> list[int]:
    """A process and all that come from it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                parent = int(Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family


def name_of(pid: int) -> str:
    """The program's name, '' once it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def free_port() -> int:
    """Below those that Linux gives to connections: one of them could take it before the server does, or while the
    server is started again."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def wait_until(
    met: Callable[[], bool],
    what: str | Callable[[], str] = "",
    patience_s: float = PATIENCE_S,
    turn_s: float = TURN_S,
) -> None:
    """Until a condition that other processes bring about is met; fails loudly when it never is."""
    if not is_met_within(met, patience_s, turn_s):
        raise AssertionError(f"waited {patience_s:g} s for {what if isinstance(what, str) else what()}")


def is_met_within(met: Callable[[], bool], patience_s: float, turn_s: float = TURN_S) -> bool:
    """Whether a condition is met before patience ends."""
    deadline = time.monotonic() + patience_s
    while not met():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(turn_s)
    return True
