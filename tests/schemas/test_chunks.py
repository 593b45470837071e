"""How long clips are cut into calls, and who may have several prompts."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import Catalog, Variant, parse_catalog
from schemas.chunks import Windows, chunk_fingerprints, chunk_seed, cut
from schemas.errors import CatalogError, InvalidRequestError
from schemas.inputs import Input, InputSpec
from schemas.motion import CameraKey
from schemas.request import Mode, Request, Settings
from schemas.resolve import resolve
from schemas.task import Group
from schemas.timed_prompts import read_prompts

_VACE = """
[variants.%(name)s]
pipeline = "%(pipeline)s"
weights = "owner/name"
modes = %(modes)s
steps = 4
fps = 8
%(more)s
shape = { divisor = 16, frame_step = 4, frame_offset = 1, max_frames = 33, max_pixels = 65536, native = [[64, 64, 17]] }
latent = { channels = 16, spatial = 8, temporal = 4 }
"""
BOTH = '["text_to_video", "image_to_video"]'


def entry(name: str, more: str = "", pipeline: str = "WanVACEPipeline", modes: str = BOTH) -> str:
    return _VACE % {"name": name, "pipeline": pipeline, "modes": modes, "more": more}


CATALOG = parse_catalog(
    entry("short")
    + entry("long", "chunks = { frames = 17, max_s = 10 }")
    + entry("far", "chunks = { frames = 33, overlap = 5, max_s = 30 }")
    + entry("image", "chunks = { frames = 17, max_s = 10 }\nconditions = ['first_frame', 'last_frame']",
            "WanImageToVideoPipeline", '["image_to_video"]'),
    "test",
)  # fmt: skip


def group(
    variant: str = "long", turns_s: tuple[float, ...] = (), inputs: tuple[InputSpec, ...] = (), **said: Any
) -> Group:
    asked = Settings.model_validate({"variant": variant, **said})
    return resolve(asked, CATALOG, inputs=inputs, turns_s=turns_s, rank=lambda v, g: 0.0, snap=False)


def refused(*given: Any, **said: Any) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        group(*given, **said)
    return [str(issue) for issue in caught.value.issues]


@settings(max_examples=300)
@given(st.data())
def test_chunks_make_each_frame_once_and_begin_with_frames_that_there_are(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 40))
    windows = Windows(frames=size, overlap=data.draw(st.integers(1, size - 1)))
    frames = data.draw(st.integers(1, 300))
    turns = sorted(data.draw(st.sets(st.integers(1, frames), max_size=4)) - {frames})
    chunks = cut(frames, turns, windows)
    kept = [frame for chunk in chunks for frame in range(chunk.first, chunk.stop)]
    assert kept == list(range(frames))
    for chunk in chunks:
        assert 0 <= chunk.start <= chunk.first < chunk.stop <= chunk.start + size
        assert (chunk.known > 0) == (chunk.number > 0)
        # A chunk has one prompt: the one of all its frames.
        assert {sum(turn <= frame for turn in turns) for frame in (chunk.first, chunk.stop - 1)} == {chunk.turn}


def test_a_clip_that_fits_one_call_is_made_in_one_and_has_the_fingerprint_that_it_had() -> None:
    told = group("long", num_frames=33)
    assert told.chunks is None
    assert told.key == group("short", num_frames=33).key
    assert told.base_fingerprint("a", "", 1) == group("short", num_frames=33).base_fingerprint("a", "", 1)


def test_a_longer_clip_is_cut_and_its_length_is_the_asked_one() -> None:
    six = group("long", duration_s=6)
    assert (six.frames, six.chunks) == (48, Windows(frames=17, overlap=1))
    assert [(c.start, c.first, c.stop) for c in six.cuts] == [(0, 0, 17), (16, 17, 33), (32, 33, 48)]
    assert group("long", num_frames=50).frames == 50
    assert group("long", duration_s=30).frames == 80, "the longest there is, as ever"
    assert refused("long", num_frames=81) == [
        "num_frames: 81 must be 4k+1, from 1 to 33, or any number beyond up to 80 on long; available: 80"
    ]
    assert refused("short", num_frames=50) == ["num_frames: 50 must be 4k+1, from 1 to 33 on short; available: 33"]


def test_prompts_each_other_time_and_each_text_is_another_task() -> None:
    plain, turned, later = group("long"), group("long", (1.0,)), group("long", (1.5,))
    assert (turned.turns, turned.chunks) == ((8,), Windows(frames=17, overlap=1))
    assert [(c.first, c.stop, c.turn) for c in turned.cuts] == [(0, 8, 0), (8, 17, 1)]
    prints = {
        plain.base_fingerprint("a", "", 1),
        turned.base_fingerprint("a", "", 1, later=("b",)),
        turned.base_fingerprint("a", "", 1, later=("c",)),
        later.base_fingerprint("a", "", 1, later=("b",)),
        group("far", (1.0,)).base_fingerprint("a", "", 1, later=("b",)),
    }
    assert len(prints) == 5


def test_the_same_chunks_under_another_limit_are_the_same_task() -> None:
    longer = CATALOG["long"].model_copy(update={"chunks": CATALOG["long"].chunks.model_copy(update={"max_s": 20.0})})  # type: ignore[union-attr]
    other = Catalog(variants={"long": longer})
    again = resolve(Settings(variant="long", duration_s=6), other, rank=lambda v, g: 0.0)
    assert again.key == group("long", duration_s=6).key


def test_a_variant_of_one_prompt_refuses_several_and_names_the_nearest_that_takes_them() -> None:
    assert refused("short", (1.0,)) == ["prompts: short follows one prompt a clip; long does; available: long, far"]
    found = resolve(Settings(), CATALOG, turns_s=(1.0,), rank=lambda v, g: 0.0)
    assert found.variant == "long", "auto takes one that can"


@pytest.mark.parametrize(
    ("turns_s", "told"),
    [
        ((2.2,), "prompts.1.from_s: 2.2 s is after the end: the clip's last frame is at 2.000 s"),
        ((0.01,), "prompts.1.from_s: 0.01 s is frame 0 at 8 fps, and the one before begins there: at least 0.125 s"),
        ((1.0, 1.01), "prompts.2.from_s: 1.01 s is frame 8 at 8 fps, and the one before begins there: at least"),
    ],
)  # fmt: skip
def test_an_instant_that_no_frame_has_is_refused(turns_s: tuple[float, ...], told: str) -> None:
    assert refused("long", turns_s)[0].startswith(told)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("a", "prompts: must be a list of prompts with from_s and text (got 'a')"),
        ([], "prompts: must be a list of prompts"),
        (["a"], "prompts.0: must be an object with from_s and text (got 'a')"),
        ([{"text": "a"}], "prompts.0.from_s: is missing"),
        ([{"from_s": 0}], "prompts.0.text: is missing"),
        ([{"from_s": 0, "text": "a", "to_s": 2}],
         "prompts.0.to_s: no field of a prompt is called 'to_s'; available: from_s, text"),
        ([{"from_s": 1, "text": "a"}], "prompts.0.from_s: the first begins with the clip, not at 1 s; available: 0"),
        ([{"from_s": 0, "text": "a"}, {"from_s": 0, "text": "b"}],
         "prompts.1.from_s: 0 s is not after the 0 s of the one before"),
        ([{"from_s": -1, "text": "a"}], "prompts.0.from_s: Input should be greater than or equal to 0 (got -1)"),
        ([{"from_s": 0, "text": " "}], "prompts.0.text: is blank"),
        ([{"from_s": 0, "text": "x" * 3999}],
         "prompts.0.text: 4004 characters with the prompt before it, at most 4000"),
        ([{"from_s": at, "text": "a"} for at in range(65)], "prompts: 65 of them, at most 64"),
    ],
)  # fmt: skip
def test_wrong_prompts_are_refused_with_their_place_and_the_choices(value: Any, told: str) -> None:
    _, issues = read_prompts(value, "a fox" if "4004" not in told else "fox,")
    assert str(issues[0]).startswith(told)


def test_a_prompt_beside_prompts_goes_before_each_of_them() -> None:
    told, issues = read_prompts([{"from_s": 0, "text": "runs"}, {"from_s": 2.5, "text": "sleeps"}], "a fox")
    assert (told.texts, told.turns_s, issues) == (("a fox runs", "a fox sleeps"), (2.5,), ())
    same = Request.model_validate({"prompt": "a fox", "prompts": [{"from_s": 0, "text": "runs"}]})
    assert same.told.texts == ("a fox runs",)
    with pytest.raises(ValueError, match="the first begins with the clip"):
        Request.model_validate({"prompts": [{"from_s": 1, "text": "runs"}]})


def test_what_the_camera_does_is_followed_within_one_call_only() -> None:
    first = (Input(role="first_frame", image="a").spec("inputs.0"),)  # type: ignore[arg-type]
    keys = [CameraKey(at_s=0), CameraKey(at_s=1, pan=10)]
    told = refused("long", (), first, duration_s=6, camera=keys)
    assert told == [
        "camera: long follows it within one call only, of one prompt and 33 frames; available: duration_s, prompts"
    ]


def test_a_last_frame_that_only_a_calls_end_can_be_asks_for_a_length_that_ends_there() -> None:
    both = tuple(Input(role=role, image="a").spec("inputs.0") for role in ("first_frame", "last_frame"))  # type: ignore[arg-type]
    assert refused("image", (), both, num_frames=48) == [
        "num_frames: 48: with a last_frame the clip ends where a chunk of 17 frames does; available: 49"
    ]
    assert group("image", (), both, num_frames=49).cuts[-1].stop == 49


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("chunks = { frames = 18, max_s = 10 }", "18 must be 4k+1, from 1 to 33; available: 17, 21"),
        ("chunks = { frames = 17, overlap = 17, max_s = 10 }", "chunks.overlap: must be below the 17 frames of a"),
        ("chunks = { frames = 17, max_s = 10 }\nconditions = ['style']", "takes no first_frame here; available: "),
        ("chunks = { frames = 17 }", "variants.v.chunks.max_s: Field required"),
    ],
)  # fmt: skip
def test_chunks_that_cannot_be_are_refused_when_the_catalog_is_read(more: str, told: str) -> None:
    with pytest.raises(CatalogError, match=".") as caught:
        parse_catalog(entry("v", more), "test")
    assert told in str(caught.value)


def test_an_overlap_is_refused_of_classes_that_hold_single_frames() -> None:
    with pytest.raises(CatalogError, match="holds single frames, not a video; available: 1"):
        parse_catalog(entry("v", "chunks = { frames = 17, overlap = 5, max_s = 9 }", "LTXConditionPipeline"), "test")


def test_seeds_and_fingerprints_of_chunks_follow_from_the_clips() -> None:
    chunks = cut(50, (20,), Windows(frames=17, overlap=1))
    assert chunk_seed(7, 0) == 7
    assert len({chunk_seed(seed, number) for seed in (7, 8) for number in range(4)}) == 8
    prints = chunk_fingerprints("f" * 32, chunks)
    assert len(set(prints)) == len(chunks)
    # A chunk is made of the one before it: cut elsewhere, all that follow are others.
    others = chunk_fingerprints("f" * 32, cut(50, (10,), Windows(frames=17, overlap=1)))
    assert not set(prints) & set(others)


def test_what_a_variant_can_is_read_off_class_and_entry() -> None:
    able: dict[str, Variant] = dict(CATALOG.variants)
    assert [name for name, one in able.items() if one.several_prompts(Mode.TEXT_TO_VIDEO)] == ["long", "far"]
    assert able["far"].longest_frames(Mode.TEXT_TO_VIDEO, 8.0) == 240
    assert able["short"].longest_frames(Mode.TEXT_TO_VIDEO, 8.0) == 0
