"""Planning rows: every reject reason, the seeds, the groups, the batches."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.plan import Planned, PlanRules, cut_batches, plan_rows
from pipelines.read import find_chunks, read_chunk
from schemas.catalog import Variant
from schemas.task import Group
from tests.pipelines.catalogs import two_variants


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
    ({"prompt": "x", "image": "ftp://host/a.png"}, "image", "is no media address"),
    ({"prompt": "x", "seed": -1}, "seed", "whole number from 0"),
    ({"prompt": "x", "seed": 1.5}, "seed", "whole number from 0"),
    ({"prompt": "x", "seed": True}, "seed", "whole number from 0"),
    ({"prompt": "x", "seed": 2**32}, "seed", "whole number from 0"),
    ({"prompt": "x", "priority": 1000}, "priority", "whole number from -100"),
    ({"prompt": "x", "num_inference_steps": 0}, "num_inference_steps", "greater than or equal to 1"),
    ({"prompt": "x", "guidance_scale": -1}, "guidance_scale", "greater than or equal to 0"),
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
        {"image": "/a.png"},
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
    planned = plan(tmp_path, {"prompt": "x", "variant": "small", "image": "stills/a.png"})
    assert planned.images == [str(tmp_path / "stills/a.png")]


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
    from pipelines.read import Rows

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
