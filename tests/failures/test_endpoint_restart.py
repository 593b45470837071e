"""`rushes serve` as people start it: everything dies at once, and the same command goes on; Ctrl-C stops it kindly.

One endpoint goes through all of it, but for the last test: each start of it is the next test's, too.
"""

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
TWO_POOLS = SETTINGS.replace('["small"]', '["small", "second"]')


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """One endpoint for the tests in the order in which they stand: whatever ends it, the next test goes on with it."""
    found = Command(tmp_path_factory.mktemp("endpoint"), settings=TWO_POOLS)
    (found.folder / "catalog.toml").write_text(catalog_text(small=[], second=[]))
    yield from ended(found)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Command]:
    """An endpoint of a test's own."""
    yield from ended(Command(tmp_path))


def ended(command: Command) -> Iterator[Command]:
    yield command
    if command.is_running():
        command.kill_everything()


@pytest.fixture
def own_cache(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the endpoint, over all its starts: with its keys."""
    monkeypatch.setenv("RUSHES_CACHE_DIR", str(command.folder / "cache"))
    monkeypatch.setenv("RUSHES_STATE_DIR", str(command.folder / "state"))


@pytest.fixture
def served(command: Command, own_cache: None) -> Iterator[Endpoint]:
    if not command.is_running():
        command.start()
    with over(command) as found:
        yield found


def test_its_status_tells_of_a_pool_that_sleeps(served: Endpoint, command: Command) -> None:
    wait_until(lambda: command.ask("status").startswith("RUNNING"), command.log)  # its pool may still be deploying
    pools = {pool["variant"]: pool["replicas"] for pool in json.loads(command.ask("status", "--json"))["pools"]}
    assert pools == {"small": 1, "second": 0}


def test_after_the_end_of_every_process_the_same_command_finishes_what_was_accepted_once(
    served: Endpoint, command: Command
) -> None:
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


def test_a_service_managers_sigterm_to_every_process_loses_no_task(served: Endpoint, command: Command) -> None:
    tasks = [submit(served, n) for n in range(6, 10)]
    wait_until(lambda: Status.RUNNING in served.statuses(*tasks), "one of them to run")
    began = time.monotonic()
    assert command.terminate_all() == 0
    assert time.monotonic() - began < 45, "the goal is 15 s; a busy machine gets some more"
    assert "Traceback" not in command.log()
    command.start()
    served.succeeded(*tasks)


def test_an_endpoint_whose_ray_has_died_ends_and_the_same_command_goes_on(served: Endpoint, command: Command) -> None:
    tasks = [submit(served, n) for n in range(10, 13)]
    family = command.kill_one("raylet")
    assert command.ended(family) == 1
    assert "Ray has ended on this machine (raylet); what is stored is kept" in command.log()
    assert "Traceback" not in command.log()
    command.start()
    served.succeeded(*tasks)


def test_interrupted_it_finishes_what_runs_keeps_what_waits_and_its_audit_log_is_whole(
    served: Endpoint, command: Command
) -> None:
    tasks = [submit(served, n) for n in range(13, 17)]
    wait_until(lambda: Status.RUNNING in served.statuses(*tasks), "one of them to run")
    assert command.interrupt() == 0
    statuses = served.statuses(*tasks)
    assert Status.RUNNING not in statuses, "what ran was finished"
    assert Status.PENDING in statuses, "what waited was kept"
    for task in served.tasks(tasks):
        assert task.attempts == (task.status is Status.SUCCEEDED)
    report = audited(str(command.folder / command.out), command.database)
    assert report["whole"], report
    done = served.store.tasks.counts().by_status[Status.SUCCEEDED]
    assert report["records"] + report["waiting"] >= 3 * done, "accepted, begun, done"
    assert report["anchors"] >= 1


def test_a_variant_that_cannot_be_loaded_keeps_no_other_from_work_is_told_in_one_line_and_down_ends_all(
    alone: Command,
) -> None:
    text = catalog_text(small=["second"], second=[], third=[]).replace("embedded:tiny-random", "./gone", 1)
    (alone.folder / "catalog.toml").write_text(text)
    (alone.folder / "serve.toml").write_text(SETTINGS.replace('["small"]', '["small", "second", "third"]'))
    alone.start()
    with over(alone) as served:
        asked_for_it, asked_for_another = served.submit("a"), served.submit("b", model="second")
        assert [task.variant for task in served.succeeded(asked_for_it, asked_for_another)] == ["second", "second"]
    wait_until(lambda: "trouble:" in alone.log(), alone.log)
    (line,) = [line for line in alone.log().splitlines() if line.startswith("trouble:")]
    assert str(alone.folder / "gone") in line
    assert "Traceback" not in alone.log()
    assert "Traceback" not in alone.ask("status")
    assert alone.ask("down").strip() == "stopped", "and a pool that sleeps keeps it from nothing"
    assert alone.ended() == 0
    assert alone.log().rstrip().endswith("stopped")


def submit(served: Endpoint, n: int) -> str:
    return served.submit(f"task {n}", numInferenceSteps=STEPS + n)
