"""Keys say what they hold, and no name leads out of its folder."""

import pytest

from storage import keys
from storage.address import checked_key

F = "ab12" * 8


def test_a_clip_stands_beside_its_poster() -> None:
    assert keys.clip("ltx", F) == f"clips/ltx/ab/{F}.mp4"
    assert keys.poster("ltx", F) == f"clips/ltx/ab/{F}.poster.jpg"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../etc", "größe 1", "a%2Fb"])
def test_any_name_is_one_part_of_a_key(name: str) -> None:
    assert checked_key(keys.clip(name, F)).count("/") == 3
    assert checked_key(keys.results_part(name, 3)).endswith("/part-00003.parquet")


def test_different_names_have_different_keys() -> None:
    names = ["a/b", "a%2Fb", "a b", "..", "%2E%2E", "a.b"]
    assert len({keys.clip(name, F) for name in names}) == len(names)


def test_the_key_of_a_record_says_what_became_of_the_task() -> None:
    done, tried = keys.succeeded_record(F), keys.tried_record(F, "cafe")
    given_up = keys.tried_record(F, "cafe", "quarantined")
    assert [keys.fingerprint_of_record(key) for key in (done, tried, given_up)] == [F, F, F]
    assert [keys.is_succeeded_record(key) for key in (done, tried, given_up)] == [True, False, False]
    assert [keys.is_quarantined_record(key) for key in (done, tried, given_up)] == [False, False, True]
    assert all(key.startswith(keys.record_prefix(F)) for key in (done, tried, given_up))


@pytest.mark.parametrize("key", ["ledger/records/ab/README", "ledger/compacted/x.parquet", f"clips/v/ab/{F}.json"])
def test_other_keys_are_no_records(key: str) -> None:
    assert keys.fingerprint_of_record(key) is None
    assert not keys.is_succeeded_record(key)
