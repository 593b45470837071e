"""What is ended with a Ray of our own: its processes, and nobody else's."""

import subprocess
import sys

import psutil
import pytest

from cluster import processes


@pytest.fixture(autouse=True)
def unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes._MARK, "")


def child() -> subprocess.Popen[bytes]:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    made = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert made.stdout is not None
    assert made.stdout.readline() == b"1\n", "its own child is up"
    return made


def test_what_this_process_had_started_before_goes_on() -> None:
    """Programs that render have children of their own; psutil, which reaps those that it waits for, would even take
    their exit status from them."""
    before = child()
    own = processes.marked()
    after = child()
    own = processes.started(own)
    assert [one.pid for one in own.helpers] == [after.pid]
    assert own.core == ()
    own.kill()
    assert not processes._lives(own.helpers[0])
    assert before.poll() is None
    answer, _ = before.communicate(b"\n", timeout=60)
    assert (answer, before.returncode) == (b"", 0), "its own child was left alone too"


def test_what_carries_the_mark_is_ended_though_its_parent_is_gone() -> None:
    own = processes.marked()
    sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], stdout=-3, stderr=-3)"  # DEVNULL
    program = f"import subprocess, sys; print({sleeper}.pid)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    orphan = psutil.Process(int(told.stdout))
    assert processes._lives(orphan)
    own.kill()
    assert not processes._lives(orphan)
