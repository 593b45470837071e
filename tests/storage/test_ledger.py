"""What the ledger remembers, whatever is compacted, killed or run twice meanwhile."""

import logging
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.clip import Record, Status
from schemas.errors import StorageUnavailableError
from storage import keys
from storage.address import FolderAddress
from storage.compaction import compact
from storage.done_tasks import done_tasks
from storage.ledger import Ledger
from storage.local import LocalStore
from storage.store import ObjectStore
from storage.tables import RECORD_SCHEMA, records_to_table, table_to_records, write_table
from tests.storage.records import record


def done(ledger: Ledger, with_quarantined: bool = False) -> list[str]:
    """The tasks that need no rendering, in order."""
    found = done_tasks(ledger, with_quarantined=with_quarantined).fingerprints
    return [bytes(one).ljust(16, b"\0").hex() for one in found]


A, B, C = "aa" * 16, "bb" * 16, "cc" * 16


def test_a_record_is_read_back_whole(store: ObjectStore) -> None:
    ledger = Ledger(store)
    assert ledger.write(record(A))
    assert ledger.get(A) == record(A)
    assert ledger.get(B) is None
    assert table_to_records(ledger.load()) == [record(A)]


def test_writing_the_same_success_twice_keeps_one(store: ObjectStore) -> None:
    ledger = Ledger(store)
    assert ledger.write(record(A))
    assert not ledger.write(record(A))
    assert len(list(store.list("ledger/"))) == 1


def test_of_two_successes_the_later_counts(store: ObjectStore) -> None:
    ledger = Ledger(store)
    later = record(A, at="2026-02-02T00:00:00+00:00")
    assert ledger.write(record(A))
    assert ledger.write(later)
    for _ in range(2):
        assert ledger.get(A) == later
        compact(ledger, min_loose=1)


def test_a_failure_never_replaces_a_success(store: ObjectStore) -> None:
    ledger = Ledger(store)
    for fold in (False, True):
        ledger.write(record(A))
        ledger.write(record(A, Status.FAILED, at="2027-01-01T00:00:00+00:00"))
        if fold:
            compact(ledger, min_loose=1)
            ledger.write(record(A, Status.FAILED, at="2028-01-01T00:00:00+00:00"))
        assert ledger.get(A) == record(A)
        assert ledger.load().column("status").to_pylist() == ["SUCCEEDED"]


def test_of_two_failures_the_later_counts_however_its_time_is_written(store: ObjectStore) -> None:
    ledger = Ledger(store)
    ledger.write(record(A, Status.FAILED, at="2026-01-01T00:00:00Z"))
    ledger.write(record(A, Status.FAILED, at="2026-01-01T00:00:00.5+00:00", error="the later"))
    ledger.write(record(A, Status.FAILED, at=""))
    found = ledger.get(A)
    assert found is not None
    assert found.error == "the later"


def test_a_success_after_a_failure_counts(store: ObjectStore) -> None:
    ledger = Ledger(store)
    ledger.write(record(A, Status.FAILED, at="2027-01-01T00:00:00+00:00"))
    compact(ledger, min_loose=1)
    ledger.write(record(A))
    assert ledger.get(A) == record(A)
    assert done(ledger) == [A]


def test_what_is_done_is_what_succeeded_and_what_was_given_up_if_asked(store: ObjectStore) -> None:
    ledger = Ledger(store)
    ledger.write(record(A))
    ledger.write(record(B, Status.FAILED))
    ledger.write(record(C, Status.FAILED, quarantined=True))
    for _ in range(2):
        assert done(ledger) == [A]
        assert done(ledger, with_quarantined=True) == [A, C]
        compact(ledger, min_loose=1)


def test_compacting_changes_nothing_but_the_number_of_objects(store: ObjectStore) -> None:
    ledger = Ledger(store)
    fingerprints = [f"{i:032x}" for i in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda f: ledger.write(record(f)), fingerprints))
    before = ledger.load()
    done = compact(ledger, min_loose=40)
    assert done.folded_records == 40
    assert [info.key for info in store.list("ledger/")] == [done.key]
    assert ledger.load().equals(before)
    assert ledger.get(fingerprints[7]) == record(fingerprints[7])


