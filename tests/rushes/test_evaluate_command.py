"""`rushes evaluate` from the command line: the table, the JSON, the exit code."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rushes.cli import app
from rushes.exits import Exit
from storage import keys
from tests.pipelines.drawn_run import two_tongues, write_run

RUN = CliRunner()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(str(folder), two_tongues(worse=1.0, clips=10))
    return folder


def test_the_table_goes_to_stdout_in_eighty_columns(out: Path) -> None:
    answer = RUN.invoke(app, ["evaluate", str(out), "--by", "language", "--paired-by", "template"])
    assert answer.exit_code == Exit.OK, answer.output
    assert max(map(len, answer.stdout.splitlines())) <= 80
    assert "! language = fr: colour_obeyed is 0.0 %" in answer.stdout
    assert "\x1b" not in answer.stdout


def test_json_is_all_that_is_printed(out: Path) -> None:
    words = ["--by", "language", "--by", "template", "--metric", "colour_obeyed", "--metric", "rows", "--json"]
    answer = RUN.invoke(app, ["evaluate", str(out), *words])
    assert answer.exit_code == Exit.OK, answer.output
    told = json.loads(answer.stdout)
    assert {one["column"] for one in told["comparisons"]} == {"language", "template"}
    assert told["warnings"]


def test_a_clip_that_cannot_be_read_has_an_exit_code(tmp_path: Path) -> None:
    rows = two_tongues(clips=1)
    store = write_run(str(tmp_path), rows)
    store.delete([keys.clip("shapes", rows[0].fingerprint)])
    answer = RUN.invoke(app, ["evaluate", str(tmp_path), "--by", "language"])
    assert answer.exit_code == Exit.INCOMPLETE
    assert "recorded, and not there" in answer.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--by", "tongue"], "available: language, template"),
        (["--by", "language", "--sheets"], "say --out"),
        (["--by", "language", "--scorer", "gone"], "rushes.scorers"),
        (["--by", "language", "--clip-model", "./gone"], "no such folder"),
    ],
)
def test_what_cannot_be_is_told_of(out: Path, words: list[str], told: str) -> None:
    answer = RUN.invoke(app, ["evaluate", str(out), *words])
    assert answer.exit_code in (Exit.USAGE, Exit.BROKE)
    assert told.lower() in answer.stderr.lower().replace("\n", " ")
