"""`rushes audit` on endpoints and runs: what it prints, the exit code, the files."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from rushes.cli import app
from rushes.exits import Exit
from schemas.audit import Action, AuditPrompts, AuditSettings
from schemas.request import Request
from serve.config import ServeConfig
from serve.dispatch.audit_chainer import AuditChainer
from serve.store.engine import open_store
from serve.tasks import StoredTask
from storage.store import open_store as open_objects
from tests.pipelines.test_audit import Run
from tests.serve.store.samples import NOW, ended, new_task, submitted
from tests.trust.authorities import identity

RUN = CliRunner()


class Endpoint:
    """The folder of one that does not run: four tasks of two keys, one of them done, anchored."""

    def __init__(self, folder: Path, prompts: AuditPrompts = AuditPrompts.KEEP) -> None:
        self.out = folder / "out"
        self.config = ServeConfig(out=str(self.out), audit=AuditSettings(prompts=prompts))
        self.url = self.config.database_url
        store = open_store(self.url, self.config.audit)
        self.tasks: list[StoredTask] = [*submitted(store, 2), *submitted(store, key_id="key-b")]
        ended(store, self.tasks[0])
        self.tasks += store.tasks.submit([new_task(request=Request(prompt="=a cat"), key_id="key-b")], NOW + 60).tasks
        AuditChainer(store, open_objects(self.config.out), self.config).run_once()
        store.close()

    def change(self, statement: str) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text(statement))
        engine.dispose()


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path)


def told(*command: str, code: int = Exit.OK) -> str:
    answer = RUN.invoke(app, ["audit", *command])
    assert answer.exit_code == code, answer.output
    return answer.stdout


def verified(*command: str, code: int = Exit.OK) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told("verify", *command, "--json", code=code))
    return found


def exported(*command: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told("export", *command).splitlines()]


class TestVerify:
    def test_a_whole_log_is_told_of_by_folder_by_url_and_by_options(self, endpoint: Endpoint) -> None:
        found = verified(str(endpoint.out))
        assert (found["whole"], found["records"], found["waiting"], found["faults"]) == (True, 6, 0, [])
        assert (found["anchors"], found["chains"][0]["anchored"]) == (1, 6)
        assert verified("--out", str(endpoint.out)) == found
        by_url = verified(endpoint.url)
        assert (by_url["records"], by_url["anchors"]) == (6, 0)
        assert "anchors were not looked at" in by_url["notes"][0]
        assert verified(endpoint.url, "--out", str(endpoint.out)) == found
        assert "whole: 6 records" in told("verify", str(endpoint.out))

    def test_a_broken_one_names_the_place_and_ends_with_1(self, endpoint: Endpoint) -> None:
        endpoint.change("UPDATE audit_log SET entry = replace(entry, 'key-a', 'key-c') WHERE position = 2")
        found = verified(str(endpoint.out), code=Exit.BROKE)
        assert (found["whole"], found["faults"][0]["fault"], found["faults"][0]["position"]) == (False, "altered", 2)
        assert "record 2: altered: its hash" in told("verify", str(endpoint.out), code=Exit.BROKE)

    def test_a_head_that_was_noted_finds_an_end_that_was_cut_off(self, endpoint: Endpoint) -> None:
        head = told("head", str(endpoint.out)).strip()
        assert json.loads(told("head", str(endpoint.out), "--json")) == [head]
        for path in endpoint.out.glob("audit/anchors/*"):
            path.unlink()
        endpoint.change("DELETE FROM audit_log WHERE position > 4")
        endpoint.change("UPDATE audit_head SET position = 4, hash = (SELECT hash FROM audit_log WHERE position = 4)")
        assert verified(str(endpoint.out))["whole"], "without its anchors nobody can know"
        found = verified(str(endpoint.out), "--head", head, code=Exit.BROKE)
        assert (found["faults"][0]["fault"], found["faults"][0]["position"]) == ("truncated", 5)

    def test_authorities_must_vouch_for_whoever_signed(self, endpoint: Endpoint, tmp_path: Path) -> None:
        (tmp_path / "root.pem").write_text(identity("Somebody").root)
        options = ("--trust-anchors", str(tmp_path / "root.pem"))
        found = verified(str(endpoint.out), *options, code=Exit.BROKE)
        assert found["faults"][0]["fault"] == "forged"
        assert "no authority that was given vouches for" in found["faults"][0]["said"]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--head", "nonsense"], "--head: no head of a log"),
            (["--trust-anchors", "/nowhere.pem"], "--trust-anchors: "),
            (["/nowhere"], "no audit log"),
            (["sqlite:////nowhere/tasks.sqlite"], "no such database"),
        ],
    )
    def test_what_cannot_be_meant_is_a_usage_error(self, options: list[str], said: str) -> None:
        answer = RUN.invoke(app, ["audit", "verify", *options])
        assert answer.exit_code == Exit.USAGE
        assert said in answer.stderr

    def test_a_run(self, tmp_path: Path) -> None:
        run = Run(tmp_path)
        run.begin()
        run.actor("a", "b")
        run.end()
        assert verified(run.options.out)["records"] == 6
        assert "in 2 chains" in told("verify", run.options.out)
        run.store.delete([run.segments(Action.CHAIN_OPENED)[0]])
        assert verified(run.options.out, code=Exit.BROKE)["faults"][0]["fault"] == "absent"


class TestShow:
    def test_a_task_from_its_request_to_its_clip(self, endpoint: Endpoint) -> None:
        shown = told("show", endpoint.tasks[0].id, str(endpoint.out))
        for part in ("task.created", "key:key-a", "a fox", "task.started", "task.succeeded", "s3://clips/a.mp4"):
            assert part in shown
        entries = [
            one["entry"]["action"]
            for one in json.loads(told("show", endpoint.tasks[0].id, str(endpoint.out), "--json"))
        ]
        assert entries == ["task.created", "task.started", "task.succeeded"]

    def test_one_that_nobody_asked_for(self, endpoint: Endpoint) -> None:
        told("show", "nobody", str(endpoint.out), code=Exit.USAGE)

    def test_redacted_prompts_are_shown_by_their_hash(self, tmp_path: Path) -> None:
        endpoint = Endpoint(tmp_path, AuditPrompts.REDACT)
        shown = told("show", endpoint.tasks[0].id, str(endpoint.out))
        assert "fox" not in shown
        assert "its words are not kept" in shown


class TestExport:
    def test_by_key_task_kind_time_and_prompt(self, endpoint: Endpoint) -> None:
        out = str(endpoint.out)
        assert [one["position"] for one in exported(out)] == [1, 2, 3, 4, 5, 6]
        assert [one["position"] for one in exported(out, "--key", "key-b")] == [3, 6]
        assert [one["position"] for one in exported(out, "--task", endpoint.tasks[0].id)] == [1, 4, 5]
        assert [one["position"] for one in exported(out, "--action", "task.started")] == [4]
        assert [one["position"] for one in exported(out, "--since", "2023-11-14T22:14:00+00:00")] == [6]
        assert [one["position"] for one in exported(out, "--before", "2023-11-14T22:13:21")] == [1, 2, 3]
        assert [one["position"] for one in exported(out, "--prompt", "a fox 🦊 in the snow")] == [1, 2, 3]
        assert exported(out, "--prompt", "a fox") == []

    def test_equal_prompts_are_found_where_only_their_hashes_are_kept(self, tmp_path: Path) -> None:
        endpoint = Endpoint(tmp_path, AuditPrompts.REDACT)
        assert len(exported(str(endpoint.out), "--prompt", "a fox 🦊 in the snow")) == 3

    def test_json_lines_are_verified_again_and_redacted_where_that_is_asked_for(
        self, endpoint: Endpoint, tmp_path: Path
    ) -> None:
        path = tmp_path / "log.jsonl"
        told("export", str(endpoint.out), "--to", str(path))
        assert verified(str(path))["whole"]
        assert "fox" in path.read_text()
        told("export", str(endpoint.out), "--to", str(path), "--redact", "--key", "key-b")
        assert verified(str(path))["whole"]
        assert "fox" not in path.read_text()
        assert "salt" not in path.read_text()
        path.write_text(path.read_text().replace("gen4_turbo", "gen4", 1))
        assert verified(str(path), code=Exit.BROKE)["faults"][0]["position"] == 3

    def test_tables(self, endpoint: Endpoint, tmp_path: Path) -> None:
        for name in ("log.csv", "log.parquet"):
            told("export", str(endpoint.out), "--to", str(tmp_path / name))
        rows = list(csv.DictReader(io.StringIO((tmp_path / "log.csv").read_text())))
        assert (len(rows), rows[0]["action"], rows[5]["prompt"]) == (6, "task.created", "'=a cat")
        table = pq.read_table(tmp_path / "log.parquet").to_pylist()
        assert [row["position"] for row in table] == [1, 2, 3, 4, 5, 6]
        assert (table[4]["clip_sha256"], table[0]["at"].isoformat()) == ("0" * 64, "2023-11-14T22:13:20+00:00")
        assert table[5]["prompt"] == "=a cat"

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--to", "log.xlsx"], "available: .jsonl, .csv, .parquet"),
            (["--action", "task.eaten"], "available: task.created"),
            (["--since", "yesterday"], "is no instant"),
        ],
    )
    def test_what_cannot_be_meant_names_the_choices(self, endpoint: Endpoint, options: list[str], said: str) -> None:
        answer = RUN.invoke(app, ["audit", "export", str(endpoint.out), *options])
        assert answer.exit_code == Exit.USAGE
        assert said in answer.stderr


class TestErase:
    def test_the_prompt_is_gone_and_the_log_is_whole(self, endpoint: Endpoint) -> None:
        out, task_id = str(endpoint.out), endpoint.tasks[0].id
        told("erase", task_id, out, "--yes")
        assert "erased, or left out" in told("show", task_id, out)
        assert verified(out)["whole"]
        assert exported(out)[-1]["entry"]["action"] == "prompt.erased"
        told("erase", task_id, out, "--yes", code=Exit.USAGE)

    def test_it_asks_first(self, endpoint: Endpoint) -> None:
        answer = RUN.invoke(app, ["audit", "erase", endpoint.tasks[0].id, str(endpoint.out)], input="n\n")
        assert answer.exit_code == Exit.OK
        assert len(exported(str(endpoint.out))) == 6
