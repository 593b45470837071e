"""Rows with several prompts: read from each kind of manifest, planned, written to parts and read back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.moderator import PromptModeration
from pipelines.contact_sheet import title
from pipelines.parts import row_table, task_array
from pipelines.plan import Planned, PlanRules, cut_batches, plan_rows
from pipelines.read import find_chunks, read_chunk
from pipelines.rows import Rows
from prompts.diagnosis import asked_of, diagnose_all
from prompts.templates import read_templates
from schemas.catalog import Catalog, parse_catalog
from schemas.chunks import Windows
from schemas.config import read_config
from schemas.moderation import ModerationSettings
from schemas.task import RenderBatch
from storage.batch_parts import BatchPart, BatchPartWriter
from tests.pipelines.catalogs import TWO_VARIANTS
from trust.moderation.words import word_list

LONG = TWO_VARIANTS.replace("[variants.swift]", "chunks = { frames = 17, max_s = 30 }\n\n[variants.swift]")
TURNS = [{"from_s": 0, "text": "a red ball"}, {"from_s": 1.5, "text": "a blue cat"}]


def catalog() -> Catalog:
    return parse_catalog(LONG, "long.toml")


def planned(chunk: Rows, **changes: Any) -> Planned:
    given = {"catalog": catalog(), "rank": lambda v, g: 0.0, "may_run": lambda v: True, "templates": read_templates()}
    return plan_rows(chunk, PlanRules(**{**given, **changes}))


def plan(folder: Path, *rows: dict[str, Any], **changes: Any) -> Planned:
    manifest = folder / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (chunk,) = find_chunks(str(manifest))
    return planned(read_chunk(chunk), **changes)


def test_a_row_of_several_prompts_is_a_task_of_several_calls_and_comes_back_from_its_part(tmp_path: Path) -> None:
    found = plan(tmp_path, {"prompts": TURNS, "variant": "small", "duration_s": 6, "seed": 3})
    assert not found.rejects
    (group,) = found.groups
    assert (group.frames, group.turns, group.chunks) == (48, (12,), Windows(frames=17, overlap=1))
    writer = BatchPartWriter()
    writer.add(group, task_array(found, np.array([0])), cut_batches(1, 1))
    (batch,) = BatchPart(writer.finish()).batches(0, 1)
    assert isinstance(batch, RenderBatch)
    (task,) = batch.tasks
    assert batch.group == group
    assert task.prompts == ("a red ball", "a blue cat")
    assert task.fingerprint == group.fingerprint("a red ball", "", 3, later=("a blue cat",))
    row = row_table(found, [(0.0, 0.0, 0.0)]).to_pylist()[0]
    assert (row["prompt"], json.loads(row["prompts"])) == ("a red ball", TURNS)
    assert title(row) == "a red ball, from 1.5 s: a blue cat"
    assert title({"prompt": "a red ball", "prompts": None}) == "a red ball"


def test_one_text_is_the_same_task_as_a_prompt_and_rows_may_differ(tmp_path: Path) -> None:
    found = plan(
        tmp_path,
        {"prompt": "a red ball", "variant": "small", "seed": 1},
        {"prompts": TURNS[:1], "variant": "small", "seed": 1},
        {"prompt": "a red", "prompts": [{"from_s": 0, "text": "ball"}], "variant": "small", "seed": 1},
        {"prompts": TURNS, "variant": "small", "seed": 1},
        {"prompts": [TURNS[0], {"from_s": 1.5, "text": "another"}], "variant": "small", "seed": 1},
        {"prompts": [TURNS[0], {"from_s": 1.0, "text": "a blue cat"}], "variant": "small", "seed": 1},
    )
    assert not found.rejects
    plain, *same, turned, text, instant = found.fingerprints
    assert same == [plain, plain]
    assert len({plain, turned, text, instant}) == 4
    assert found.group_of[3] == found.group_of[4] != found.group_of[5], "texts are content, instants are settings"


def test_rows_without_a_seed_get_one_by_all_that_they_say(tmp_path: Path) -> None:
    other = [TURNS[0], {"from_s": 1.5, "text": "another"}]
    found = plan(tmp_path, *({"id": "a", "prompts": said, "variant": "small"} for said in (TURNS, other)))
    assert found.seeds[0] != found.seeds[1]


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('prompts,variant,seed\n"' + json.dumps(TURNS).replace('"', '""') + '",small,3\n')
    pq.write_table(pa.Table.from_pylist([{"prompts": TURNS, "variant": "small", "seed": 3}]), tmp_path / "m.parquet")
    (tmp_path / "c.jsonl").write_text(
        json.dumps({"prompts": [{"fromSeconds": t["from_s"], "text": t["text"]} for t in TURNS], "variant": "small",
                    "seed": 3})
    )  # fmt: skip
    found = []
    for name in ("m.csv", "m.parquet", "c.jsonl"):
        (chunk,) = find_chunks(str(tmp_path / name))
        found.append(planned(read_chunk(chunk)))
    assert [one.rejects for one in found] == [[], [], []]
    assert len({one.fingerprints[0] for one in found}) == 1


def test_each_prompt_may_be_made_by_a_template(tmp_path: Path) -> None:
    slots = {"subject": "a red circle", "direction": "left"}
    prompts = [{"from_s": 0, "template": "motion", "slots": slots}, TURNS[1]]
    found = plan(tmp_path, {"prompts": prompts, "variant": "small"})
    assert found.told[0].texts == ("a red circle moving left", "a blue cat")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompts": "{"}, "prompts: not JSON"),
        ({"prompts": 7}, "prompts: must be a list of prompts with from_s and text (got 7)"),
        ({"prompts": [{"from_s": 0, "txt": "a"}]}, "prompts.0.text: is missing"),
        ({"prompts": [{"from_s": 3, "text": "a"}]}, "prompts.0.from_s: the first begins with the clip"),
        ({"prompts": [TURNS[0], {"from_s": 99, "text": "a"}]}, "prompts.1.from_s: 99 s is after the end"),
        ({"prompts": TURNS, "variant": "swift"}, "prompts: swift follows one prompt a clip; small does; available: sm"),
        ({"prompts": [TURNS[0], {"from_s": 1, "template": "no"}]}, "prompts.1.template: unknown template 'no'"),
        ({"prompts": [TURNS[0], {"from_s": 1, "slots": {}}]}, "prompts.1.template: slots are of a template"),
        ({"prompts": [{**TURNS[0], "template": "motion"}]}, "prompts.0.text: give text or template, not both"),
        ({"prompt": 7, "prompts": TURNS}, "prompt: must be a text (got 7)"),
        ({"prompt": "x", "variant": "swift", "num_frames": 40}, "num_frames: 40 must be 4k+1, from 5 to 17 on swift"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_rejected_with_the_place_and_the_choices(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    found = plan(tmp_path, {"variant": "small", **row}, {"prompt": "x", "variant": "small"})
    assert [reject.position for reject in found.rejects] == [0]
    assert any(str(issue).startswith(told) for issue in found.rejects[0].issues), found.rejects[0].issues


def test_moderation_and_diagnosis_look_at_each_prompt(tmp_path: Path) -> None:
    words = PromptModeration(ModerationSettings(), read_config(), word_list({"violence": ["behead"]}))
    bad = [TURNS[0], {"from_s": 1, "text": "behead him"}]
    found = plan(tmp_path, {"prompts": bad, "variant": "small"}, {"prompts": TURNS, "variant": "small"}, moderate=words)
    (reject,) = found.rejects
    assert (reject.position, reject.issues[0].path, reject.issues[0].code) == (0, "prompts", "SAFETY.INPUT.TEXT")
    small = catalog()["small"]
    told = diagnose_all(("a ball", "a cat without a tail"), "", asked_of(found.groups[0], small), small)
    assert [(one.field, one.code) for one in told if one.code == "negation"] == [("prompts.1.text", "negation")]