def test_few_loose_records_are_left_alone(store: ObjectStore) -> None:
    ledger = Ledger(store)
    ledger.write(record(A))
    assert compact(ledger, min_loose=2).key is None
    assert compact(Ledger(store), min_loose=0).folded_records == 1
    assert compact(ledger, min_loose=0).key is None  # Nothing is left to fold: no file of nothing.


def test_many_compacted_files_become_one(store: ObjectStore) -> None:
    ledger = Ledger(store)
    for i in range(4):
        ledger.write(record(f"{i:032x}"))
        compact(ledger, min_loose=1)
    assert compact(ledger, min_loose=1, max_files=3).merged_files == 4
    assert len(list(store.list(keys.COMPACTED))) == 1
    assert ledger.load().num_rows == 4


def test_a_range_of_fingerprints_is_half_open(store: ObjectStore) -> None:
    ledger = Ledger(store)
    for fingerprint in (A, B, C):
        ledger.write(record(fingerprint))
    for _ in range(2):
        assert ledger.load(A, C).column("fingerprint").to_pylist() == [A, B]
        assert ledger.load("aaa", "aab").column("fingerprint").to_pylist() == [A]
        assert ledger.load("b").column("fingerprint").to_pylist() == [B, C]
        assert ledger.load("", "b").column("fingerprint").to_pylist() == [A]
        assert ledger.load("d").num_rows == 0
        compact(ledger, min_loose=1)


def test_an_empty_ledger_is_an_empty_table(store: ObjectStore) -> None:
    assert Ledger(store).load().schema == RECORD_SCHEMA
    assert len(done_tasks(Ledger(store))) == 0


