"""The task store in memory, as the dispatcher reaches it: writes that fail, and writes of which nobody knows."""

from collections.abc import Callable
from random import Random
from typing import Any

from serve.errors import StoreUnavailableError
from serve.store.memory import MemoryStore
from tests.simulation.faults import Faults

_READS = frozenset(
    {
        "get",
        "get_many",
        "positions",
        "pending",
        "live_index",
        "waiting_again",
        "expired",
        "throttled_keys",
        "counts",
        "recent",
        "usage",
        "running",
        "media_in_use",
        "read",
        "read_many",
        "due",
    }
)


class FaultyStore:
    """One connection to a `MemoryStore` that stays."""

    def __init__(self, store: MemoryStore, faults: Faults, random: Random, elapsed_s: Callable[[], float]) -> None:
        self._faults, self._random, self._elapsed_s = faults, random, elapsed_s
        self.failed = 0
        self.tasks: Any = _Faulty(store.tasks, self)
        self.notes: Any = _Faulty(store.notes, self)
        self.deliveries: Any = _Faulty(store.deliveries, self)
        self.keys: Any = _Faulty(store.keys, self)
        self.batches: Any = _Faulty(store.batches, self)

    def fate(self, name: str) -> str:
        """What becomes of a call: done, refused, or done and not known."""
        at_s, faults = self._elapsed_s(), self._faults
        if at_s >= faults.quiet_s:
            return "done"
        if any(window.holds(at_s) for window in faults.store_away):
            return self._counted("refused")
        if name in _READS:
            return "done"
        draw = self._random.random()
        if draw < faults.write_fails:
            return self._counted("refused")
        return self._counted("unknown") if draw < faults.write_fails + faults.write_unknown else "done"

    def _counted(self, fate: str) -> str:
        self.failed += 1
        return fate


class _Faulty:
    def __init__(self, inner: object, owner: FaultyStore) -> None:
        self._inner, self._owner = inner, owner

    def __getattr__(self, name: str) -> object:
        method = getattr(self._inner, name)
        owner = self._owner

        def call(*args: object, **named: object) -> object:
            fate = owner.fate(name)
            if fate == "refused":
                raise StoreUnavailableError(f"{name}: the store is away")
            answer = method(*args, **named)
            if fate == "unknown":
                raise StoreUnavailableError(f"{name}: the connection was lost")
            return answer

        call.__name__ = name
        self.__dict__[name] = call
        return call
