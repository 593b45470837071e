"""`rushes serve status` finds the endpoint that runs here, whatever other clusters there are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rushes.endpoint_notes import address_of_endpoint, noted
from schemas.errors import ConfigError


def test_an_endpoint_is_found_while_it_runs_and_not_afterwards(tmp_path: Path) -> None:
    assert address_of_endpoint(tmp_path) is None
    with noted(tmp_path, "127.0.0.1:7001", "http://127.0.0.1:8000"):
        assert address_of_endpoint(tmp_path) == "127.0.0.1:7001"
    assert address_of_endpoint(tmp_path) is None


def test_of_several_none_is_guessed_and_all_are_named(tmp_path: Path) -> None:
    other = tmp_path / "endpoints" / f"{os.getppid()}.json"
    with noted(tmp_path, "127.0.0.1:7001", "http://127.0.0.1:8000"):
        other.write_text('{"address": "127.0.0.1:7002", "origin": "http://127.0.0.1:8001"}')
        with pytest.raises(ConfigError, match=r"(?=.*7001 .http://127.0.0.1:8000)(?=.*7002 .http://127.0.0.1:8001)"):
            address_of_endpoint(tmp_path)


def test_notes_of_processes_that_were_killed_and_damaged_ones_are_passed_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    folder = tmp_path / "endpoints"
    folder.mkdir()
    (folder / f"{ended.pid}.json").write_text('{"address": "127.0.0.1:7003", "origin": "http://127.0.0.1:8002"}')
    (folder / f"{os.getppid()}.json").write_text("{")
    with noted(tmp_path, "127.0.0.1:7001", "http://127.0.0.1:8000"):
        assert address_of_endpoint(tmp_path) == "127.0.0.1:7001"
    assert not (folder / f"{ended.pid}.json").exists()


def test_where_no_note_can_be_written_the_endpoint_serves_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "endpoints").write_text("a file is in the way")
    with noted(tmp_path, "127.0.0.1:7001", "http://127.0.0.1:8000"):
        assert address_of_endpoint(tmp_path) is None
