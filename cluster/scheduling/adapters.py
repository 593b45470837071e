"""Which adapters (LoRAs that tasks bring) each replica holds, and which what waits on it will bring.

Nobody tells: what a replica was given is what it holds, the last few of it, as `models.adapters` keeps them. So it may
be wrong of a replica whose adapters are larger than usual, or that was there before its scheduler. Only predictions
depend on it.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from cluster.scheduling.work_table import Floats
from schemas.loras import MOST_KEPT


class Residency:
    """Of all replicas of a plan. `load_s` is what loading one adapter takes. What brings none costs nothing here."""

    def __init__(self, load_s: float, most: int = MOST_KEPT) -> None:
        self.load_s, self._most = load_s, most
        self._held: defaultdict[Hashable, dict[str, None]] = defaultdict(dict)  # the least recently used first
        self._coming: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)  # with how many waiting tasks
        self._where: defaultdict[str, dict[Hashable, None]] = defaultdict(dict)  # who holds or awaits it

    # -- questions -----------------------------------------------------------------------------------------------

    def missing_s(self, replica: Hashable, brings: Sequence[str]) -> float:
        """What loading takes for a task that is queued last."""
        return self.load_s * sum(replica not in self._where.get(one, ()) for one in brings)

    def missing_now_s(self, replica: Hashable, brings: Sequence[str]) -> float:
        """What loading takes for a task that begins now."""
        held = self._held.get(replica, ())
        return self.load_s * sum(one not in held for one in brings)

    def all_missing_s(self, places: Mapping[Hashable, int], brings: Sequence[str]) -> Floats:
        """As `missing_s`, of every replica by its place."""
        found = np.full(len(places), self.load_s * len(brings))
        for one in brings:
            for replica in self._where.get(one, ()):
                found[places[replica]] -= self.load_s
        return found

    def of(self, replica: Hashable) -> tuple[str, ...]:
        """What it holds or awaits."""
        return tuple({**self._held.get(replica, {}), **self._coming.get(replica, {})})

    # -- events --------------------------------------------------------------------------------------------------

    def await_(self, replica: Hashable, brings: Sequence[str]) -> None:
        """A task that brings these waits on the replica."""
        for one in brings:
            self._coming[replica][one] += 1
            self._where[one][replica] = None

    def leave(self, replica: Hashable, brings: Sequence[str]) -> None:
        """It waits there no more."""
        coming = self._coming[replica]
        for one in brings:
            coming[one] -= 1
            if not coming[one]:
                del coming[one]
                self._settle(replica, one)
        if not coming:
            del self._coming[replica]

    def use(self, replica: Hashable, brings: Sequence[str]) -> float:
        """A task that brings these begins; returns what loading takes."""
        seconds = self.missing_now_s(replica, brings)
        held = self._held[replica]
        for one in brings:
            held.pop(one, None)
            held[one] = None
            self._where[one][replica] = None
        while len(held) > max(self._most, len(brings)):
            oldest = next(iter(held))
            del held[oldest]
            self._settle(replica, oldest)
        return seconds

    def gone(self, replica: Hashable) -> None:
        """The replica is, and with it what it held."""
        for one in self.of(replica):
            self._where[one].pop(replica, None)
            if not self._where[one]:
                del self._where[one]
        self._held.pop(replica, None)
        self._coming.pop(replica, None)

    def _settle(self, replica: Hashable, one: str) -> None:
        if one not in self._held.get(replica, ()) and one not in self._coming.get(replica, ()):
            self._where[one].pop(replica, None)
            if not self._where[one]:
                del self._where[one]
