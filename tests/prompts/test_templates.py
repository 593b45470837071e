"""Prompt templates: what slots make of them, and what is wrong with slots and files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.templates import PromptTemplate, Slot, Templates, read_templates
from schemas.errors import ConfigError, InvalidRequestError

SHIPPED = read_templates()


def template(prompt: str, **slots: Slot) -> PromptTemplate:
    return PromptTemplate(prompt=prompt, slots=slots)


def refused(templates: Templates, name: object, slots: object) -> dict[str, tuple[str, tuple[str, ...]]]:
    with pytest.raises(InvalidRequestError) as raised:
        templates.filled(name, slots)
    return {issue.path: (issue.message, issue.choices) for issue in raised.value.issues}


def test_the_uses_that_ship_are_there_and_their_examples_fill_them() -> None:
    assert {one.use for one in SHIPPED.templates.values()} >= {"product", "cinematic", "style transfer", "motion"}
    for one in SHIPPED.templates.values():
        made = one.filled(one.example)
        assert made.prompt
        assert not set("{}[]") & set(made.prompt + made.negative_prompt)
        assert all(value in made.prompt for value in one.example.values())


def test_values_stand_in_their_places_and_defaults_where_none_is_given() -> None:
    one = template("{what} on {ground}", what=Slot(), ground=Slot(default="grass"))
    assert one.filled({"what": " a  dog "}).prompt == "a dog on grass"
    assert one.filled({"what": 2, "ground": "snow"}).prompt == "2 on snow"
    assert one.filled({"what": "a dog", "ground": None}).prompt == "a dog on grass"


def test_a_part_in_brackets_is_left_out_where_a_slot_in_it_is_empty() -> None:
    one = template("{what}[ on {ground}][, {light} light]", what=Slot(), ground=Slot(), light=Slot(default="soft"))
    assert one.required == ("what",)
    assert one.filled({"what": "a dog"}).prompt == "a dog, soft light"
    assert one.filled({"what": "a dog", "ground": "grass", "light": ""}).prompt == "a dog on grass"


@given(st.text(max_size=60))
def test_whatever_a_slot_holds_is_text_and_no_template(value: str) -> None:
    one = template("<{a}> [({b})]", a=Slot(default="x"), b=Slot())
    plain = " ".join(value.split())
    made = one.filled({"a": value, "b": "{a} [ {b}"}).prompt
    assert made == " ".join(f"<{plain}> ({{a}} [ {{b}})".split())


def test_all_that_is_wrong_with_slots_is_said_at_once_with_the_choices() -> None:
    told = refused(SHIPPED, "motion", {"direction": "sideways", "colour": "red", "speed": True})
    assert set(told) == {"slots.direction", "slots.colour", "slots.speed", "slots.subject"}
    assert told["slots.direction"][1] == ("left", "right", "up", "down")
    assert "subject" in told["slots.colour"][1]
    assert "missing" in told["slots.subject"][0]


@pytest.mark.parametrize(
    ("name", "slots", "path"),
    [
        ("produkt", {}, "template"),
        (7, {}, "template"),
        ("product", ["a"], "slots"),
        ("product", "a cup", "slots"),
    ],
)
def test_what_is_no_template_or_no_slots_is_refused(name: object, slots: object, path: str) -> None:
    (told,) = refused(SHIPPED, name, slots).items()
    assert told[0] == path
    assert told[1][1]
    if name == "produkt":
        assert "did you mean 'product'" in told[1][0]


def test_a_prompt_that_gets_too_long_is_refused() -> None:
    one = template(" ".join(f"{{s{i}}}" for i in range(5)), **{f"s{i}": Slot() for i in range(5)})
    with pytest.raises(InvalidRequestError, match="at most 4000"):
        one.filled({f"s{i}": "x" * 1000 for i in range(5)})
    with pytest.raises(InvalidRequestError, match="at most 1000"):
        one.filled({f"s{i}": "x" * 1001 for i in range(5)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[a]\nprompt = "{b}"', r"a: \{b\} has no table \[slots.b\]"),
        ('[a]\nprompt = "x"\nslots.b = {}', "slot 'b' stands nowhere"),
        ('[a]\nprompt = "x [y"', "without its partner"),
        ('[a]\nprompt = "{b}"\nslots.b = { default = "z", choices = ["y"] }', "'z' is none of its choices: y"),
        ('[a]\nprompt = "x"\ncolour = "red"', "a.colour"),
        ("[a\n", "templates"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=said) as raised:
        read_templates(tmp_path / "mine.toml")
    assert "mine.toml" in str(raised.value)


def test_a_file_adds_to_what_ships_and_overrules_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[product]\nprompt = "mine"\n[new]\nprompt = "other"\n')
    found = read_templates(tmp_path / "mine.toml")
    assert found.filled("product", None).prompt == "mine"
    assert set(found.names) == {*SHIPPED.names, "new"}
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        read_templates(tmp_path / "gone.toml")
