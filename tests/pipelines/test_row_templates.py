"""Rows that name a template, from the manifest to the plan; and what is told of prompts before a run."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.prompt_check import check_prompts
from prompts.templates import read_templates
from rushes.cli import app
from tests.pipelines.test_plan import plan

RUN = CliRunner()
SLOTS = {"subject": "a red circle", "direction": "left"}


def test_a_template_makes_the_row_s_prompt_and_is_kept_beside_it(tmp_path: Path) -> None:
    rows = [
        {"template": "motion", "slots": SLOTS},
        {"template": "motion", "slots": json.dumps(SLOTS), "metadata": {"shelf": 3}},
        {"prompt": "a red circle moving left"},
    ]
    planned = plan(tmp_path, *rows, templates=read_templates())
    assert planned.rejects == []
    assert planned.column("prompt") == ["a red circle moving left"] * 3
    assert len(set(planned.fingerprints)) == 1, "the prompt that was made is what is rendered"
    assert json.loads(planned.metadata[1] or "") == {"template": "motion", "slots": SLOTS, "shelf": 3}


def test_a_row_s_own_negative_prompt_wins(tmp_path: Path) -> None:
    slots = {"subject": "a cup"}
    rows = [{"template": "product", "slots": slots}, {"template": "product", "slots": slots, "negative_prompt": "dust"}]
    planned = plan(tmp_path, *rows, templates=read_templates())
    assert planned.column("negative_prompt") == ["text, logo, watermark, people, clutter", "dust"]


def test_a_column_of_that_name_beside_a_prompt_is_kept_as_metadata(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a red circle", "template": "any words"},
        {"prompt": "a red circle", "template": {"of": "theirs"}},
    ]
    planned = plan(tmp_path, *rows, templates=read_templates())
    assert planned.rejects == []
    assert [json.loads(one or "") for one in planned.metadata] == [{"template": row["template"]} for row in rows]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"template": "nothing"}, "template: unknown template 'nothing'"),
        ({"template": "motion", "slots": {}}, "slots.subject: is missing"),
        ({"template": "motion", "slots": "{"}, "slots: not JSON"),
        ({"template": "motion", "slots": [1]}, "slots: must be an object"),
        ({"template": "motion", "slots": SLOTS, "prompt": "x"}, "prompt: give prompt or template with slots, not both"),
        ({"prompt": "x", "slots": SLOTS}, "slots: are of a template, and none is named"),
        ({"template": ["motion"], "slots": SLOTS}, "template: unknown template"),
    ],
)
def test_a_row_with_a_wrong_template_is_rejected_and_no_other(tmp_path: Path, row: object, said: str) -> None:
    planned = plan(tmp_path, row, {"template": "motion", "slots": SLOTS}, templates=read_templates())
    (reject,) = planned.rejects
    assert said in reject.said("m.jsonl")
    assert planned.group_of[1] == 0


def test_a_csv_has_slots_as_json(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('template,slots\nmotion,"{""subject"": ""a red circle""}"\n')
    told = RUN.invoke(app, ["estimate", str(tmp_path / "m.csv"), "--json"])
    assert (told.exit_code, json.loads(told.stdout)["to_render"]) == (0, 1)


def test_an_estimate_tells_of_prompts_once_a_kind_with_the_first(tmp_path: Path) -> None:
    rows = ["a red circel", "a blue sqare", "a red circle without a square"]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"prompt": p, "variant": "shapes"}) + "\n" for p in rows))
    told = " ".join(RUN.invoke(app, ["estimate", str(tmp_path / "m.jsonl")]).stdout.split())
    assert "2 prompts for 'shapes' with words that it does not know; the first, " in told
    assert "m.jsonl:1: prompt: 'shapes' does not know 'circel'; did you mean 'circle'?" in told
    assert "1 prompt for 'shapes' saying what is not to be seen" in told


def test_diagnose_tells_of_every_row_and_strict_says_so_to_scripts(tmp_path: Path) -> None:
    rows = [{"prompt": "a red circle"}, {"prompt": "a red circel", "id": "b"}, {"prompt": "x", "width": 7, "height": 7}]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps({"variant": "shapes", **row}) + "\n" for row in rows))
    checked = list(check_prompts(str(manifest)))
    assert [[one.code for one in row.findings] for row in checked][:2] == [[], ["unknown_words"]]
    told = RUN.invoke(app, ["diagnose", str(manifest), "--limit", "2"])
    assert told.exit_code == 0
    assert "m.jsonl:2: prompt: 'shapes' does not know 'circel'" in told.stdout
    assert RUN.invoke(app, ["diagnose", str(manifest), "--limit", "2", "--strict"]).exit_code == 3
    (line,) = RUN.invoke(app, ["diagnose", str(manifest), "--limit", "2", "--json"]).stdout.splitlines()
    assert {"line": 2, "id": "b", "code": "unknown_words"}.items() <= json.loads(line).items()


def test_templates_are_listed_shown_and_filled(tmp_path: Path) -> None:
    assert "cinematic" in RUN.invoke(app, ["templates"]).stdout
    assert "a ceramic teapot" in RUN.invoke(app, ["templates", "product"]).stdout
    told = RUN.invoke(app, ["templates", "motion", "subject=a red circle", "direction=left"])
    assert "prompt: a red circle moving left" in told.stdout
    wrong = RUN.invoke(app, ["templates", "motion", "subject=a", "direction=in"])
    assert wrong.exit_code == 2
    assert "available: left, right, up, down" in " ".join(wrong.stderr.split())
    (tmp_path / "t.toml").write_text('[mine]\nprompt = "a {what}"\nslots.what = {}\n')
    mine = RUN.invoke(app, ["templates", "mine", "what=cup", "--templates", str(tmp_path / "t.toml"), "--json"])
    assert json.loads(mine.stdout) == {"prompt": "a cup", "negative_prompt": ""}