def test_a_file_that_is_no_record_is_left_out_and_left_there(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    heard = logging.getLogger("storage.ledger")
    caplog.set_level(logging.WARNING, logger=heard.name)
    heard.disabled = False  # libraries that set up logging of their own disable those that are there
    ledger = Ledger(store)
    ledger.write(record(A))
    store.put(keys.tried_record(B, "ab"), b"not JSON")
    store.put("ledger/records/README", b"hello")
    assert ledger.load().column("fingerprint").to_pylist() == [A]
    assert compact(ledger, min_loose=1).folded_records == 1
    assert store.get(keys.tried_record(B, "ab")) == b"not JSON"
    assert "is not a record" in caplog.text


class DyingStore(LocalStore):
    """A folder whose process 'dies' (raises) at the n-th change, or runs a step of someone else's before it."""

    def __init__(self, folder: Path, at: int, instead: Callable[[], None] | None = None) -> None:
        super().__init__(FolderAddress(folder))
        self._left = at
        self._instead = instead

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            if self._instead is None:
                raise StorageUnavailableError("killed here")
            self._instead()

    def put(self, key, data, content_type="", if_absent=False):  # type: ignore[no-untyped-def]
        self._step()
        return super().put(key, data, content_type, if_absent)

    def delete(self, keys):  # type: ignore[no-untyped-def]
        for key in keys:
            self._step()
            super().delete([key])

    def get(self, key):  # type: ignore[no-untyped-def]
        self._step()
        return super().get(key)


@pytest.mark.parametrize("at", range(1, 10))
def test_a_compaction_killed_at_any_step_loses_nothing(tmp_path: Path, at: int) -> None:
    ledger = Ledger(LocalStore(FolderAddress(tmp_path)))
    for fingerprint in (A, B, C):
        ledger.write(record(fingerprint))
    compact(ledger, min_loose=1)
    ledger.write(record("dd" * 16))
    ledger.write(record(A, Status.FAILED))
    before = ledger.load()
    with suppress(StorageUnavailableError):
        compact(Ledger(DyingStore(tmp_path, at)), min_loose=1, max_files=0)
    assert ledger.load().equals(before)
    compact(ledger, min_loose=1, max_files=0)
    assert ledger.load().equals(before)


@pytest.mark.parametrize("at", range(1, 10))
def test_what_others_do_in_the_middle_of_a_compaction_is_kept(tmp_path: Path, at: int) -> None:
    ledger = Ledger(LocalStore(FolderAddress(tmp_path)))
    ledger.write(record(A, Status.FAILED))
    ledger.write(record(B))
    compact(ledger, min_loose=1)
    ledger.write(record(C, Status.FAILED))

    def someone_else() -> None:
        ledger.write(record(A))
        ledger.write(record(C))
        compact(ledger, min_loose=1, max_files=0)
        ledger.write(record("dd" * 16))

    compact(Ledger(DyingStore(tmp_path, at, someone_else)), min_loose=1, max_files=0)
    someone_else()
    assert done(ledger) == [A, B, C, "dd" * 16]
    assert table_to_records(ledger.load()) == [record(f) for f in (A, B, C, "dd" * 16)]


@pytest.mark.parametrize("at", range(1, 6))
def test_a_reader_sees_everything_while_a_compaction_deletes_under_it(tmp_path: Path, at: int) -> None:
    ledger = Ledger(LocalStore(FolderAddress(tmp_path)))
    ledger.write(record(A))
    compact(ledger, min_loose=1)
    for fingerprint in (B, C):
        ledger.write(record(fingerprint))
    reader = Ledger(DyingStore(tmp_path, at, lambda: compact(ledger, min_loose=1, max_files=0)))
    assert reader.load().column("fingerprint").to_pylist() == [A, B, C]


_FINGERPRINTS = st.sampled_from([f"{i:02x}" * 16 for i in range(6)])
_RECORDS = st.builds(
    lambda fingerprint, status, second, gone: record(
        fingerprint, status, f"2026-01-01T00:00:{second:02d}+00:00", quarantined=gone and status is Status.FAILED
    ),
    _FINGERPRINTS,
    st.sampled_from([Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.PENDING]),
    st.integers(0, 59),
    st.booleans(),
)
_STEPS = st.lists(st.one_of(_RECORDS, st.tuples(st.integers(1, 4), st.integers(0, 3))), max_size=25)


@given(steps=_STEPS)
@settings(max_examples=100, deadline=None)
def test_any_mix_of_writes_and_compactions_reads_as_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Record | tuple[int, int]]
) -> None:
    ledger = Ledger(LocalStore(FolderAddress(tmp_path_factory.mktemp("ledger"))))
    written: defaultdict[str, list[Record]] = defaultdict(list)
    for step in steps:
        if isinstance(step, tuple):
            compact(ledger, min_loose=step[0], max_files=step[1])
            continue
        ledger.write(step)
        written[step.fingerprint].append(step)
    oracle = {fingerprint: what_counts(records) for fingerprint, records in written.items()}
    revoked = {f: any(r.status is Status.PENDING for r in records) for f, records in written.items()}
    succeeded = {f for f, (r, _) in oracle.items() if r.status is Status.SUCCEEDED}
    given_up = {f for f, (_, gone) in oracle.items() if gone}
    loaded = {r.fingerprint: r for r in table_to_records(ledger.load())}
    assert loaded.keys() == oracle.keys()
    for fingerprint, (counts, gone) in oracle.items():
        for found in (loaded[fingerprint], ledger.get(fingerprint)):
            assert found is not None
            assert (found.status is Status.SUCCEEDED) == (counts.status is Status.SUCCEEDED)
            # Failures that a success hid are forgotten, also where that success is revoked later.
            if revoked[fingerprint] and counts.status is not Status.SUCCEEDED:
                continue
            assert found.finished_at == counts.finished_at
            assert found.quarantined == gone
    assert set(done(ledger)) == succeeded
    told = set(done(ledger, with_quarantined=True))
    assert {f for f in told if not revoked[f]} == {f for f in succeeded | given_up if not revoked[f]}


def what_counts(records: list[Record]) -> tuple[Record, bool]:
    """Of all that was written of a task: what counts, and whether it was given up."""
    revoked_at = max((r.finished_at for r in records if r.status is Status.PENDING), default="")
    left = [r for r in records if r.status is Status.PENDING or r.finished_at > revoked_at]
    best = max(left, key=lambda r: (r.status is Status.SUCCEEDED, r.finished_at))
    return best, best.status is not Status.SUCCEEDED and any(r.quarantined for r in left)


def test_many_compacted_records_are_read_by_range(tmp_path: Path) -> None:
    store = LocalStore(FolderAddress(tmp_path))
    table = records_to_table([record(A)]).take(pa.array([0] * 200_000))
    many = pa.array(sorted(f"{i * 0x9E3779B97F4A7C15 % 2**64:032x}" for i in range(200_000)))
    write_table(store, keys.compacted("many"), table.set_column(0, "fingerprint", many))
    assert len(done_tasks(Ledger(store))) == 200_000
    assert Ledger(store).load("00" * 8 + "00", "00" * 8 + "01").num_rows > 500
