"""Large batches of a running endpoint: beside `rushes serve`, and as jobs of a Ray cluster with a dashboard."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.bulk import Hold
from tests.failures import processes
from tests.failures.command import SETTINGS, Command, over
from tests.failures.endpoint import Endpoint
from tests.failures.processes import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = SETTINGS + "\n[limits]\nmax_batch_tasks = 2\n"
PATIENCE_S = 240.0


def post(served: Endpoint, rows: int, key: str) -> dict[str, Any]:
    body = {"tasks": [{"promptText": f"p{n}", "model": "small", "seed": n} for n in range(rows)]}
    answer = served.client.post("/v1/batches", json=body, headers={"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ended(served: Endpoint, batch_id: str, log: str = "") -> dict[str, Any]:
    def now() -> dict[str, Any]:
        return dict(served.client.get(f"/v1/batches/{batch_id}").json())

    wait_until(lambda: "finishedAt" in now(), lambda: f"{now()} {Hold.read(served.store, batch_id)} {log}", PATIENCE_S)
    return now()


def check(served: Endpoint, batch: dict[str, Any], rows: int) -> None:
    """All rendered, once, and each clip is there for whoever has its URL."""
    assert (batch["status"], batch["counts"]["succeeded"], batch["total"]) == ("SUCCEEDED", rows, rows), batch
    tasks = served.client.get(f"/v1/batches/{batch['id']}/tasks").json()["tasks"]
    assert sorted(task["id"] for task in tasks) == [str(n) for n in range(rows)]
    for task in tasks:
        clip = httpx.get(task["output"][0])
        assert (clip.status_code, len(clip.content)) == (200, task["clip"]["bytes"])


def test_a_run_beside_the_endpoint_is_begun_again_when_its_process_dies(tmp_path: Path) -> None:
    command = Command(tmp_path, settings=SMALL)
    command.start()
    try:
        with over(command) as served:
            batch = post(served, 4, "night")
            assert post(served, 4, "night")["id"] == batch["id"]

            def spoke() -> bool:
                held = Hold.read(served.store, batch["id"])
                return held is not None and held.spoke

            wait_until(spoke, command.log, PATIENCE_S)
            assert command.process is not None
            (run,) = [pid for pid in processes.family_of(command.process.pid) if is_run(pid)]
            processes.kill(run)
            check(served, ended(served, batch["id"], command.log()), 4)
        assert command.interrupt() == 0
    finally:
        if command.process is not None and command.process.poll() is None:
            command.kill_everything()


def test_on_a_cluster_it_is_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # of this cluster and of all who join it
    with ray_head(tmp_path) as address:
        command = Command(tmp_path, settings=SMALL)
        command.deploy(address)
        with over(command) as served:
            batch = post(served, 4, "job")
            check(served, ended(served, batch["id"], command.log()), 4)


def is_run(pid: int) -> bool:
    try:
        return b"rushes.bulk_run" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@contextmanager
def ray_head(folder: Path) -> Iterator[str]:
    """A cluster of one node, with the dashboard that takes jobs; all its processes are gone at the end."""
    port = processes.free_port()
    words = ["start", "--head", "--block", f"--port={port}", "--num-cpus=6", "--include-dashboard=true"]
    words += [
        f"--dashboard-port={processes.free_port()}",
        f"--dashboard-agent-listen-port={processes.free_port()}",  # another cluster of this machine may have the usual
        "--disable-usage-stats",
        f"--ray-client-server-port={processes.free_port()}",
    ]
    ray = str(Path(sys.executable).parent / "ray")
    with (folder / "ray.log").open("ab") as log:
        head = subprocess.Popen(
            [ray, *words], stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    try:

        def is_up() -> bool:
            text = (folder / "ray.log").read_text()
            assert head.poll() is None, text
            return "Ray runtime started" in text

        wait_until(is_up, "the cluster", 120.0)
        yield f"127.0.0.1:{port}"
    finally:
        family = processes.family_of(head.pid)
        for pid in family:
            processes.try_kill(pid)
        head.wait(30)


ROOT = Path(__file__).resolve().parents[2]
