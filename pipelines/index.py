"""Which fingerprints are done, and which chunk of this plan has claimed the others.

Held by one Ray actor during planning, so that neither the driver nor every planner task holds the ledger. Sixteen
bytes a task: ten million tasks are 160 MB.
"""

import numpy as np
import numpy.typing as npt

NEW, DUPLICATE, DONE = 0, 1, 2

_OWNED_BY_LEDGER = -1


def pack(fingerprints: list[str]) -> npt.NDArray[np.void]:
    """Hexadecimal fingerprints as an array of 16-byte values."""
    return np.frombuffer(bytes.fromhex("".join(fingerprints)), dtype="V16")


class FingerprintIndex:
    """A sorted array of fingerprints with the chunk that owns each."""

    def __init__(self, done: npt.NDArray[np.void] | None = None) -> None:
        keys = np.unique(_sortable(done)) if done is not None else np.empty(0, dtype="S16")
        self._keys = keys
        self._owners = np.full(len(keys), _OWNED_BY_LEDGER, dtype=np.int32)

    def claim(self, chunk: int, fingerprints: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
        """NEW, DUPLICATE or DONE for each fingerprint of a chunk.

        The first of equal ones inside the chunk is NEW. Asking again for the same chunk gives the same answer, since
        Ray may run a planner task twice.
        """
        wanted = _sortable(fingerprints)
        unique, first = np.unique(wanted, return_index=True)
        at = np.searchsorted(self._keys, unique)
        known = at < len(self._keys)
        known[known] = self._keys[at[known]] == unique[known]
        owner = np.full(len(unique), chunk, dtype=np.int32)
        owner[known] = self._owners[at[known]]
        fresh = ~known
        self._keys = np.insert(self._keys, at[fresh], unique[fresh])
        self._owners = np.insert(self._owners, at[fresh], chunk)
        verdict = np.full(len(wanted), DUPLICATE, dtype=np.uint8)
        verdict[first[owner == chunk]] = NEW
        done = unique[owner == _OWNED_BY_LEDGER]
        if len(done):
            verdict[np.isin(wanted, done)] = DONE
        return verdict

    def __len__(self) -> int:
        return len(self._keys)


def _sortable(values: npt.NDArray[np.void]) -> npt.NDArray[np.bytes_]:
    # Void arrays do not sort; byte strings do. Their equality ignores trailing zero bytes, which two 16-byte
    # values of equal length cannot differ by alone.
    return np.ascontiguousarray(values).view("S16")
