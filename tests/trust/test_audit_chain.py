"""The chain of the audit log: whatever is done to it is found, and named by its place."""

import copy
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.audit import Action, AuditPrompts, Entry, Head, Prompt, Record, details, instant
from tests.trust.chains import check_chain
from trust.audit_chain import ChainCheck, ChainReport, Fault, appended, link
from trust.redaction import hash_of, matches, redacted, words_of

LOG = "ab" * 32
COUNT = 12


def entry(number: int, **given: object) -> Entry:
    told = {"at": instant(1e9 + number), "actor": "key:k", "action": Action.TASK_CREATED, "subject": f"task:{number}"}
    return Entry.model_validate({**told, **given})


def chain(count: int = COUNT, head: Head | None = None) -> tuple[list[Record], Head]:
    return appended(head or Head.opened(LOG), [entry(number).canonical for number in range(count)])


def checked(records: list[Record], head: Head | None = None, *anchors: Head) -> ChainReport:
    return check_chain(records, Head.opened(LOG), anchors, head)


def rechained(records: list[Record]) -> list[Record]:
    """As somebody who can write, and knows how, would leave them."""
    made, _ = appended(Head.opened(LOG), [record.text for record in records])
    return made


def faults(report: ChainReport) -> list[tuple[Fault, int]]:
    return [(one.fault, one.position) for one in report.faults]


def test_a_chain_that_nobody_touched_is_whole() -> None:
    records, head = chain()
    report = checked(records, head, Head(LOG, 5, records[4].hash), head)
    assert (report.faults, report.records, report.head, report.anchored) == ((), COUNT, head, COUNT)
    assert checked([], Head.opened(LOG)).faults == ()


def test_it_goes_on_where_it_stopped() -> None:
    first, head = chain(3)
    more, end = chain(2, head)
    assert checked([*first, *more], end).faults == ()
    assert [record.position for record in more] == [4, 5]


def test_the_hash_is_what_the_documentation_says() -> None:
    """Whoever verifies with other programs has only this to go by."""
    import hashlib
    import json

    records, _ = chain(2)
    told = {"entry": json.loads(records[1].text), "position": 2, "previous": records[0].hash}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == records[1].hash
    assert records[0].previous == LOG


PLACES = st.integers(1, COUNT)
FIELDS = st.sampled_from(["position", "previous", "hash", "text"])


@given(PLACES, FIELDS, st.data())
def test_any_change_of_any_record_is_found_at_its_place_or_the_next(at: int, field: str, data: st.DataObject) -> None:
    records, head = chain()
    old = records[at - 1]
    value: object
    if field == "position":
        value = data.draw(st.integers(0, 2 * COUNT))
    else:
        text = getattr(old, field)
        where = data.draw(st.integers(0, len(text) - 1))
        value = text[:where] + data.draw(st.characters(codec="utf-8")) + text[where + 1 :]
    changed = replace(old, **{field: value})  # type: ignore[arg-type]
    assume(changed != old)
    records[at - 1] = changed
    report = checked(records, head)
    assert report.faults
    assert report.faults[0].position <= at + 1
    assert {at, at + 1} & {one.position for one in report.faults} or field == "position"


@given(PLACES)
def test_a_change_whose_own_hash_was_made_anew_breaks_the_link_of_the_next(at: int) -> None:
    records, head = chain()
    old = records[at - 1]
    text = entry(at, reason="forged").canonical
    records[at - 1] = replace(old, text=text, hash=link(text, old.position, old.previous))
    expected = (Fault.UNLINKED, at + 1) if at < COUNT else (Fault.REWRITTEN, COUNT)
    assert faults(checked(records, head)) == [expected]


@given(PLACES, st.integers(1, COUNT))
def test_deleted_records_are_missed_by_their_numbers(at: int, count: int) -> None:
    records, head = chain()
    gone = records[at - 1 : at - 1 + count]
    del records[at - 1 : at - 1 + count]
    report = checked(records, head)
    kind = Fault.MISSING if records and records[-1].position == COUNT else Fault.TRUNCATED
    assert faults(report) == [(kind, gone[0].position)]


@given(st.lists(PLACES, min_size=2, max_size=2, unique=True))
def test_records_that_changed_places_are_found(places: list[int]) -> None:
    records, head = chain()
    one, two = (place - 1 for place in places)
    records[one], records[two] = records[two], records[one]
    report = checked(records, head)
    assert Fault.MOVED in {one.fault for one in report.faults}


@given(st.permutations(range(COUNT)))
def test_no_other_order_is_whole(order: list[int]) -> None:
    records, head = chain()
    assume(order != list(range(COUNT)))
    assert checked([records[place] for place in order], head).faults


@given(PLACES, st.booleans())
def test_an_inserted_record_is_found(at: int, renumbered: bool) -> None:
    records, head = chain()
    before = records[at - 2].hash if at > 1 else LOG
    text = entry(99).canonical
    forged = Record(at, before, link(text, at, before), text)
    left = [replace(record, position=record.position + 1) for record in records[at - 1 :]] if renumbered else None
    report = checked([*records[: at - 1], forged, *(records[at - 1 :] if left is None else left)], head)
    assert report.faults
    assert report.faults[0].position in (at, at + 1)


