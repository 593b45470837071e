"""The place where clips go is lost in the middle of a run: a full disk, a read-only one, credentials that expire.

One line says so, and the same command goes on once it is back.
"""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from storage.store import open_store
from tests.failures.driver import PATIENCE_S, TASKS, clips, finished, started, wait_for_clips
from tests.s3_faults import Fault, FaultyProxy
from tests.s3_server import S3Server

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; skipped where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=False).returncode:
        pytest.skip("may not mount here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def fill(ballast: Path) -> None:
    """Until nothing more goes onto its disk."""
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(2**20))
            file.flush()


def told(stderr: str) -> str:
    """The error, which is one line."""
    assert "Traceback" not in stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error:")]
    return line


def test_a_disk_that_fills_up_ends_the_run_with_one_line_and_the_same_command_goes_on(
    tmp_path: Path, disk: Path
) -> None:
    out = str(disk / "out")
    process = started(tmp_path, out)
    wait_for_clips(open_store(out), 1, process)
    fill(disk / "ballast")
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, stderr
    assert "No space left on device" in told(stderr)
    kept = len(clips(open_store(out)))
    assert kept < TASKS
    (disk / "ballast").unlink()
    assert finished(tmp_path, out)["succeeded"] == TASKS


def test_a_disk_that_turns_read_only_ends_the_run_with_one_line_and_the_same_command_goes_on(
    tmp_path: Path, disk: Path
) -> None:
    out = str(disk / "out")
    process = started(tmp_path, out)
    wait_for_clips(open_store(out), 1, process)
    remount(disk, "ro")
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, stderr
    assert "Read-only file system" in told(stderr)
    remount(disk, "rw")
    assert finished(tmp_path, out)["succeeded"] == TASKS


def test_credentials_that_expire_end_the_run_with_one_line_and_the_same_command_goes_on(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.make_bucket("expired")
    out = f"s3://expired/{tmp_path.name}"
    with FaultyProxy(s3_server.port) as proxy:
        process = started(tmp_path, out, {"AWS_ENDPOINT_URL": proxy.endpoint})
        wait_for_clips(open_store(out), 1, process)
        for method in ("PUT", "GET", "HEAD", "DELETE"):
            proxy.script(*[Fault(400 if method != "HEAD" else 403, "ExpiredToken")] * 300, method=method)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, stderr
    assert "ExpiredToken" in told(stderr)
    assert finished(tmp_path, out)["succeeded"] == TASKS
