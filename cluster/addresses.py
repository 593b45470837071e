"""Which Ray cluster a command means, found before Ray is asked: at an address where nobody answers Ray itself waits for
minutes and then ends the process.
"""

import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from schemas.errors import ConfigError

LOCAL = "local"
_CONNECT_S = 5.0
_CHOICES = "available: auto, local, HOST:PORT (Ray's is 6379)"


@dataclass(frozen=True)
class Meant:
    """A cluster at `address`, HOST:PORT; or, where that is None, one that is started here. `source` named it; one that
    runs `here` may want this machine's token."""

    address: str | None
    source: str = ""
    here: bool = False

    @property
    def said(self) -> str | None:
        """What nobody typed is told."""
        return f"joining the Ray cluster at {self.address} ({self.source})" if self.source == "RAY_ADDRESS" else None


def meant(address: str | None, environment: Mapping[str, str] = os.environ) -> Meant:
    """The cluster that an option and the environment name, whatever else lies about on this machine.

    Raises ConfigError for what is no address, where no cluster runs here for 'auto', and where nobody answers.
    """
    named, source = address, "--address"
    if address in (None, "auto") and environment.get("RAY_ADDRESS"):
        named, source = environment["RAY_ADDRESS"], "RAY_ADDRESS"
    if named is None or named == LOCAL:
        return Meant(None)
    if named == "auto":
        return Meant(_found_here(environment), source, here=True)
    if named.startswith("ray://"):
        raise ConfigError(
            f"{source} {named}: Ray Client is not supported; run the command on a node of the cluster with "
            "--address auto, or send it there with `ray job submit`"
        )
    host, port = _host_and_port(named, source)
    if (why := _silent(host, port)) is not None:
        raise ConfigError(f"{source} {named}: no Ray cluster answers there: {why}")
    return Meant(named, source, here=named in _running_here())


def is_reachable(address: str, timeout_s: float = _CONNECT_S) -> bool:
    """Whether somebody answers at HOST:PORT; not at what is no address."""
    try:
        return _silent(*_host_and_port(address, "--address"), timeout_s) is None
    except ConfigError:  # of a damaged note
        return False


def _host_and_port(named: str, source: str) -> tuple[str, int]:
    host, _, port = named.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if "://" in named or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{source} {named}: not an address; {_CHOICES}")
    return host, int(port)


def _silent(host: str, port: int, timeout_s: float = _CONNECT_S) -> str | None:
    """Why nobody can be talked to at an address; None when somebody can."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return None


def _found_here(environment: Mapping[str, str]) -> str:
    """The cluster that Ray would join on this machine. Its note of the last one may be of one that has ended, for which
    Ray would wait."""
    noted = _noted(environment)
    running = sorted(address for address in _running_here() if is_reachable(address))
    if noted is not None and is_reachable(noted) and (noted in running or not running):
        return noted
    if len(running) == 1:
        return running[0]
    if running:
        raise ConfigError(f"--address auto: several Ray clusters run on this machine; available: {', '.join(running)}")
    dead = f" (the one at {noted} has ended)" if noted is not None else ""
    raise ConfigError(
        f"--address auto: no Ray cluster runs on this machine{dead}; `ray start --head` starts one, and without "
        "--address one is started for the command"
    )


def _running_here() -> set[str]:
    """Where the raylets of this machine have their cluster's head."""
    found = set()
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "raylet":
            for word in process.info["cmdline"] or ():
                if word.startswith("--gcs-address="):
                    found.add(word.partition("=")[2])
    return found


def _noted(environment: Mapping[str, str]) -> str | None:
    folder = Path(environment.get("RAY_TMPDIR") or (tempfile.gettempdir() if os.name == "nt" else "/tmp"))
    try:
        return (folder / "ray" / "ray_current_cluster").read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
