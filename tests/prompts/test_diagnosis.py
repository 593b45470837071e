"""What looks like a mistake in a prompt is found, and what is none is left alone."""

import inspect
from pathlib import Path

import pytest

from models.loader import pipeline_class
from prompts.diagnosis import CODES, MEANING, Asked, Finding, asked_of, diagnose
from prompts.encoders import TextEncoder, most_tokens, text_encoder_of
from schemas.catalog import Variant, shipped_catalog
from schemas.motion import CameraKey
from schemas.request import Mode
from schemas.task import Group

CATALOG = shipped_catalog()
SMALL, LARGE = CATALOG["shapes"], CATALOG["wan2.1-t2v-1.3b"]
ASKED = Asked(width=1280, height=720, fps=16, duration_s=5.0)


def found(prompt: str, negative: str = "", asked: Asked = ASKED, variant: Variant = LARGE) -> list[Finding]:
    return list(diagnose(prompt, negative, asked, variant))


def codes(prompt: str, negative: str = "", asked: Asked = ASKED, variant: Variant = LARGE) -> set[str]:
    return {one.code for one in found(prompt, negative, asked, variant)}


@pytest.mark.parametrize(
    "prompt",
    [
        "a red circle moving left",
        "a man in a portrait gallery, a vertical cliff behind him, square windows",
        "no one is on the beach at 10:30, nothing moves without end",
        "a woman holding a landscape painting, ten seconds before midnight",
        "four kittens, 2 of them black; a still lake in Norway",
        "text on a neon sign, grainy film look",
        "a train passes a station, the camera pans left",
        "",
        "   ",
    ],
)
def test_ordinary_prompts_are_left_alone(prompt: str) -> None:
    assert found(prompt, "blurry, text, watermark") == []


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a fox, vertical video", "vertical video"),
        ("a fox, portrait orientation", "portrait orientation"),
        ("a fox in portrait orientation", "portrait"),
        ("a square clip of a fox", "square clip"),
        ("a fox, 9:16", "9:16"),
        ("a fox, 16:9", None),
        ("a fox in 4K", "4k"),
        ("a fox in 720p", None),
        ("a fox, a 10-second clip", "10-second"),
        ("a ten seconds long video of a fox", "ten seconds"),
        ("a 5 s video of a fox", None),
        ("a fox at 60 fps", "60 fps"),
        ("a fox at 16 frames per second", None),
    ],
)
def test_words_are_held_against_size_length_and_rate(prompt: str, said: str | None) -> None:
    told = [one for one in found(prompt) if one.code == "contradiction"]
    assert len(told) == (said is not None)
    if said:
        assert said in told[0].message
        assert "set " in told[0].suggestion


def test_words_are_held_against_the_camera() -> None:
    moving = Asked(1280, 720, 16, 5.0, moves=frozenset({"pan right"}))
    assert codes("a fox, the camera pans to the left", asked=moving) == {"contradiction"}
    assert codes("a fox, static camera", asked=moving) == {"contradiction"}
    assert codes("a fox, panning right", asked=moving) == set()


def test_the_camera_of_a_group_is_what_it_does_first() -> None:
    group = Group(
        variant="x", variant_digest="x", mode=Mode.IMAGE_TO_VIDEO, width=64, height=64, frames=17, fps=8, steps=4,
        guidance=3, camera=(CameraKey(at_s=1, pan=-10, zoom=1), CameraKey(at_s=2, pan=20, zoom=1.5)),
    )  # fmt: skip
    assert asked_of(group, LARGE).moves == {"pan left", "zoom in"}


@pytest.mark.parametrize(
    ("prompt", "what"),
    [
        ("a street without any people", "people"),
        ("a street, no cars and trees on both sides", "cars"),
        ("a cup, don't show the handle", "the handle"),
        ("a cup, avoid text in the picture", "text"),
    ],
)
def test_a_no_is_found_with_what_it_is_about(prompt: str, what: str) -> None:
    (one,) = found(prompt)
    assert (one.code, one.field) == ("negation", "prompt")
    assert repr(what) in one.suggestion


def test_negative_prompts_in_the_wrong_place_or_form_are_found() -> None:
    assert codes("blurry, low quality, deformed, extra limbs") == {"negative_as_prompt"}
    assert codes("a fox, blurry, low quality") == set(), "mostly something to be seen"
    assert codes("a fox", "no text, no people") == {"double_negation"}
    unguided = Asked(1280, 720, 16, 5.0, guided=False)
    assert codes("a fox", "text", asked=unguided) == {"no_effect"}


def test_tokens_are_counted_by_the_variant_s_own_tokenizer_and_else_about() -> None:
    (exact,) = (one for one in found("a red circle " * 40, variant=SMALL) if one.code == "too_long")
    most = most_tokens(SMALL)
    assert f"has 121 tokens, and the text encoder reads {most}" in exact.message
    (about,) = found("a fox runs over a hill, " * 80)
    assert about.message.startswith("has about ")
    assert "reads 512" in about.message
    assert found("a fox runs over a hill, " * 30) == []


def test_what_is_cut_off_is_shown() -> None:
    told = found("a red circle " * 30 + "over a white background", variant=SMALL)
    (one,) = (one for one in told if one.code == "too_long")
    count = text_encoder_of(SMALL).count("a red circle " * 30)
    assert count.read is not None
    assert "nothing of 'a red circle" in one.message or "nothing of 'circle" in one.message or "'red" in one.message


def test_unknown_words_get_the_nearest_that_is_known() -> None:
    told = {one.code: one for one in found("a red circel moving left", variant=SMALL)}
    assert set(told) == {"unknown_words"}
    assert "'circel'" in told["unknown_words"].message
    assert "'circle'" in told["unknown_words"].suggestion
    assert codes("a walrus surfs", variant=SMALL) == {"unknown_words", "untaught"}
    assert codes("a walrus surfs", variant=LARGE) == set()


def test_a_tokenizer_of_a_folder_is_used_and_nothing_is_fetched_for_a_hub_s(tmp_path: Path) -> None:
    assert not text_encoder_of(LARGE).is_exact
    source = Path(__file__).parents[2] / "models/embedded/tiny-random/tokenizer"
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    local = LARGE.model_copy(update={"weights": str(tmp_path)})
    assert text_encoder_of(local).is_exact


def test_the_most_tokens_are_the_classes_own() -> None:
    """By the default of `max_sequence_length` where the call has one; CLIP has 77 places."""
    for variant in CATALOG.variants.values():
        for pipeline in {variant.pipeline, *variant.pipelines.values()}:
            call = inspect.signature(pipeline_class(variant, pipeline).__call__).parameters
            one = variant.model_copy(update={"pipeline": pipeline, "call_options": {}})
            if "max_sequence_length" in call:
                assert most_tokens(one) == call["max_sequence_length"].default, pipeline
            elif pipeline.startswith(("AnimateDiff", "Hotshot")):
                assert most_tokens(one) == 77
    assert TextEncoder(None).most_tokens is None
    assert diagnose("x " * 4000, "", ASKED, CATALOG["shapes"].model_copy(update={"pipeline": "Unheard"}))


def test_every_finding_has_a_meaning() -> None:
    assert set(MEANING) == set(CODES)
