"""The driver, or the whole S3 server, dies in the middle of a run; the same command is typed again."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from storage import keys
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store
from storage.tables import read_table, table_to_records
from tests.pipelines.catalogs import TWO_VARIANTS
from tests.s3_faults import Fault, FaultyProxy
from tests.s3_server import S3Server

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

TASKS = 24
_PATIENCE_S = 240.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, s3_server: S3Server) -> S3Server:
    """The session's S3 server, known to the processes that this test starts."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


def command(folder: Path, out: str, tasks: int = TASKS) -> list[str]:
    rows = [{"id": f"t{i}", "prompt": f"clip {i}", "variant": "small"} for i in range(tasks)]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "catalog.toml").write_text(TWO_VARIANTS.replace("steps = 2", "steps = 12"))
    options = ["--out", out, "--catalog", str(folder / "catalog.toml"), "--json"]
    return [sys.executable, "-m", "rushes.cli", "render", str(folder / "m.jsonl"), *options]


def started(
    folder: Path, out: str, environment: dict[str, str] | None = None, tasks: int = TASKS
) -> subprocess.Popen[str]:
    env = {**os.environ, **(environment or {})}
    told = command(folder, out, tasks)
    # A shell's background jobs ignore SIGINT, and so do their children: this one must hear it wherever pytest runs.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=heard)


def finished(folder: Path, out: str) -> dict[str, Any]:
    answer = subprocess.run(command(folder, out), capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    assert answer.returncode == 0, answer.stderr
    summary: dict[str, Any] = json.loads(answer.stdout)
    return summary


def wait_for_clips(store: ObjectStore, count: int, process: subprocess.Popen[str]) -> None:
    """Until `count` clips are stored. Fails when the process ends before, or nothing comes."""
    deadline = time.monotonic() + _PATIENCE_S
    while len(clips(store)) < count:
        assert process.poll() is None, f"ended too soon: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "no clips came"
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue


def clips(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(keys.CLIPS) if info.key.endswith(".mp4")]


def test_a_killed_driver_leaves_what_is_stored_and_the_same_command_renders_the_rest(
    tmp_path: Path, server: S3Server
) -> None:
    server.make_bucket("killed")
    out = f"s3://killed/{tmp_path.name}"
    store = open_store(out)
    process = started(tmp_path, out)
    wait_for_clips(store, 3, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survivors = {r.fingerprint: r for r in table_to_records(Ledger(store).load())}
    etags = {key: store.head(key).etag for key in clips(store)}  # type: ignore[union-attr]
    assert 0 < len(survivors) < TASKS

    summary = finished(tmp_path, out)

    assert (summary["rows"], summary["succeeded"], summary["failed"]) == (TASKS, TASKS, 0)
    assert summary["rendered"] <= TASKS - len(survivors)
    records = {r.fingerprint: r for r in table_to_records(Ledger(store).load())}
    assert {f: records[f].finished_at for f in survivors} == {f: r.finished_at for f, r in survivors.items()}
    assert len(clips(store)) == len(set(clips(store))) == TASKS
    assert {key: store.head(key).etag for key in etags} == etags, "a stored clip is never written again"  # type: ignore[union-attr]
    table = read_table(store, keys.results_part(summary["run_id"], 0))
    assert table.column("uri").to_pylist() == [r.clip.uri for r in _by_row(table, records) if r.clip]


def test_an_s3_server_that_dies_for_a_while_costs_time_and_nothing_else(tmp_path: Path, server: S3Server) -> None:
    server.make_bucket("outage")
    out = f"s3://outage/{tmp_path.name}"
    store = open_store(out)
    process = started(tmp_path, out)
    wait_for_clips(store, 2, process)
    server.kill()
    server.restart()
    stdout, stderr = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["succeeded"] == TASKS
    assert len(clips(store)) == TASKS


def test_errors_of_the_store_in_the_middle_of_a_run_are_ridden_out(tmp_path: Path, server: S3Server) -> None:
    server.make_bucket("rough")
    out = f"s3://rough/{tmp_path.name}"
    with FaultyProxy(server.port) as proxy:
        process = started(tmp_path, out, {"AWS_ENDPOINT_URL": proxy.endpoint})
        wait_for_clips(open_store(out), 1, process)
        proxy.script(Fault(500), Fault(503, "SlowDown"), Fault(503, "SlowDown"), Fault(lose_answer=True), method="PUT")
        stdout, stderr = process.communicate(timeout=_PATIENCE_S)
        assert proxy.pending() == 0, "all of it happened"
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["succeeded"] == TASKS
    assert len(clips(open_store(out))) == TASKS


def test_a_store_that_refuses_in_the_middle_of_a_run_ends_it_with_the_reason(tmp_path: Path, server: S3Server) -> None:
    server.make_bucket("refused")
    out = f"s3://refused/{tmp_path.name}"
    with FaultyProxy(server.port) as proxy:
        process = started(tmp_path, out, {"AWS_ENDPOINT_URL": proxy.endpoint})
        wait_for_clips(open_store(out), 1, process)
        proxy.script(*[Fault(403, "AccessDenied")] * 50, method="PUT")
        _, stderr = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 1, stderr
    assert "AccessDenied" in stderr
    kept = len(clips(open_store(out)))
    assert 0 < kept < TASKS
    assert finished(tmp_path, out)["rendered"] <= TASKS - kept + 1, "one may have been stored without its record"


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, asked: signal.Signals) -> None:
    out = str(tmp_path / "out")
    process = started(tmp_path, out, tasks=50 * TASKS)  # far too many to be done before the signal arrives
    wait_for_clips(open_store(out), 1, process)
    process.send_signal(asked)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "to go on" in stderr
    assert f"--out {out}" in stderr
    note = json.loads(Path(out, keys.RUN).read_text())
    assert (note["status"], note["reason"]) == ("FAILED", "interrupted")
    assert not _children_of(process.pid)


def _by_row(table: Any, records: dict[str, Any]) -> list[Any]:
    return [records[fingerprint] for fingerprint in table.column("fingerprint").to_pylist()]


def _children_of(pid: int) -> list[str]:
    """Processes whose parent is still `pid`: none, once it has cleaned up after itself."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == pid:
                found.append(stat)
    return found
