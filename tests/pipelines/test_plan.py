"""Planning rows: every reject reason, the seeds, the groups, the batches."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.moderator import PromptModeration
from pipelines.parts import row_table
from pipelines.plan import Planned, PlanRules, cut_batches, plan_rows
from pipelines.read import find_chunks, read_chunk
from pipelines.row_media import RowMedia
from schemas.catalog import Variant
from schemas.clip import ClipFormat
from schemas.config import read_config
from schemas.moderation import ModerationSettings
from schemas.task import Group
from tests.pipelines.catalogs import directed, two_variants
from trust.moderation.words import word_list


def by_price(variant: Variant, _group: Group) -> float:
    return variant.price_usd_per_gpu_hour


def rules(**changes: Any) -> PlanRules:
    return PlanRules(**{"catalog": two_variants(), "rank": by_price, "may_run": lambda v: True, **changes})


def plan(tmp_path: Path, *rows: Any, **changes: Any) -> Planned:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    (chunk,) = find_chunks(str(manifest))
    return plan_rows(read_chunk(chunk), rules(**changes))


def test_a_prompt_alone_is_enough_and_auto_takes_the_cheapest_variant(tmp_path: Path) -> None:
    planned = plan(tmp_path, {"prompt": "a red circle"})
    assert not planned.rejects
    (group,) = planned.groups
    assert (group.variant, str(group.shape), group.steps) == ("swift", "64x64x17", 1)


def test_auto_takes_another_variant_when_the_cheapest_cannot_render_the_shape(tmp_path: Path) -> None:
    planned = plan(tmp_path, {"prompt": "a red circle", "width": 96, "height": 64})
    assert planned.groups[0].variant == "small"


def test_auto_passes_over_a_variant_that_cannot_run_here(tmp_path: Path) -> None:
    planned = plan(tmp_path, {"prompt": "a red circle"}, may_run=lambda v: v.name != "swift")
    assert planned.groups[0].variant == "small"


def test_a_prompt_that_moderation_refuses_rejects_its_row_and_no_other(tmp_path: Path) -> None:
    words = PromptModeration(ModerationSettings(), read_config(), word_list({"violence": ["behead"]}))
    rows = [{"prompt": "a circle"}, {"prompt": "behead him"}, {"prompt": 7}, "broken", {"prompt": "x", "variant": "y"}]
    planned = plan(tmp_path, *rows, moderate=words)
    assert [reject.position for reject in planned.rejects] == [1, 2, 3, 4]
    (issue,) = planned.rejects[0].issues
    assert (issue.path, issue.code) == ("prompt", "SAFETY.INPUT.TEXT")
    assert issue.message == "refused by moderation: INPUT.TEXT: violence 1.00 by words (refuse)"
    table = row_table(planned, [(0.0, 0.0, 0.0)] * len(planned.groups)).sort_by("row")
    assert table.column("reject_code").to_pylist() == [None, "SAFETY.INPUT.TEXT", None, None, None]
    assert [text is not None for text in table.column("text_moderation").to_pylist()] == [False, True] + [False] * 3


def test_a_negative_prompt_that_moderation_refuses_rejects_its_row_under_its_own_name(tmp_path: Path) -> None:
    words = PromptModeration(ModerationSettings(), read_config(), word_list({"violence": ["behead"]}))
    rows = [{"prompt": "a circle", "negative_prompt": said} for said in ("blurry", "behead him", None, 7)]
    planned = plan(tmp_path, *rows, moderate=words)
    assert [reject.position for reject in planned.rejects] == [1, 3]
    (issue,) = planned.rejects[0].issues
    assert (issue.path, issue.code) == ("negative_prompt", "SAFETY.INPUT.TEXT")
    table = row_table(planned, [(0.0, 0.0, 0.0)] * len(planned.groups)).sort_by("row")
    assert table.column("reject_code").to_pylist() == [None, "SAFETY.INPUT.TEXT", None, None]


REJECTS: list[tuple[Any, str, str]] = [
    ('{"prompt": "never closed', "", "at column"),
    ('["a", "list"]', "", "must be a JSON object"),
    ({"id": "x"}, "prompt", "needs a prompt"),
    ({"prompt": "   "}, "prompt", "needs a prompt"),
    ({"prompt": 7}, "prompt", "must be a text"),
    ({"prompt": "x" * 4001}, "prompt", "4001 characters, at most 4000"),
    ({"prompt": "x", "negative_prompt": ["y"]}, "negative_prompt", "must be a text"),
    ({"prompt": "x", "variant": "wan-9"}, "variant", "unknown variant 'wan-9'; available: "),
    ({"prompt": "x", "variant": "small", "width": 70, "height": 64}, "width", "available: 64, 80"),
    ({"prompt": "x", "variant": "small", "num_frames": 16}, "num_frames", "available: 13, 17"),
    ({"prompt": "x", "variant": "small", "width": 1024, "height": 1024}, "width", "more than 16384 pixels"),
    ({"prompt": "x", "width": 64}, "", "width and height go together"),
    ({"prompt": "x", "width": 64, "height": 64, "ratio": "1:1"}, "", "not both"),
    ({"prompt": "x", "num_frames": 17, "duration_s": 2}, "", "not both"),
    ({"prompt": "x", "ratio": "wide"}, "ratio", "is no ratio"),
    ({"prompt": "x", "mode": "text_to_music"}, "mode", "available: text_to_video, image_to_video, video_to_video"),
    ({"prompt": "x", "mode": "image_to_video"}, "image", "needs an image"),
    ({"prompt": "x", "mode": "text_to_video", "image": "a.png"}, "image", "takes no image"),
    ({"prompt": "x", "video": "a.mp4", "variant": "small"}, "mode", "does not serve video_to_video"),
    ({"prompt": "x", "video": "a.mp4"}, "variant", "no variant fits"),
    ({"prompt": "x", "image": "ftp://host/a.png"}, "image", "is no media address; available: https://…, s3://…"),
    ({"prompt": "x", "image": "none.png"}, "image", "none.png: not there"),
    ({"prompt": "x", "image": "."}, "image", "not a file"),
    ({"prompt": "x", "image": "https://[bad"}, "image", "is no URL"),
    ({"prompt": "x", "image": "https://host:99999/a.png"}, "image", "is no URL"),
    ({"prompt": "x", "image": "https:///a.png"}, "image", "is no URL"),
    ({"prompt": "x", "image": "data:image/png;base64,@@"}, "image", "not base64"),
    ({"prompt": "x", "image": {"bytes": 7}}, "image", "is no media address"),
    ({"prompt": "x", "image": [{"uri": "a.png", "position": "last"}]}, "image", "is no media address"),
    ({"prompt": "lost: \ufffd"}, "prompt", "holds U+FFFD"),
    ({"prompt": "x", "prompt_text": "y"}, "prompt", "given twice, as 'prompt' and as 'prompt_text'"),
    ('{"prompt": "x", "metadata": {"a": "\\ud800"}}', "", "hex escape"),
    ('{"prompt": "x", "seed": ' + "7" * 5000 + "}", "", "number out of range"),
    ({"prompt": "x", "seed": "7" * 5000}, "seed", "whole number from 0"),
    ({"prompt": "x", "seed": float("inf")}, "seed", "whole number from 0"),
    ({"prompt": "x", "fps": 0.001}, "fps", "must be from 0.1 to 240 (got 0.001)"),
    ({"prompt": "x", "seed": -1}, "seed", "whole number from 0"),
    ({"prompt": "x", "seed": 1.5}, "seed", "whole number from 0"),
    ({"prompt": "x", "seed": True}, "seed", "whole number from 0"),
    ({"prompt": "x", "seed": 2**32}, "seed", "whole number from 0"),
    ({"prompt": "x", "priority": 1000}, "priority", "whole number from -100"),
    ({"prompt": "x", "num_inference_steps": 0}, "num_inference_steps", "must be from 1 to 1,000 (got 0)"),
    ({"prompt": "x", "guidance_scale": -1}, "guidance_scale", "must be from 0 to 100 (got -1)"),
    ({"prompt": "x", "scheduler": "fast", "variant": "small"}, "scheduler", "is no diffusers scheduler class"),
    ({"prompt": "x", "strength": 0.5, "variant": "small"}, "strength", "takes no strength"),
    ({"prompt": "x", "width": [64], "height": 64}, "width", "is no scalar"),
    ({"prompt": "x", "fps": "fast"}, "fps", "valid number"),
    ({"prompt": "x", "id": ""}, "id", "1 to 512 characters"),
]


@pytest.mark.parametrize(("row", "path", "said"), REJECTS, ids=[said for _, _, said in REJECTS])
def test_a_row_that_cannot_be_rendered_is_rejected_with_place_and_reason(
    tmp_path: Path, row: Any, path: str, said: str
) -> None:
    planned = plan(tmp_path, {"prompt": "fine"}, row, {"prompt": "fine too"})
    (reject,) = planned.rejects
    assert reject.line == 2
    assert path in [issue.path for issue in reject.issues]
    assert said in reject.said("m.jsonl")
    assert reject.said("m.jsonl").startswith("m.jsonl:2: ")
    assert [g >= 0 for g in planned.group_of] == [True, False, True]


def test_snap_takes_the_nearest_shape_instead_of_rejecting(tmp_path: Path) -> None:
    row = {"prompt": "x", "variant": "small", "width": 70, "height": 64, "num_frames": 16}
    planned = plan(tmp_path, row, snap=True)
    assert not planned.rejects
    assert str(planned.groups[0].shape) == "64x64x17"


def test_unknown_columns_are_kept_as_metadata(tmp_path: Path) -> None:
    planned = plan(tmp_path, {"prompt": "x", "campaign": "june", "metadata": {"shot": 3}}, {"prompt": "y"})
    assert planned.column("metadata") == [{"campaign": "june", "shot": 3}, None]


def test_a_missing_seed_comes_from_the_row_and_is_the_same_again(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "x"}, {"prompt": "x"}, {"prompt": "x"}]
    first, second = plan(tmp_path, *rows), plan(tmp_path, *rows)
    assert first.seeds == second.seeds
    assert len(set(first.seeds)) == 3, "rows with ids of their own differ, equal rows do not"
    assert first.fingerprints[2] == first.fingerprints[3]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "y"},
        {"negative_prompt": "z"},
        {"seed": 2},
        {"width": 96, "height": 64},
        {"num_frames": 13},
        {"num_inference_steps": 3},
        {"guidance_scale": 4.0},
        {"fps": 12},
        {"scheduler": "UniPCMultistepScheduler"},
        {"image": "data:,a picture"},
    ],
)
def test_every_input_of_a_task_is_in_its_fingerprint(tmp_path: Path, change: dict[str, Any]) -> None:
    base = {"prompt": "x", "variant": "small", "seed": 1}
    planned = plan(tmp_path, base, {**base, **change}, base)
    one, other, again = planned.fingerprints
    assert one == again
    assert one != other


def test_an_alias_and_its_variant_are_the_same_task(tmp_path: Path) -> None:
    planned = plan(tmp_path, {"prompt": "x", "variant": "small"}, {"prompt": "x", "variant": "petit"})
    assert len(set(planned.fingerprints)) == 1


def test_a_relative_image_is_taken_from_the_manifests_folder(tmp_path: Path) -> None:
    (tmp_path / "stills").mkdir()
    (tmp_path / "stills" / "a.png").write_bytes(b"a picture")
    planned = plan(tmp_path, {"prompt": "x", "variant": "small", "image": "stills/a.png"})
    assert planned.media == [(str(tmp_path / "stills/a.png"),)]


def test_media_are_told_apart_by_their_content(tmp_path: Path) -> None:
    row = {"prompt": "x", "variant": "small"}
    for name, content in (("a.png", b"one"), ("same.png", b"one"), ("other.png", b"two")):
        (tmp_path / name).write_bytes(content)
    planned = plan(tmp_path, *({**row, "image": name} for name in ("a.png", "same.png", "other.png")))
    assert planned.fingerprints[0] == planned.fingerprints[1] != planned.fingerprints[2]
    (tmp_path / "a.png").write_bytes(b"replaced in place")
    again = plan(tmp_path, {**row, "image": "a.png"})
    assert again.fingerprints[0] != planned.fingerprints[0]


def test_a_url_is_percent_encoded_where_it_can_be(tmp_path: Path) -> None:
    row = {"prompt": "x", "variant": "small"}
    planned = plan(tmp_path, {**row, "image": "https://127.0.0.1:1/a b.png"}, {**row, "image": "https://käse.de/é"})
    assert planned.media == [("https://127.0.0.1:1/a%20b.png",), ("https://xn--kse-qla.de/%C3%A9",)]


def test_images_are_taken_as_data_sets_and_the_api_give_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a picture")
    row = {"prompt": "x", "variant": "small"}
    forms = ["a.png", {"bytes": None, "path": "a.png"}, [{"uri": "a.png", "position": "first"}], {"uri": "a.png"}]
    planned = plan(tmp_path, *({**row, "image": form} for form in forms), {**row, "image": {"bytes": None}})
    assert not planned.rejects
    assert planned.media == [(str(tmp_path / "a.png"),)] * 4 + [()]
    assert len(set(planned.fingerprints[:4])) == 1


def directed_plan(tmp_path: Path, *rows: Any) -> Planned:
    for name in ("a.png", "b.png", "v.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    return plan(tmp_path, *rows, catalog=directed())


def test_a_row_may_bring_several_inputs_each_with_its_role(tmp_path: Path) -> None:
    inputs = [
        {"role": "source", "video": "v.mp4"},
        {"role": "mask", "image": "a.png"},
        {"role": "keyframe", "image": "b.png", "at_s": 1},
    ]
    planned = directed_plan(tmp_path, {"prompt": "x", "variant": "vace", "inputs": inputs})
    assert not planned.rejects
    (group,) = planned.groups
    assert [(one.role.value, one.frame) for one in group.conditions] == [
        ("source", None), ("mask", None), ("keyframe", 8),
    ]  # fmt: skip
    assert planned.media == [tuple(str(tmp_path / name) for name in ("v.mp4", "a.png", "b.png"))]


def test_short_forms_and_inputs_are_the_same_task(tmp_path: Path) -> None:
    row = {"prompt": "x", "variant": "vace"}
    forms = [{"image": "a.png"}, {"inputs": {"role": "first_frame", "image": "a.png"}}]
    planned = directed_plan(tmp_path, *({**row, **form} for form in forms))
    assert not planned.rejects
    assert len(set(planned.fingerprints)) == 1


def test_rows_with_other_pictures_share_a_group_and_rows_with_another_place_do_not(tmp_path: Path) -> None:
    def row(image: str, at_frame: int) -> dict[str, Any]:
        return {"prompt": "x", "variant": "vace", "inputs": [{"role": "keyframe", "image": image, "atFrame": at_frame}]}

    planned = directed_plan(tmp_path, row("a.png", 4), row("b.png", 4), row("a.png", 8))
    assert planned.group_of == [0, 0, 1]
    assert len(set(planned.fingerprints)) == 3


def test_inputs_come_in_every_kind_of_manifest(tmp_path: Path) -> None:
    inputs = [
        {"role": "structure", "kind": "edges", "video": "v.mp4", "image": None, "strength": 0.5},
        {"role": "reference", "kind": None, "video": None, "image": "a.png", "strength": None},
    ]
    row = {"prompt": "x", "variant": "vace"}
    first = directed_plan(tmp_path, {**row, "inputs": inputs})
    assert not first.rejects
    cell = json.dumps(inputs).replace('"', '""')
    (tmp_path / "m.csv").write_text(f'prompt,variant,inputs\nx,vace,"{cell}"\ny,vace,\n')
    pq.write_table(pa.Table.from_pylist([{**row, "inputs": inputs}, {**row, "inputs": None}]), tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        (chunk,) = find_chunks(str(tmp_path / name))
        planned = plan_rows(read_chunk(chunk), rules(catalog=directed()))
        assert not planned.rejects
        assert planned.fingerprints[0] == first.fingerprints[0]
        assert [len(group.conditions) for group in planned.groups] == [2, 0]


INPUT_REJECTS: list[tuple[Any, str, str]] = [
    ("[{", "inputs", "not JSON"),
    (7, "inputs", "must be a list of inputs"),
    (["a.png"], "inputs.0", "must be an object"),
    ([{"role": "hero", "image": "a.png"}], "inputs.0.role", "unknown role 'hero'; available: first_frame, last_frame"),
    ([{"role": "style", "image": "a.png"}], "inputs.0.role", "vace takes no style"),
    ([{"role": "reference", "image": "none.png"}], "inputs.0.image", "none.png: not there"),
    ([{"role": "keyframe", "image": "a.png", "at_s": 9}], "inputs.0.at_s", "the clip's last is 2.000 s"),
]


@pytest.mark.parametrize(("inputs", "path", "message"), INPUT_REJECTS)
def test_a_row_with_a_wrong_input_is_rejected_at_its_place(
    tmp_path: Path, inputs: Any, path: str, message: str
) -> None:
    planned = directed_plan(tmp_path, {"prompt": "x", "variant": "vace", "inputs": inputs}, {"prompt": "y"})
    (reject,) = planned.rejects
    assert reject.issues[0].path == path
    assert message in reject.said("m")


def test_media_may_be_limited_to_kinds_of_address(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a picture")
    limited = RowMedia(read_config({"RUSHES_MEDIA_SCHEMES": "data,s3"}))
    row = {"prompt": "x", "variant": "small"}
    planned = plan(tmp_path, {**row, "image": "a.png"}, {**row, "image": "data:,x"}, media=limited)
    (reject,) = planned.rejects
    assert "may only be given as data, s3" in reject.said("m")


def test_the_api_s_names_are_fields_in_whatever_letters(tmp_path: Path) -> None:
    api = {"promptText": "x", "negativePrompt": "y", "model": "small", "duration": 2.0, "numInferenceSteps": 2}
    spoken = {"Prompt": "x", "NEGATIVE PROMPT": "y", "Variant": "small", "duration-s": 2.0, "num_inference_steps": 2}
    planned = plan(tmp_path, api, spoken)
    assert not planned.rejects
    assert planned.fingerprints[0] == planned.fingerprints[1]


def test_a_gif_takes_no_more_frames_a_second_than_it_can_show(tmp_path: Path) -> None:
    planned = plan(tmp_path, {"prompt": "x", "variant": "small", "fps": 60}, clip_format=ClipFormat.GIF)
    assert "at most 50" in planned.rejects[0].said("m")


def test_metadata_that_is_no_json_becomes_json(tmp_path: Path) -> None:
    planned = plan(tmp_path, '{"prompt": "x", "shot": NaN}', {"prompt": "y", "shot": "größer"})
    assert planned.metadata == ['{"shot":null}', '{"shot":"größer"}']


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "variant": st.sampled_from(["small", "swift", "petit", "auto"]),
        "num_frames": st.sampled_from([5, 9, 13, 17, 18]),
        "num_inference_steps": st.integers(0, 3),
        "ratio": st.sampled_from(["1:1", "3:2", "96:64"]),
        "guidance_scale": st.sampled_from([1.0, 3.0, -1.0]),
        "seed": st.integers(-1, 3),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SETTINGS, min_size=1, max_size=40))
def test_batches_never_mix_groups_and_every_row_is_in_one_or_rejected(rows: list[dict[str, Any]]) -> None:
    from pipelines.rows import Rows

    names = set().union(*rows)
    read = Rows("m.jsonl", list(range(1, len(rows) + 1)), {n: [r.get(n) for r in rows] for n in names})
    read.columns["prompt"] = ["x"] * len(rows)
    planned = plan_rows(read, rules())
    assert len(planned.group_of) == len(rows)
    assert len(planned.rejects) == planned.group_of.count(-1)
    seen = []
    for number, group in enumerate(planned.groups):
        members = [i for i, g in enumerate(planned.group_of) if g == number]
        for start, stop in cut_batches(len(members), 3):
            batch = members[start:stop]
            seen += batch
            assert 1 <= len(batch) <= 3
            for i in batch:
                assert rows[i].get("num_frames", 17) == group.frames
                assert rows[i].get("num_inference_steps", group.steps) == group.steps
    assert sorted(seen) == [i for i, g in enumerate(planned.group_of) if g >= 0]


@given(st.integers(0, 200), st.integers(1, 20))
def test_batches_cover_a_group_evenly(count: int, size: int) -> None:
    cuts = cut_batches(count, size)
    assert [i for start, stop in cuts for i in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in cuts]
    assert not sizes or (max(sizes) <= size and max(sizes) - min(sizes) <= 1)


def test_what_is_done_to_clips_is_planned_priced_and_told(tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = [{"interpolate": 16}, {"upscale": 2}]
    planned = plan(
        tmp_path,
        {"prompt": "a", "seed": 1},
        {"prompt": "a", "seed": 1, "finish": steps},
        {"prompt": "a", "seed": 1, "finish": json.dumps(steps)},
        {"prompt": "a", "seed": 1, "finish": {"upscale": 2, "size": None}},
        {"prompt": "a", "finish": [{"upscale": 0.5}]},
        {"prompt": "a", "finish": [{"upscale": 2, "by": "nobody"}]},
        {"prompt": "a", "finish": "{"},
        {"prompt": "a", "ratio": "1280:720", "finish": [{"fit": "pad"}], "variant": "small"},
    )
    plain, both, same, large, _, _, _, fitted = planned.fingerprints
    assert both == same
    assert len({plain, both, large, fitted}) == 4
    assert planned.bases[:4] == ["", plain, plain, plain]
    told = [str(issue) for reject in planned.rejects for issue in reject.issues]
    assert told[0] == "finish.0: upscale: a factor is above 1 and at most 8 (got 0.5)"
    assert "'nobody' does no upscale; available: lanczos" in told[1]
    assert told[2].startswith("finish: not JSON")
    table = row_table(planned, [(0.0, 0.0, 0.0)] * len(planned.groups)).sort_by("row")
    sizes = list(zip(*(table.column(name).to_pylist() for name in ("width", "height", "frames", "fps")), strict=True))
    assert sizes[1] == (128, 128, 34, 16.0)
    assert sizes[7] == (1280, 720, 17, 8.0)
    assert json.loads(table.column("finish")[1].as_py()) == [
        "interpolate to 16 fps by blend",
        "upscale to 128x128 by lanczos",
    ]


def test_a_row_of_several_samples_is_as_many_clips_with_seeds_of_their_own(tmp_path: Path) -> None:
    planned = plan(
        tmp_path,
        {"id": "x", "prompt": "a"},
        {"id": "x", "prompt": "a", "samples": 3},
        {"prompt": "b", "seed": 7, "samples": "2"},
        {"prompt": "c", "samples": 0},
        {"prompt": "d", "samples": 65, "variant": "small"},
        {"prompt": 5, "samples": 2},
        {"prompt": "e", "samples": None},
    )
    assert [reject.position for reject in planned.rejects] == [6, 7, 8, 9]
    assert [str(issue) for issue in planned.rejects[0].issues] == [
        "samples: must be a whole number from 1 to 64 (got 0)"
    ]
    assert planned.rows.lines == [1, 2, 2, 2, 3, 3, 4, 5, 6, 6, 7]
    assert planned.ids[1:4] == ["x"] * 3
    # The first is the row's own clip, so that more samples of a row are more clips beside those there are.
    assert planned.fingerprints[0] == planned.fingerprints[1]
    assert planned.seeds[4] == 7
    assert len(set(planned.fingerprints[1:6])) == 5
    assert len({planned.group_of[at] for at in range(6)}) == 1, "they may share a model call"
    table = row_table(planned, [(0.0, 0.0, 0.0)] * len(planned.groups)).sort_by("row")
    assert table.column("sample").to_pylist()[:6] == [0, 0, 1, 2, 0, 1]


def test_rows_without_samples_are_planned_as_before(tmp_path: Path) -> None:
    planned = plan(tmp_path, {"prompt": "a"}, {"prompt": "a", "samples": 1})
    assert planned.fingerprints[0] == planned.fingerprints[1]


def test_loras_of_rows_are_part_of_the_group_with_their_content(tmp_path: Path) -> None:
    def content(name: str) -> str:
        return {f"lora:{tmp_path / 'a'}": "one"}.get(name, "other")

    one, two = [{"source": str(tmp_path / "a")}], [{"source": "owner/b", "weight": 0.5}]
    rows = [
        {"prompt": "a", "seed": 1, "loras": told}
        for told in (None, one, json.dumps(one), [{"source": "./a"}], two, [*one, *two], [{**two[0], "weight": 0}])
    ]
    planned = plan(tmp_path, *rows, content=content)
    assert not planned.rejects
    plain, first, same, beside, second, both, unheard = planned.fingerprints
    assert first == same == beside
    assert unheard == plain
    assert len({plain, first, second, both}) == 4
    assert [lora.digest for lora in planned.groups[planned.group_of[5]].loras] == ["one", "other"]
    changed = plan(tmp_path, *rows, content=lambda name: "changed" if name.startswith("lora:") else "other")
    assert changed.fingerprints[0] == plain
    assert changed.fingerprints[1] != first


def test_loras_that_may_not_be_brought_are_rejected_with_those_that_may(tmp_path: Path) -> None:
    told = [{"source": "/secret/x"}, {"source": "/loras/x", "weight": 1}]
    planned = plan(
        tmp_path,
        {"prompt": "a", "variant": "small", "loras": told},
        {"prompt": "a", "variant": "small", "loras": told[1:]},
        {"prompt": "a", "loras": [{"source": "/loras/x", "wait": 1}]},
        {"prompt": "a", "loras": [{"source": "/loras/x", "weight": 99}]},
        {"prompt": "a", "loras": 7},
        loras=("/loras/",),
    )
    assert [reject.position for reject in planned.rejects] == [0, 2, 3, 4]
    first, *others = (str(reject.issues[0]) for reject in planned.rejects)
    assert first == "loras.0.source: '/secret/x' may not be brought here; available: /loras/"
    assert others[0] == "loras.0.wait: no field of a LoRA is called 'wait'; available: source, weight"
    assert others[1].startswith("loras.0.weight: Input should be less than or equal to 8")
    assert others[2] == "loras: must be a list of sources with weights (got 7)"