@given(st.integers(0, COUNT - 1))
def test_an_end_that_was_cut_off_is_missed_by_the_logs_own_head_or_by_an_anchor(left: int) -> None:
    records, head = chain()
    assert faults(checked(records[:left], head)) == [(Fault.TRUNCATED, left + 1)]
    own = Head(LOG, left, records[left - 1].hash if left else LOG)  # its own head was moved back too
    assert faults(checked(records[:left], own, head)) == [(Fault.TRUNCATED, left + 1)]
    assert checked(records[:left], own).faults == (), "without an anchor nobody can know"


@given(PLACES)
def test_a_log_that_was_made_anew_is_found_by_an_anchor(at: int) -> None:
    records, head = chain()
    anchor = Head(LOG, COUNT, head.hash)
    forged = rechained([*records[: at - 1], replace(records[at - 1], text=entry(99).canonical), *records[at:]])
    own = Head(LOG, COUNT, forged[-1].hash)
    assert checked(forged, own).faults == (), "whoever can write can make a chain that is whole"
    assert faults(checked(forged, own, anchor)) == [(Fault.REWRITTEN, COUNT)]
    early = [Head(LOG, place, records[place - 1].hash) for place in range(1, COUNT + 1)]
    assert faults(checked(forged, own, *early))[0] == (Fault.REWRITTEN, at), "the first anchor after it names the place"


def test_an_anchor_of_another_log_is_found() -> None:
    records, head = chain()
    assert faults(checked(records, head, Head("cd" * 32, 3, records[2].hash))) == [(Fault.FOREIGN, 3)]
    assert checked(records, head, Head(LOG[:16], 3, records[2].hash)).anchored == 3, "its first digits name a log"


class TestPruning:
    def pruned(
        self, through: int, told: int | None = None, digest: str | None = None
    ) -> tuple[list[Record], Head, Head]:
        """(what is left, floor, head); the log tells of it as far as `told`."""
        records, head = chain()
        floor = Head(LOG, through, records[through - 1].hash)
        said = details(through=told or through, hash=digest or floor.hash, records=through)
        more, head = appended(head, [entry(99, action=Action.LOG_PRUNED, details=said).canonical])
        return [*records[through:], *more], floor, head

    @given(st.integers(1, COUNT))
    def test_what_is_left_is_whole_where_the_log_tells_of_it(self, through: int) -> None:
        records, floor, head = self.pruned(through)
        report = check_chain(records, floor, (), head)
        assert (report.faults, report.floor) == ((), floor)

    def test_a_beginning_of_which_nothing_tells_is_not_pruned_but_removed(self) -> None:
        records, head = chain()
        floor = Head(LOG, 3, records[2].hash)
        assert faults(check_chain(records[3:], floor, (), head)) == [(Fault.UNTOLD, 3)]
        assert check_chain(records[3:], floor, (floor,), head).faults == (), "an anchor knows the floor"
        left, floor, head = self.pruned(4, told=3)
        assert faults(check_chain(left, floor, (), head)) == [(Fault.UNTOLD, 4)]

    def test_more_than_was_pruned_is_missed(self) -> None:
        records, floor, head = self.pruned(4)
        assert faults(check_chain(records[2:], floor, (), head)) == [(Fault.MISSING, 5)]


class TestPrompts:
    @given(st.text(), st.text(), st.sampled_from(AuditPrompts))
    def test_words_are_known_again_by_salt_and_hash(self, prompt: str, other: str, keep: AuditPrompts) -> None:
        words = words_of(prompt, "blurry")
        prompt_sha256, beside = redacted(words, keep)
        assert (beside.words == words) is (keep is AuditPrompts.KEEP)
        assert matches(prompt_sha256, beside, words)
        assert matches(prompt_sha256, beside, words_of(other, "blurry")) is (words_of(other, "blurry") == words)
        assert not matches(prompt_sha256, None, words), "erased: nobody can say"

    def test_equal_prompts_have_hashes_of_their_own(self) -> None:
        """So that a log that is handed on does not tell who asks for the same."""
        assert redacted("x", AuditPrompts.REDACT)[0] != redacted("x", AuditPrompts.REDACT)[0]

    def test_erasing_and_redacting_leave_the_chain_whole_and_other_words_break_it(self) -> None:
        prompt_sha256, beside = redacted(words_of("a fox"), AuditPrompts.KEEP)
        records, head = appended(Head.opened(LOG), [entry(1, prompt_sha256=prompt_sha256).canonical])

        def report(prompt: Prompt | None) -> ChainReport:
            check = ChainCheck(Head.opened(LOG))
            check.see(records[0], prompt)
            return check.end(head)

        for kept in (beside, Prompt(beside.salt), None):
            assert report(kept).faults == ()
        for wrong in (Prompt(beside.salt, words_of("a cat")), Prompt("00" * 16, beside.words), Prompt("x", "y")):
            assert faults(report(wrong)) == [(Fault.PROMPT, 1)]

    def test_the_hash_needs_a_salt(self) -> None:
        with pytest.raises(ValueError, match="hexadecimal"):
            hash_of("x", "no salt")


def test_a_part_of_a_log_is_checked_as_far_as_its_records_follow_each_other() -> None:
    records, _ = chain()

    def partial(some: list[Record]) -> ChainReport:
        check = ChainCheck(Head.opened(LOG), partial=True)
        for record in some:
            check.see(record)
        return check.end()

    some = [records[place] for place in (2, 3, 6, 9)]
    assert partial(some).faults == ()
    changed = copy.copy(some)
    changed[1] = replace(changed[1], previous="00" * 32)
    assert {one.position for one in partial(changed).faults} == {4}
    assert [one.fault for one in partial(some[::-1]).faults] == [Fault.MOVED] * 3
