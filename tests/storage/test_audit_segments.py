"""Chains of the audit log in an object store. Every test runs on a folder and on S3."""

import json

import pytest

from schemas.audit import Action, Entry, Head, Prompt, instant
from schemas.audit import Record as AuditRecord
from storage import keys
from storage.audit_segments import AuditSegments, Line, UnreadableLineError, line_of, parsed
from storage.store import ObjectStore

LOG = "ab" * 32


def line(position: int, subject: str = "task:a", prompt: Prompt | None = None) -> Line:
    text = Entry(
        at=instant(1e9), actor="user:a@b", action=Action.TASK_SUCCEEDED, subject=subject, reason="…\n\u2028é"
    ).canonical
    return Line(LOG, AuditRecord(position, "p" * 64, "h" * 64, text), prompt)


@pytest.mark.parametrize("prompt", [None, Prompt("aa"), Prompt("aa", "a\nfox")])
def test_a_line_reads_back(prompt: Prompt | None) -> None:
    told = line(3, prompt=prompt)
    assert "\n" not in line_of(told)
    assert parsed(line_of(told)) == told


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"log":"a"}', '{"entry":{},"position":"x"}', "[" * 10_000])
def test_what_is_no_record_says_so(text: str) -> None:
    with pytest.raises(UnreadableLineError):
        parsed(text)


@pytest.mark.parametrize(
    "damage",
    [
        {"entry": "x"},
        {"entry": [1]},
        {"log": 7},
        {"log": {}},
        {"previous": None},
        {"hash": 1.5},
        {"position": None},
        {"prompt": "x"},
        {"prompt": {"salt": None}},
        {"prompt": {"salt": "aa", "words": {"a": 1}}},
    ],
)
def test_what_has_another_kind_of_value_than_a_record_says_so(damage: dict[str, object]) -> None:
    told = json.loads(line_of(line(3, prompt=Prompt("aa", "a fox"))))
    with pytest.raises(UnreadableLineError):
        parsed(json.dumps(told | damage))


def test_segments_are_read_in_the_order_of_their_records(store: ObjectStore) -> None:
    segments = AuditSegments(store)
    segments.write(LOG, [line(11), line(12)])
    segments.write(LOG, [line(1)])
    segments.write("cd" * 32, [line(1)])
    store.put("audit/segments/notes.txt", b"of somebody else")
    chains = segments.chains()
    assert list(chains) == [LOG[:16], ("cd" * 32)[:16]]
    found = list(segments.lines(chains[LOG[:16]]))
    assert [one.record.position for one in found if isinstance(one, Line)] == [1, 11, 12]
    ends = segments.ends(chains)[LOG[:16]]
    assert (ends.first, ends.head) == (line(1), Head(LOG, 12, "h" * 64))
    assert ends.begins_with(Action.RUN_STARTED, Action.TASK_SUCCEEDED)
    assert not ends.begins_with(Action.RUN_STARTED)


def test_a_line_that_was_damaged_is_told_of_beside_the_others(store: ObjectStore) -> None:
    segments = AuditSegments(store)
    segments.write(LOG, [line(1), line(2)])
    (key,) = segments.chains()[LOG[:16]]
    first, second = store.get(key).splitlines()
    store.put(key, b"\n".join([bytes(30), second]))
    one, two = segments.lines([key])
    assert isinstance(one, UnreadableLineError)
    assert two == parsed(second)
    store.put(key, first[:40])
    ends = segments.ends({"x": [key]})["x"]
    assert (ends.head, ends.begins_with(Action.TASK_SUCCEEDED)) == (None, False)


def test_erasing_takes_away_what_lies_beside_and_nothing_else(store: ObjectStore) -> None:
    segments = AuditSegments(store)
    lines = [line(1, "task:a", Prompt("aa", "a fox")), line(2, "task:ab", Prompt("bb", "a fox")), line(3, "task:a")]
    segments.write(LOG, lines)
    assert segments.erase("task:a") == 1
    assert segments.erase("task:a") == 0
    (key,) = segments.chains()[LOG[:16]]
    assert [one.prompt for one in segments.lines([key]) if isinstance(one, Line)] == [None, lines[1].prompt, None]
    assert [one.record for one in segments.lines([key]) if isinstance(one, Line)] == [one.record for one in lines]
    assert b"aa" not in store.get(key).replace(LOG.encode(), b"").replace(b'"task:a', b"")


def bodies(store: ObjectStore) -> list[tuple[int, int]]:
    found = (keys.audit_segment_of(info.key) for info in store.list(keys.AUDIT_SEGMENTS))
    return sorted((of[1], of[2]) for of in found if of is not None)


def test_many_segments_become_few_with_the_same_records_in_the_same_order(store: ObjectStore) -> None:
    segments = AuditSegments(store)
    lines = [line(number, prompt=Prompt(f"{number:02x}")) for number in range(1, 12)]
    for place in range(0, 10, 2):
        segments.write(LOG, lines[place : place + 2])
    chain = segments.chains()[LOG[:16]]
    segments.write(LOG, lines[10:])  # meanwhile
    before = {key: store.get(key) for key in chain}
    assert segments.fold(chain, most_records=6) == 3
    assert bodies(store) == [(1, 6), (7, 4), (11, 1)]
    assert list(segments.lines(segments.chains()[LOG[:16]])) == lines
    for key in chain[:2]:  # as after a crash between writing and deleting
        store.put(key, before[key])
    assert list(segments.lines(segments.chains()[LOG[:16]])) == lines
    assert segments.fold(segments.chains()[LOG[:16]]) == 2
    segments.drop_folded()
    assert bodies(store) == [(1, 11)]
    assert list(segments.lines(segments.chains()[LOG[:16]])) == lines


def test_segments_with_a_gap_between_them_are_not_put_together(store: ObjectStore) -> None:
    """A removed segment is to be missed at its place afterwards too."""
    segments = AuditSegments(store)
    for number in (1, 2, 4, 5):
        segments.write(LOG, [line(number)])
    assert segments.fold(segments.chains()[LOG[:16]]) == 2
    assert bodies(store) == [(1, 2), (4, 2)]


def test_keys_say_which_records_they_hold() -> None:
    key = keys.audit_segment(LOG, 5, 3)
    assert keys.audit_segment_of(key) == (LOG[:16], 5, 3)
    assert keys.audit_anchor_of(keys.audit_anchor(LOG, 7)) == (LOG[:16], 7)
    assert keys.audit_segment_of("audit/segments/x.jsonl") is keys.audit_anchor_of("audit/anchors/x.json") is None
    assert keys.is_output(key), "a manifest beside it is not looked for there"
    assert json.loads(line_of(line(1)))["position"] == 1
