"""A process of the suite that ends stops nothing but the test that it was in."""

import os
import re
import subprocess
import sys
from pathlib import Path

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
"""


def test_what_an_ended_process_had_left_is_run_once_by_another(tmp_path: Path) -> None:
    tmp_path.joinpath("conftest.py").write_text(CONFTEST)
    tmp_path.joinpath("pytest.ini").write_text("[pytest]\n")
    for name in "abdefg":
        tmp_path.joinpath(f"test_{name}.py").write_text(TESTS)
    tmp_path.joinpath("test_c.py").write_text(TESTS + ENDS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "1 failed, 22 passed" in ran.stdout, ran.stdout
    passed = re.findall(r"PASSED (\S+)", ran.stdout)
    assert len(passed) == len(set(passed)) == 22
    assert "crashed while running 'test_c.py::test_ends_its_process'" in ran.stdout
