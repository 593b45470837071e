"""Entries of the audit log: their canonical JSON, and what may stand in them."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.audit import Action, AuditFilter, Entry, Head, canonical, details, instant, money, seconds_of


def entry(**given: object) -> Entry:
    told = {"at": instant(1_700_000_000.25), "actor": "key:k", "action": Action.TASK_CREATED, "subject": "task:t"}
    return Entry.model_validate({**told, **given})


@given(st.text(), st.dictionaries(st.text(max_size=5), st.integers() | st.booleans() | st.text() | st.lists(st.text())))
def test_an_entry_reads_back_as_the_same_text(reason: str, more: dict[str, object]) -> None:
    """The chain hashes the text: were it another after reading, no log could be verified."""
    text = entry(reason=reason, details=details(**{f"x{name}": value for name, value in more.items()})).canonical
    assert Entry.model_validate_json(text).canonical == text
    assert canonical(json.loads(text)) == text
    text.encode()


def test_what_has_its_default_is_not_in_the_text() -> None:
    """So that a field that is added later leaves the hashes of older records as they are."""
    assert json.loads(entry().canonical).keys() == {"at", "actor", "action", "subject"}


@pytest.mark.parametrize("value", [0.5, math.nan, None, {"a": 1}])
def test_what_other_languages_write_otherwise_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        entry(details={"x": value})


def test_what_no_database_takes_is_replaced_before_it_is_hashed() -> None:
    told = entry(reason="a\x00b\ud800c", subject="task:\udfff")
    assert (told.reason, told.subject) == ("a\ufffdb\ufffdc", "task:\ufffd")


def test_a_text_without_end_is_cut() -> None:
    assert len(entry(reason="x" * 5000).reason) == 1000


def test_money_and_instants_are_texts_of_fixed_form() -> None:
    assert (money(0.1), money(1e-9), money(12)) == ("0.100000", "0.000000", "12.000000")
    assert instant(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
    assert seconds_of(instant(1_700_000_000.25)) == 1_700_000_000.25


def test_a_head_is_read_as_it_is_printed() -> None:
    head = Head("a" * 64, 7, "b" * 64)
    assert Head.read(str(head)) == head
    for wrong in ("", "a:1:b", f"{'a' * 64}:x:{'b' * 64}", "nonsense"):
        with pytest.raises(ValueError, match="no head of a log"):
            Head.read(wrong)


def test_a_filter_takes_what_is_all_that_it_says() -> None:
    told = entry(key_id="k")
    assert AuditFilter().takes(told)
    assert AuditFilter(key_id="k", subject="task:t", action="task.created", since=1_700_000_000.25).takes(told)
    assert not AuditFilter(key_id="other").takes(told)
    assert not AuditFilter(before=1_700_000_000.25).takes(told)
