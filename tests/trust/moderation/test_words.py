"""What the word list finds, and what it says that it does not."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from trust.moderation.words import read_word_list, word_list

LIST = word_list(
    {
        "violence": ["behead", "shoot", "blow up*", "massacr*"],
        "public_figure": {"score": 0.6, "words": ["Jane Doe"]},
        "slur": ["斬首", "ass"],
    }
)


@pytest.mark.parametrize(
    "prompt",
    [
        "behead him",
        "BEHEAD!",
        "they béhead him",
        "ｂｅｈｅａｄ",
        "be\u200bhe\u00adad",
        "b3head",
        "behe@d the king",
        "b e h e a d",
        "b.e.h.e.a.d",
        "b-3-h-3-4-d",
        "behеаd",  # its second e and its a are Cyrillic
        "behhhead",
        "$hoot them",
        "sh00t!",
        "behead_him",
        "please blow it up? no: blow up the house",
        "blow, up!",
        "blow upwards",
        "a massacre",
        "massacring",
    ],
)
def test_a_word_is_found_however_it_is_written(prompt: str) -> None:
    assert LIST.found(prompt) == {"violence"}


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a red circle moves left",
        "beheaded",  # no `*`
        "a shooting star",
        "upwards blow",
        "blow it up",
        "he passes the class",
        "1234567 !!! $$$ @@@",
        "a b c",
        "daeheb",
        "decapitate him",
    ],
)
def test_what_is_no_whole_word_or_another_one_is_not_found(prompt: str) -> None:
    assert LIST.found(prompt) == set()


def test_a_phrase_and_a_score_of_its_own() -> None:
    assert LIST.score_text(["Jane  DOE, smiling", "jane the doe", "behead jane doe"]) == [
        {"public_figure": 0.6},
        {},
        {"public_figure": 0.6, "violence": 1.0},
    ]


def test_scripts_without_spaces_are_searched_throughout() -> None:
    assert LIST.found("彼を斬首する") == {"slur"}
    assert LIST.found("首を斬る") == set()


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    LIST.score_text([text, f"{text} behead {text}"])


@given(st.text(alphabet="xyz ,.", max_size=30), st.text(alphabet="xyz ,.", max_size=30))
def test_a_word_is_found_wherever_it_stands(before: str, after: str) -> None:
    assert LIST.found(f"{before} behead {after}") == {"violence"}


def test_a_list_travels() -> None:
    assert pickle.loads(pickle.dumps(LIST)).found("massacre") == {"violence"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no categories in it"),
        ("violence = []", "violence: must be a list of words"),
        ("violence = 3", "violence: must be a list of words"),
        ("violence = ['...']", "violence: '...' has no letter or digit"),
        ("violence = [3]", "violence: 3 is no text"),
        ("violence = {words = ['a'], score = 2}", "violence: the score 2 is not above 0"),
        ("violence = {words = ['a'], weight = 2}", "unknown 'weight'; available: score, words"),
        ("violence = [", "words.toml: "),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "words.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"word_list: .*words.toml: ") as told:
        read_word_list(path)
    assert said in str(told.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"word_list: .*gone.toml"):
        read_word_list(tmp_path / "gone.toml")
