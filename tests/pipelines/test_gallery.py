"""The rows of `make gallery` can be rendered by what ships: none is refused, and each brings the media it needs."""

import json
from pathlib import Path

from examples.gallery import rows
from pipelines.plan import PlanRules, plan_rows
from pipelines.read import find_chunks, read_chunk
from prompts.templates import read_templates
from schemas.catalog import shipped_catalog


def test_every_row_of_the_gallery_is_a_task_of_what_ships(tmp_path: Path) -> None:
    told = rows(tmp_path)
    (tmp_path / "gallery.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    rules = PlanRules(shipped_catalog(), lambda v, g: 0.0, lambda v: True, templates=read_templates())
    (chunk,) = find_chunks(str(tmp_path / "gallery.jsonl"))
    planned = plan_rows(read_chunk(chunk), rules)
    assert planned.rejects == []
    assert len({row["id"] for row in told}) == len(told)
    roles = {condition.role for group in planned.groups for condition in group.conditions}
    assert {str(role) for role in roles} >= {"first_frame", "last_frame", "source", "mask", "structure", "style"}
