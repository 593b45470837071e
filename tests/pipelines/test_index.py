"""The index of fingerprints against the obvious dictionary."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.index import DONE, DUPLICATE, NEW, REPLACE, FingerprintIndex, pack
from storage.done_tasks import DoneTasks, StoredClips


def fingerprint(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


NUMBERS = st.lists(st.integers(0, 30), max_size=20)


def done_tasks(sizes: dict[int, int]) -> DoneTasks:
    order = sorted(sizes, key=fingerprint)
    return DoneTasks(pack(map(fingerprint, order)), np.array([sizes[n] for n in order], np.int64))


def stored(sizes: dict[int, int]) -> StoredClips:
    found = done_tasks(sizes)
    return StoredClips(found.fingerprints, found.clip_bytes)


@given(NUMBERS, st.lists(NUMBERS, max_size=5))
def test_the_index_says_what_a_dictionary_would(done: list[int], chunks: list[list[int]]) -> None:
    index = FingerprintIndex(done_tasks(dict.fromkeys(done, 7)))
    owner: dict[int, int] = {}
    for chunk, numbers in enumerate(chunks):
        expected = []
        for n in numbers:
            if n in done:
                expected.append(DONE)
            elif n in owner:
                expected.append(DUPLICATE)
            else:
                owner[n] = chunk
                expected.append(NEW)
        packed = pack([fingerprint(n) for n in numbers])
        assert index.claim(chunk, packed).tolist() == expected
        assert index.claim(chunk, packed).tolist() == expected, "a planner task that runs twice gets the same answer"
    assert len(index) == len(set(done) | set(owner))


SIZES = st.dictionaries(st.integers(0, 30), st.integers(0, 3), max_size=20)
RECORDED = st.dictionaries(st.integers(0, 30), st.sampled_from([-2, -1, 1, 2, 3]), max_size=20)


@given(RECORDED, SIZES)
def test_a_task_is_done_only_when_its_clip_is_there_as_recorded(
    recorded: dict[int, int], clips: dict[int, int]
) -> None:
    index = FingerprintIndex(done_tasks(recorded), stored(clips))
    for n in range(31):
        size, there = recorded.get(n), clips.get(n)
        if size == -1 or (size == -2 and there) or (size is not None and size == there):
            expected = DONE
        else:
            expected = NEW if size is None and there is None else REPLACE
        assert index.claim(0, pack([fingerprint(n)])).tolist() == [expected]
        assert index.recorded(pack([fingerprint(n)])).tolist() == [size is not None]


@given(RECORDED.filter(bool), st.data())
def test_a_revoked_task_belongs_to_the_first_chunk_that_revokes_it(
    recorded: dict[int, int], data: st.DataObject
) -> None:
    index = FingerprintIndex(done_tasks(recorded))
    one = pack([fingerprint(data.draw(st.sampled_from(sorted(recorded))))])
    index.revoke(3, one)
    index.revoke(4, one)
    assert index.claim(4, one).tolist() == [DUPLICATE]
    assert index.claim(3, one).tolist() == [REPLACE]
