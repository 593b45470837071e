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


@pytest.mark.parametrize(
    ("word", "prompts"),
    [
        ("behead", ["be\ufe0fhead", "be\u3164head", "be\u115fhead", "be\x00head", "be\x7fhead", "b\u20dde\u20ddhead"]),
        (
            "behead",
            ["🅑🅔🅗🅔🅐🅓", "🅱🅴🅷🅴🅰🅳", "ʙᴇʜᴇᴀᴅ", "behe\u0251d", "βehead", "Ьehead", "bɇhɇađ", "b\u0454head", "bɘhead"],
        ),
        ("behead", ["behead2", "2behead", "behead²"]),
        ("kill", ["k\u0131ll", "kiłł", "K\u0399LL"]),
        ("ass", ["a$$", "a$$!", "@$$"]),
        ("отрубить", ["отpyбить", "ОТPУБИТЬ", "отру\u0301бить"]),
        ("قتل", ["قَتل", "قـتل"]),
        ("קטל", ["קָטַל"]),
        ("हत्या", ["यह हत्या है"]),
        ("斬首", ["斬 首", "斬.首", "斬\u200b首", "彼を斬首する"]),
        ("𠮷野", ["あの𠮷野で"]),
    ],
)
def test_tricks_with_letters_do_not_hide_a_word(word: str, prompts: list[str]) -> None:
    words = word_list({"x": [word]})
    assert [prompt for prompt in prompts if not words.found(prompt)] == []


@pytest.mark.parametrize(
    ("word", "prompt"),
    [
        ("कल", "कला"),  # Hindi: yesterday, art
        ("சிற", "சிறை"),  # a vowel sign belongs to its word
        ("cop", "сор"),  # Russian for litter
        ("сор", "a cop"),
        ("平台", "平 台上"),
        ("台独", "平台。独自"),
        ("ss", "costs $5, or 5$"),
    ],
)
def test_what_only_begins_like_a_word_or_is_of_another_language_is_not_found(word: str, prompt: str) -> None:
    assert word_list({"x": [word]}).found(prompt) == set()


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
