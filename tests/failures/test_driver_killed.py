"""The driver, or the whole S3 server, dies in the middle of a run; the same command is typed again."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from storage import keys
from storage.ledger import Ledger
from storage.store import open_store
from storage.tables import read_table, table_to_records
from tests.failures.driver import (
    PATIENCE_S,
    TASKS,
    audited,
    clips,
    finished,
    started,
    verdicts,
    wait_for,
    wait_for_clips,
)
from tests.failures.processes import alive, family_of, kill, name_of, terminate, wait_until
from tests.s3_faults import Fault, FaultyProxy
from tests.s3_server import S3Server

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, s3_server: S3Server) -> S3Server:
    """The session's S3 server, known to the processes that this test starts."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


def test_a_killed_driver_leaves_what_is_stored_and_the_same_command_renders_the_rest(
    tmp_path: Path, server: S3Server
) -> None:
    server.make_bucket("killed")
    out = f"s3://killed/{tmp_path.name}"
    store = open_store(out)
    process = started(tmp_path, out, actors=2)
    wait_for(lambda: Ledger(store).count() > 1, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    objects = len(list(store.list("ledger/")))  # first: actors go on for a moment
    survivors = {r.fingerprint: r for r in table_to_records(Ledger(store).load())}
    assert objects < len(survivors), "the records of a batch are one object"
    killed = audited(out)
    assert killed["whole"], killed
    assert "has not ended" in killed["notes"][0]
    # Of clips with a record only: who dies between a clip and its record leaves a task to be done again.
    recorded = [key for key in clips(store) if Path(key).stem in survivors]
    etags = {key: store.head(key).etag for key in recorded}  # type: ignore[union-attr]
    assert len(etags) == len(survivors)
    assert 0 < len(survivors) < TASKS

    summary = finished(tmp_path, out, actors=2)

    assert (summary["rows"], summary["succeeded"], summary["failed"]) == (TASKS, TASKS, 0)
    assert summary["rendered"] <= TASKS - len(survivors)
    records = {r.fingerprint: r for r in table_to_records(Ledger(store).load())}
    assert {f: records[f].finished_at for f in survivors} == {f: r.finished_at for f, r in survivors.items()}
    assert len(clips(store)) == len(set(clips(store))) == TASKS
    assert {key: store.head(key).etag for key in etags} == etags, "a clip with a record is never written again"  # type: ignore[union-attr]
    report = audited(out)
    assert (report["whole"], report["notes"]) == (True, []), report
    assert len(report["chains"]) >= 4, "of two drivers, and of the actors of each"
    assert verdicts(out) == {"valid": TASKS}, "signed bytes differ by attempt, and each clip has its own record's"
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
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
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
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
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
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, stderr
    assert "AccessDenied" in stderr
    kept = len(clips(open_store(out)))
    assert 0 < kept < TASKS
    recorded = Ledger(open_store(out)).count()
    assert finished(tmp_path, out)["rendered"] <= TASKS - recorded


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
    assert (note["status"], note["reason"]) == ("INTERRUPTED", "interrupted")
    assert not _children_of(process.pid)


@pytest.mark.parametrize("how", ["SIGTERM to every process", "SIGTERM to its group", "Ctrl-C twice"])
def test_asked_by_a_service_manager_or_twice_it_says_how_to_go_on_without_rays_noise(tmp_path: Path, how: str) -> None:
    out = str(tmp_path / "out")
    process = started(tmp_path, out, tasks=50 * TASKS)
    wait_for_clips(open_store(out), 1, process)
    family = family_of(process.pid)
    if how == "Ctrl-C twice":
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGINT)
    elif how == "SIGTERM to its group":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        terminate(family)
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert "raylet" not in stderr
    # Workers whose raylet was told, too, see by themselves that it has gone.
    wait_until(lambda: not any(map(alive, family)), lambda: f"{[name_of(pid) for pid in family if alive(pid)]}", 15)
    if how != "Ctrl-C twice" and process.returncode == 1:
        # The raylet was told, too: seldom Ray's core sees it go, and ends this process, before Python hears the signal.
        assert "error:" not in stderr
        return
    assert process.returncode == 130, stderr
    assert stderr.rstrip().splitlines()[-2:][0] == "Stopped. What is stored is kept; to go on:"


@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_run_whose_ray_has_died_ends_with_one_line_and_goes_on_when_asked_again(tmp_path: Path, victim: str) -> None:
    out = str(tmp_path / "out")
    process = started(tmp_path, out, tasks=50 * TASKS)
    wait_for_clips(open_store(out), 1, process)
    family = family_of(process.pid)
    kill(next(pid for pid in family if name_of(pid) == victim))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert stderr.count(f"error: Ray has ended on this machine ({victim}); what is stored is kept") == 1
    assert not any(map(alive, family))
    assert finished(tmp_path, out)["succeeded"] == TASKS


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
