"""A process of the suite that ends stops nothing but the test that it was in."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.parametrize("n", range(3))
def test_passes(n):
    pass
"""
ENDS = """
import os

def test_ends_its_process():
    os._exit(3)

def test_after_it():
    pass
"""
WAITS_FOR = """
import time
from pathlib import Path

def wait_for(what):
    while not Path(__file__).with_name(what).exists():
        time.sleep(0.05)
"""
BEGINS_AFTER_IT = """
import pytest
import waits

@pytest.mark.parametrize("n", range(3))
def test_passes(n):
    waits.wait_for("began")
"""
ENDS_LAST = """
import os
from pathlib import Path
import waits

def test_ends_its_process():
    Path(__file__).with_name("began").touch()
    waits.wait_for("the-other-is-done")
    os._exit(3)

def test_after_it():
    pass
"""
CONFTEST = """
import pytest
from tests.parts import ByPart

class ByFile(ByPart):
    def _split_scope(self, nodeid):
        return nodeid.partition("::")[0]

@pytest.hookimpl
def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False
    return ByFile(config, log)

def pytest_sessionfinish(session):
    session.config.rootpath.joinpath("the-other-is-done").touch()
"""


@pytest.mark.parametrize("ends", ["c", "bfg"])
def test_what_an_ended_process_had_left_is_run_once_by_another(ends: str, tmp_path: Path) -> None:
    for name in "abcdefg":
        tmp_path.joinpath(f"test_{name}.py").write_text(TESTS + ENDS if name in ends else TESTS)
    _run_in_two_processes(tmp_path, ends)


def test_also_when_the_other_is_done_and_the_next_to_run_is_a_single_one(tmp_path: Path) -> None:
    tmp_path.joinpath("waits.py").write_text(WAITS_FOR)
    tmp_path.joinpath("test_a.py").write_text(TESTS + ENDS_LAST)
    for name in "bcdefg":
        tmp_path.joinpath(f"test_{name}.py").write_text(BEGINS_AFTER_IT)
    _run_in_two_processes(tmp_path, "a")


def _run_in_two_processes(folder: Path, ends: str) -> None:
    folder.joinpath("conftest.py").write_text(CONFTEST)
    folder.joinpath("pytest.ini").write_text("[pytest]\npythonpath = .\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    left = 21 + len(ends)
    assert f"{len(ends)} failed, {left} passed" in ran.stdout, ran.stdout
    passed = re.findall(r"PASSED (\S+)", ran.stdout)
    assert len(passed) == len(set(passed)) == left
    for name in ends:
        assert f"crashed while running 'test_{name}.py::test_ends_its_process'" in ran.stdout
