"""`rushes serve` as people start it: everything dies at once, and the same command goes on; Ctrl-C stops it kindly."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from schemas.clip import Status
from serve.config import ServeConfig
from serve.store.engine import open_store
from tests.failures import processes
from tests.failures.endpoint import Endpoint, catalog_text
from tests.failures.processes import wait_until
from tests.failures.script import Script

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = """
[queue]
lease_s = 4.0
heartbeat_s = 0.3

[pools]
variants = ["small"]
"""
# Long enough to be met in the middle, and none like another: each is a call of its own.
STEPS = 150


class Command:
    """`rushes serve` on a folder, as often as it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = processes.free_port()
        (folder / "catalog.toml").write_text(catalog_text(small=[]))
        (folder / "serve.toml").write_text(SETTINGS)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        options = {"config": "serve.toml", "catalog": "catalog.toml", "out": "out", "port": str(self.port)}
        said = [part for name, value in options.items() for part in (f"--{name}", value)]
        root = Path(__file__).resolve().parents[2]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rushes.cli", "serve", *said, "--no-auth"],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(root)},
                stdout=log,
                stderr=log,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )
        wait_until(self._answers, self._log)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self._log()
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _log(self) -> str:
        return (self.folder / "log").read_text()

    def kill_everything(self) -> None:
        """SIGKILL to the command, and to all that it has started and they have started: Ray's own processes too."""
        assert self.process is not None
        family = processes.family_of(self.process.pid)
        assert len(family) > 5, "the command, Ray's processes and ours"
        for pid in family:
            processes.try_kill(pid)
        self.process.wait()
        wait_until(lambda: not any(map(processes.alive, family)), "the end of all processes")

    def interrupt(self) -> int:
        assert self.process is not None
        family = processes.family_of(self.process.pid)
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(processes.PATIENCE_S)
        wait_until(lambda: not any(map(processes.alive, family)), "the end of all processes")
        return code


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    found = Command(tmp_path)
    yield found
    if found.process is not None and found.process.poll() is None:
        found.kill_everything()


def test_after_the_end_of_every_process_the_same_command_finishes_what_was_accepted_once(command: Command) -> None:
    command.start()
    with over(command) as served:
        tasks = [submit(served, n) for n in range(6)]

        def in_the_middle() -> bool:
            statuses = served.statuses(*tasks)
            return {Status.SUCCEEDED, Status.RUNNING, Status.PENDING} <= set(statuses)

        wait_until(in_the_middle, lambda: str(served.statuses(*tasks)))
        command.kill_everything()
        before = served.tasks(tasks)
        written = {task.id: served.clip_of(task.id).stat().st_mtime_ns for task in before if task.outcome}
        assert {Status.SUCCEEDED, Status.PENDING} <= {task.status for task in before}

        command.start()
        after = served.succeeded(*tasks)
        for old, new in zip(before, after, strict=True):
            if old.status is Status.SUCCEEDED:
                assert new == old
                assert served.clip_of(new.id).stat().st_mtime_ns == written[new.id], "and its clip was left alone"
            else:
                assert new.attempts == old.attempts + 1

        more = [submit(served, n) for n in range(6, 10)]
        wait_until(lambda: Status.RUNNING in served.statuses(*more), "one of them to run")
        assert command.interrupt() == 0
        statuses = served.statuses(*more)
        assert Status.RUNNING not in statuses, "what ran was finished"
        assert Status.PENDING in statuses, "what waited was kept"
        for task in served.tasks(more):
            assert task.attempts == (task.status is Status.SUCCEEDED)


def submit(served: Endpoint, n: int) -> str:
    return served.submit(f"task {n}", numInferenceSteps=STEPS + n)


def over(command: Command) -> Endpoint:
    """What the tests see of it: its store, its objects, its port."""
    config = ServeConfig(out=str(command.folder / "out"), port=command.port, auth=False)
    client = httpx.Client(base_url=config.origin, timeout=processes.PATIENCE_S)
    return Endpoint(command.folder, config, Script(command.folder), open_store(config.database_url), client)
