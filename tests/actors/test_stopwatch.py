"""The stopwatch kills a silent process and leaves a talking one alone."""

import signal
import subprocess
import sys

SILENT = """
import threading
from actors.stopwatch import Stopwatch
with Stopwatch(0.2):
    threading.Event().wait(30)
"""

TALKING = """
import threading
from actors.stopwatch import Stopwatch
with Stopwatch(2.0) as stopwatch:
    for _ in range(8):
        stopwatch.restart()
        threading.Event().wait(0.4)
print("alive")
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_a_silent_process_is_killed() -> None:
    assert run(SILENT).returncode == -signal.SIGKILL


def test_a_process_that_makes_steps_outlives_many_timeouts() -> None:
    told = run(TALKING)
    assert (told.returncode, told.stdout) == (0, "alive\n")
