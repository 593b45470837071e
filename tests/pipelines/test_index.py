"""The index of fingerprints against the obvious dictionary."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from pipelines.index import DONE, DUPLICATE, NEW, FingerprintIndex, pack


def fingerprint(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


NUMBERS = st.lists(st.integers(0, 30), max_size=20)


@given(NUMBERS, st.lists(NUMBERS, max_size=5))
def test_the_index_says_what_a_dictionary_would(done: list[int], chunks: list[list[int]]) -> None:
    index = FingerprintIndex(pack([fingerprint(n) for n in done]))
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
