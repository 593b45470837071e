"""`rushes serve` as people start it, in a process of its own."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx

from serve.config import ServeConfig
from serve.store.engine import open_store
from tests.failures import processes
from tests.failures.endpoint import Endpoint, catalog_text
from tests.failures.processes import DEAR_TURN_S, wait_until
from tests.failures.script import Script

SETTINGS = """
[queue]
lease_s = 4.0
heartbeat_s = 0.3

[pools]
variants = ["small"]
"""


class Command:
    """`rushes serve` on a folder, as often as it is started."""

    def __init__(self, folder: Path, out: str = "out", settings: str = SETTINGS) -> None:
        self.folder, self.out, self.database = folder, out, f"sqlite:///{folder}/tasks.sqlite"
        self.port = processes.free_port()
        (folder / "catalog.toml").write_text(catalog_text(small=[]))
        (folder / "serve.toml").write_text(settings)
        self.process: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}")

    def start(self) -> None:
        """Until it answers."""
        options = {
            "config": "serve.toml",
            "catalog": "catalog.toml",
            "out": self.out,
            "port": str(self.port),
            "database": self.database,
        }
        said = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            self._log_from = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rushes.cli", "serve", *said, "--no-auth"],
                cwd=self.folder,
                env=self._environment(),
                stdout=log,
                stderr=log,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
                start_new_session=True,
            )
        wait_until(self._answers, self.log, turn_s=DEAR_TURN_S)

    def deploy(self, address: str) -> None:
        """On a cluster, where it goes on when the command ends. Until it answers."""
        out = str(self.folder / self.out)
        options = {"config": "serve.toml", "catalog": "catalog.toml", "out": out, "address": address}
        said = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            subprocess.run(
                [sys.executable, "-m", "rushes.cli", "serve", *said, f"--port={self.port}", "--no-auth"],
                cwd=self.folder,
                env=self._environment(),
                stdout=log,
                stderr=log,
                check=True,
                timeout=processes.PATIENCE_S,
            )
        wait_until(self._answers, self.log, turn_s=DEAR_TURN_S)

    def _answers(self) -> bool:
        assert self.process is None or self.process.poll() is None, self.log()
        try:
            return self._client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        """What was said since it was started last."""
        return (self.folder / "log").read_bytes()[self._log_from :].decode()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill_everything(self) -> None:
        """SIGKILL to the command, and to all that it has started and they have started: Ray's own processes too."""
        assert self.process is not None
        family = processes.family_of(self.process.pid)
        assert len(family) > 5, "the command, Ray's processes and ours"
        for pid in family:
            processes.try_kill(pid)
        self.process.wait()
        wait_until(lambda: not any(map(processes.alive, family)), "the end of all processes")

    def kill_one(self, name: str) -> list[int]:
        """SIGKILL to one process of the family, by its name; returns all that it was."""
        assert self.process is not None
        family = processes.family_of(self.process.pid)
        (found,) = [pid for pid in family if processes.name_of(pid) == name]
        processes.kill(found)
        return family

    def interrupt(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def terminate_all(self) -> int:
        """As systemd does: SIGTERM to every process of the service at once."""
        assert self.process is not None
        family = processes.family_of(self.process.pid)
        processes.terminate(family)
        return self.ended(family)

    def ended(self, family: list[int] | None = None) -> int:
        """Its exit code, and nothing is left of it, nor of a `family` that it had before."""
        assert self.process is not None
        family = family or processes.family_of(self.process.pid)
        code = self.process.wait(processes.PATIENCE_S)
        wait_until(lambda: not any(map(processes.alive, family)), "the end of all processes")
        return code

    def ask(self, *words: str) -> str:
        """stdout of `rushes serve WORDS`."""
        said = [sys.executable, "-m", "rushes.cli", "serve", *words]
        return subprocess.run(said, capture_output=True, text=True, check=True, env=self._environment()).stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def over(command: Command) -> Endpoint:
    """What the tests see of it: its store, its objects, its port."""
    out = command.out if "://" in command.out else str(command.folder / command.out)
    config = ServeConfig(out=out, database=command.database, port=command.port, auth=False)
    client = httpx.Client(base_url=config.origin, timeout=processes.PATIENCE_S)
    return Endpoint(command.folder, config, Script(command.folder), open_store(config.database_url), client)
