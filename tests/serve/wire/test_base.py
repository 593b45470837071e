"""Reading bodies: what is wrong, where, and what would be right."""

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field
from pydantic_core import to_json

from serve.wire.base import Refusal, Wire, WireError, closest, read
from serve.wire.creates import TextToVideo
from serve.wire.shot import utf16_units


def no_seven(value: int) -> int:
    if value == 7:
        raise Refusal("seven is taken", "taken", ("6", "8"), ("deeper", 0))
    return value


class Inner(Wire):
    colour: Literal["red", "blue"] = "red"


class Outer(Wire):
    line_width: Annotated[int, Field(ge=1), AfterValidator(no_seven)]
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()


def read_or_refused(model: type[Wire], body: bytes) -> bool:
    """Whether it was read, or refused with at least one issue that says something; nothing else is raised."""
    try:
        read(model, body, {"max_prompt_chars": 1000, "now": 1e9})
    except WireError as error:
        return bool(error.issues) and all(issue.message for issue in error.issues)
    return True


def only_issue(body: bytes) -> dict[str, object]:
    with pytest.raises(WireError) as caught:
        read(Outer, body)
    (issue,) = caught.value.issues
    return dict(issue.as_json())


def test_a_good_body_is_read_by_its_camel_case_names() -> None:
    assert read(Outer, b'{"lineWidth": 3, "many": [{"colour": "blue"}]}').many[0].colour == "blue"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", {"code": "required", "path": ["lineWidth"]}),
        (b'{"lineWidth": 3, "line_width": 3}', {"code": "unrecognized_key", "suggestion": "lineWidth"}),
        (b'{"lineWidth": 3, "inner": {"color": 1}}', {"path": ["inner", "color"], "suggestion": "colour"}),
        (
            b'{"lineWidth": 3, "many": [{}, {"colour": "rad"}]}',
            {"path": ["many", 1, "colour"], "choices": ["red", "blue"], "suggestion": "red"},
        ),
        (b'{"lineWidth": 7}', {"code": "taken", "path": ["lineWidth", "deeper", 0], "choices": ["6", "8"]}),
        (b'{"lineWidth": "x"}', {"code": "int_parsing", "path": ["lineWidth"]}),
        (b"[1]", {"code": "model_type", "path": [], "message": "must be a JSON object"}),
        (b"", {"code": "model_type", "path": []}),
        (b"{", {"code": "invalid_json", "path": []}),
    ],
)
def test_an_issue_names_its_place(body: bytes, expected: dict[str, object]) -> None:
    found = only_issue(body)
    assert {name: found[name] for name in expected} == expected


def test_nothing_that_was_sent_is_repeated() -> None:
    assert "rsh_secret" not in str(only_issue(b'{"lineWidth": "rsh_secret"}'))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    assert read_or_refused(Outer, body)


@given(st.dictionaries(st.sampled_from([*TextToVideo.model_fields, "x"]), st.none() | st.text() | st.integers()))
def test_any_object_is_read_or_refused(fields: dict[str, object]) -> None:
    camel = {field.alias or name: fields[name] for name, field in TextToVideo.model_fields.items() if name in fields}
    assert read_or_refused(TextToVideo, to_json(camel))


@pytest.mark.parametrize(("text", "units"), [("", 0), ("abc", 3), ("ä", 1), ("🎬", 2), ("👩‍🚀", 5)])
def test_prompts_are_counted_as_runway_does(text: str, units: int) -> None:
    assert utf16_units(text) == units


def test_closest_is_near_or_nothing() -> None:
    assert closest("Embeded", ["embedded", "tiny"]) == "embedded"
    assert closest("zzz", ["embedded", "tiny"]) is None
    assert closest(5, ["5"]) is None
