"""`rushes serve` as people start it: everything dies at once, and the same command goes on; Ctrl-C stops it kindly."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.clip import Status
from tests.failures.command import SETTINGS, Command, over
from tests.failures.driver import audited
from tests.failures.endpoint import Endpoint, catalog_text
from tests.failures.processes import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

# Long enough to be met in the middle, and none like another: each is a call of its own.
STEPS = 150


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
                # A lease of which nobody had said that it was begun was no attempt.
                unknown = old.status is Status.RUNNING and old.stage in ("", "waiting")
                assert new.attempts == old.attempts + (0 if unknown else 1)

        more = [submit(served, n) for n in range(6, 10)]
        wait_until(lambda: Status.RUNNING in served.statuses(*more), "one of them to run")
        assert command.interrupt() == 0
        statuses = served.statuses(*more)
        assert Status.RUNNING not in statuses, "what ran was finished"
        assert Status.PENDING in statuses, "what waited was kept"
        for task in served.tasks(more):
            assert task.attempts == (task.status is Status.SUCCEEDED)
        report = audited(str(command.folder / command.out), command.database)
        assert report["whole"], report
        assert report["records"] + report["waiting"] >= 3 * len(tasks), "accepted, begun, done"
        assert report["anchors"] >= 1


def test_a_service_managers_sigterm_to_every_process_loses_no_task(command: Command) -> None:
    command.start()
    with over(command) as served:
        tasks = [submit(served, n) for n in range(4)]
        wait_until(lambda: Status.RUNNING in served.statuses(*tasks), "one of them to run")
        began = time.monotonic()
        assert command.terminate_all() == 0
        assert time.monotonic() - began < 20, "the goal is 15 s; a busy machine gets some more"
        assert "Traceback" not in command.log()
        command.start()
        served.succeeded(*tasks)
        assert command.interrupt() == 0


def test_status_and_down_of_an_endpoint_with_a_pool_that_sleeps_end_the_command_that_serves(command: Command) -> None:
    (command.folder / "catalog.toml").write_text(catalog_text(small=[], second=[]))
    (command.folder / "serve.toml").write_text(SETTINGS.replace('["small"]', '["small", "second"]'))
    command.start()
    wait_until(lambda: command.ask("status").startswith("RUNNING"), command.log)  # its pool may still be deploying
    pools = {pool["variant"]: pool["replicas"] for pool in json.loads(command.ask("status", "--json"))["pools"]}
    assert pools == {"small": 1, "second": 0}
    assert command.ask("down").strip() == "stopped"
    assert command.ended() == 0
    assert command.log().rstrip().endswith("stopped")


def test_a_variant_that_cannot_be_loaded_keeps_no_other_from_work_and_is_told_in_one_line(command: Command) -> None:
    text = catalog_text(small=["second"], second=[]).replace("embedded:tiny-random", "./gone", 1)
    (command.folder / "catalog.toml").write_text(text)
    (command.folder / "serve.toml").write_text(SETTINGS.replace('["small"]', '["small", "second"]'))
    command.start()
    with over(command) as served:
        asked_for_it, asked_for_another = served.submit("a"), served.submit("b", model="second")
        assert [task.variant for task in served.succeeded(asked_for_it, asked_for_another)] == ["second", "second"]
    wait_until(lambda: "trouble:" in command.log(), command.log)
    (line,) = [line for line in command.log().splitlines() if line.startswith("trouble:")]
    assert str(command.folder / "gone") in line
    assert "Traceback" not in command.log()
    assert "Traceback" not in command.ask("status")
    assert command.interrupt() == 0


def test_an_endpoint_whose_ray_has_died_ends_and_the_same_command_goes_on(command: Command) -> None:
    command.start()
    with over(command) as served:
        tasks = [submit(served, n) for n in range(3)]
        family = command.kill_one("raylet")
        assert command.ended(family) == 1
        assert "Ray has ended on this machine (raylet); what is stored is kept" in command.log()
        assert "Traceback" not in command.log()
        command.start()
        served.succeeded(*tasks)
        assert command.interrupt() == 0


def submit(served: Endpoint, n: int) -> str:
    return served.submit(f"task {n}", numInferenceSteps=STEPS + n)
