"""Which fingerprints are done, and which chunk of this plan has claimed the others.

Held by one Ray actor during planning, so that neither the driver nor every planner task holds the ledger. A few dozen
bytes a task: ten million tasks are some hundred megabytes.

A task is done when its record says so *and* its clip is there with the bytes that were recorded. A clip that is there
without such a record is not to be trusted: it is replaced.
"""

import numpy as np
import numpy.typing as npt

from storage.done_tasks import DoneTasks, StoredClips, pack

NEW, DUPLICATE, DONE, REPLACE = 0, 1, 2, 3

_OWNED_BY_LEDGER = -1

__all__ = ["DONE", "DUPLICATE", "NEW", "REPLACE", "FingerprintIndex", "pack"]


class FingerprintIndex:
    """A sorted array of fingerprints with the chunk that owns each.

    Without `clips` records are believed as they stand.
    """

    def __init__(self, done: DoneTasks | None = None, clips: StoredClips | None = None) -> None:
        self._sha256: npt.NDArray[np.bytes_] | None = None
        self._recorded = done.fingerprints if done is not None else pack(())
        self._untrusted = pack(())
        keep = np.ones(len(self._recorded), dtype=bool)
        if done is not None and clips is not None:
            keep = _as_recorded(done, clips)
            believed = _is_in(clips.fingerprints, self._recorded[keep])
            self._untrusted = np.union1d(clips.fingerprints[~believed], self._recorded[~keep])
        elif clips is not None:
            self._untrusted = np.unique(clips.fingerprints)
        self._keys = self._recorded[keep]
        if done is not None and done.sha256 is not None:
            self._sha256 = done.sha256
        self._owners = np.full(len(self._keys), _OWNED_BY_LEDGER, dtype=np.int32)

    def claim(self, chunk: int, fingerprints: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint8]:
        """NEW, REPLACE, DUPLICATE or DONE for each fingerprint of a chunk. REPLACE is new too, and what is stored of it
        must go first.

        The first of equal ones inside the chunk is the new one. Asking again for the same chunk gives the same answer,
        since Ray may run a planner task twice.
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
        mine = owner == chunk
        verdict[first[mine]] = np.where(_is_in(unique[mine], self._untrusted), REPLACE, NEW)
        done = unique[owner == _OWNED_BY_LEDGER]
        if len(done):
            verdict[np.isin(wanted, done)] = DONE
        return verdict

    def recorded(self, fingerprints: npt.NDArray[np.bytes_]) -> npt.NDArray[np.bool_]:
        """Which of them the ledger calls done, whether their clips are there or not."""
        return _is_in(_sortable(fingerprints), self._recorded)

    def sha256(self, fingerprints: npt.NDArray[np.bytes_]) -> list[str]:
        """The digests that were recorded of clips that are done, '' where there is none."""
        if self._sha256 is None:
            return [""] * len(fingerprints)
        at = np.searchsorted(self._recorded, _sortable(fingerprints))
        return [bytes(digest).ljust(32, b"\0").hex() if digest else "" for digest in self._sha256[at]]

    def revoke(self, chunk: int, fingerprints: npt.NDArray[np.bytes_]) -> None:
        """Their clips are not what was recorded: they become tasks of the chunk, unless another one has them."""
        wanted = np.unique(_sortable(fingerprints))
        at = np.searchsorted(self._keys, wanted)
        ours = at[self._owners[at] == _OWNED_BY_LEDGER]
        self._owners[ours] = chunk
        self._untrusted = np.union1d(self._untrusted, wanted)

    def __len__(self) -> int:
        return len(self._keys)


def _as_recorded(done: DoneTasks, clips: StoredClips) -> npt.NDArray[np.bool_]:
    """For every done task: whether its clip is there, whole as far as its size tells. Tasks given up need none."""
    if not len(clips.fingerprints):
        return done.clip_bytes == -1
    at = np.minimum(np.searchsorted(clips.fingerprints, done.fingerprints), len(clips.fingerprints) - 1)
    there = clips.fingerprints[at] == done.fingerprints
    size = clips.clip_bytes[at]
    same = np.where(done.clip_bytes == -2, size > 0, size == done.clip_bytes)
    return (done.clip_bytes == -1) | (there & same)


def _is_in(values: npt.NDArray[np.bytes_], among: npt.NDArray[np.bytes_]) -> npt.NDArray[np.bool_]:
    """Which values are among some sorted ones."""
    if not len(among):
        return np.zeros(len(values), dtype=bool)
    at = np.minimum(np.searchsorted(among, values), len(among) - 1)
    found: npt.NDArray[np.bool_] = among[at] == values
    return found


def _sortable(values: npt.NDArray[np.bytes_]) -> npt.NDArray[np.bytes_]:
    # Void arrays do not sort; byte strings do. Their equality ignores trailing zero bytes, which two 16-byte
    # values of equal length cannot differ by alone.
    return np.ascontiguousarray(values).view("S16")
