"""Motion in manifests: JSON, a cell of a CSV, and structs of a Parquet mean the same task."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.parts import row_table
from pipelines.plan import Planned, PlanRules, plan_rows
from pipelines.read import find_chunks, read_chunk
from tests.pipelines.catalogs import directed

CATALOG = directed()
CAMERA = [{"at_s": 0.5}, {"at_s": 1.5, "pan": 10, "ease": "in-out"}]
PATHS = [{"label": "fox", "box": [0, 0, 0.5, 0.5], "keys": [{"at_s": 1, "x": 0.75, "y": 0.75}]}]


def planned(path: Path) -> Planned:
    (chunk,) = find_chunks(str(path))
    return plan_rows(read_chunk(chunk), PlanRules(CATALOG, lambda variant, group: 0.0, lambda variant: True))


def rows(folder: Path, *given: dict[str, Any]) -> Planned:
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps({"prompt": "x", "variant": "vace"} | row) + "\n" for row in given))
    return planned(path)


def test_every_way_to_write_paths_is_the_same_task(tmp_path: Path) -> None:
    as_json = rows(tmp_path, {"id": "a", "paths": PATHS})
    assert not as_json.rejects
    renamed = [{"Label": "fox", "box": [0, 0, 0.5, 0.5], "keys": [{"atSeconds": 1, "x": 0.75, "y": 0.75}]}]
    found = {as_json.fingerprints[0], rows(tmp_path, {"id": "a", "Paths": json.dumps(renamed)}).fingerprints[0]}
    (tmp_path / "m.csv").write_text(
        f"id,prompt,variant,paths\na,x,vace,'{json.dumps(PATHS)}'\n".replace('"', '""').replace("'", '"')
    )
    found.add(planned(tmp_path / "m.csv").fingerprints[0])
    columns = {"id": ["a", "b"], "prompt": ["x", "x"], "variant": ["vace", "vace"], "paths": [PATHS, None]}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    as_table = planned(tmp_path / "m.parquet")
    assert {*found, as_table.fingerprints[0]} == {as_json.fingerprints[0]}
    assert not as_table.rejects
    assert as_table.groups[as_table.group_of[1]].paths == ()


def test_rows_with_the_same_motion_share_a_group_and_others_do_not(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not looked at")
    pan, tilt = ({"image": "a.png", "camera": [{"at_s": 1, name: 10}]} for name in ("pan", "tilt"))
    found = rows(tmp_path, pan, tilt, pan)
    assert not found.rejects
    assert [found.groups[g].camera[-1].pan for g in found.group_of] == [10, 0, 10]
    assert found.group_of[0] == found.group_of[2] != found.group_of[1]


def test_results_tell_the_motion_with_absolute_keys(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not looked at")
    camera = [{"at_s": 0.5, "pan": 10}, {"at_s": 1.5, "pan": 10, "relative": True}]
    found = rows(tmp_path, {"image": "a.png", "camera": camera}, {"paths": PATHS}, {})
    assert not found.rejects
    moved, pathed, plain = row_table(found, [(0.0, 0.0, 0.0)] * len(found.groups)).sort_by("row").to_pylist()
    told = json.loads(moved["motion"])
    assert set(told) == {"camera"}
    assert [(key["at_s"], key["pan"]) for key in told["camera"]][-2:] == [(0.5, 10), (1.5, 20)]
    (path,) = json.loads(pathed["motion"])["paths"]
    assert (path["label"], path["keys"][-1]["x"]) == ("fox", 0.75)
    assert plain["motion"] is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"camera": "[{"}, "camera: not JSON"),
        ({"camera": [{"at_s": 1, "yaw": 3}]}, "camera.0.yaw: no field is called 'yaw'; available: at_s, relative"),
        ({"camera": CAMERA}, "camera: moves over a first_frame or source, and there is none; available: first_frame"),
        ({"camera": CAMERA, "variant": "swift"}, "camera: swift follows no camera; vace does; available: vace"),
        ({"edit": {"speed": 99}}, "edit.speed: Input should be less than or equal to 20 (got 99)"),
        ({"edit": {"reverse": True}}, "edit: says how a source is changed, and there is no source; available: source"),
    ],
)
def test_a_wrong_motion_names_place_value_and_choices(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    (reject,) = rows(tmp_path, row, {}).rejects
    assert reject.line == 1
    assert any(str(issue).startswith(said) for issue in reject.issues), reject.issues
