"""What the actors of a run tell each other and the driver: who renders what, who died over what, what to stop for.

One instance lives in a Ray actor of its own beside the driver; this class knows no Ray and no clock.
"""

from collections import Counter
from dataclasses import dataclass, field

KILLS_TO_QUARANTINE = 2
DEAD_LOADS_TO_GIVE_UP = 2


@dataclass
class PoolState:
    """One variant's pool."""

    actors: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    busy_s: float = 0.0
    clips: int = 0
    failed: int = 0
    load_s: float = 0.0
    lost_loads: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class PoolView:
    """A pool, as the driver shows it."""

    variant: str
    actors: int
    ready: int
    busy_s: float
    clips: int
    failed: int


@dataclass(frozen=True)
class Snapshot:
    """The run at one moment. `stalled` are actors whose batch has shown no step since the timeout."""

    pools: tuple[PoolView, ...]
    stop_reason: str | None
    stalled: tuple[str, ...]
    actors_lost: int


@dataclass
class _Work:
    fingerprints: tuple[str, ...]
    alive_at_s: float


class RunMonitor:
    """Book-keeping of one run. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._pools: dict[str, PoolState] = {}
        self._variant_of: dict[str, str] = {}
        self._handles: dict[str, object] = {}
        self._work: dict[str, dict[str, _Work]] = {}
        self._kills: Counter[str] = Counter()
        self._slices: Counter[str] = Counter()
        self._stop_reason: str | None = None
        self._actors_lost = 0

    def loading(self, actor: str, variant: str, handle: object = None) -> None:
        """An actor's process has started and loads its model. A second start of the same actor means that the first
        process died: whatever it had begun is charged with a kill."""
        pool = self._pools.setdefault(variant, PoolState())
        if actor in self._variant_of:
            self._actors_lost += 1
            for work in self._work.pop(actor, {}).values():
                self._kills.update(work.fingerprints)
            if actor not in pool.ready:
                pool.lost_loads[actor] += 1
                if pool.lost_loads[actor] >= DEAD_LOADS_TO_GIVE_UP:
                    self.stop(f"variant {variant!r}: its process died {pool.lost_loads[actor]} times while loading")
        pool.ready.discard(actor)
        pool.actors.add(actor)
        self._variant_of[actor] = variant
        self._handles[actor] = handle

    def handle_of(self, actor: str) -> object:
        """Whatever the actor gave to be reached by."""
        return self._handles[actor]

    def loaded(self, actor: str, load_s: float) -> None:
        """The actor's model is loaded."""
        pool = self._pools[self._variant_of[actor]]
        pool.ready.add(actor)
        pool.load_s += load_s

    def stop(self, reason: str) -> None:
        """End the run. The first reason stands."""
        self._stop_reason = self._stop_reason or reason

    def open_slice(self, slice_key: str) -> int:
        """1 the first time that a slice is begun, 2 when Ray hands it out again."""
        self._slices[slice_key] += 1
        return self._slices[slice_key]

    def begin(self, actor: str, work_key: str, fingerprints: tuple[str, ...], now_s: float) -> tuple[int, ...]:
        """An actor starts on these tasks. Returns how many processes each has cost so far."""
        self._work.setdefault(actor, {})[work_key] = _Work(fingerprints, now_s)
        return tuple(self._kills[f] for f in fingerprints)

    def alive(self, actor: str, work_key: str, now_s: float) -> None:
        """A denoising step is done."""
        if work := self._work.get(actor, {}).get(work_key):
            work.alive_at_s = now_s

    def end(self, actor: str, work_key: str, busy_s: float) -> None:
        """The tasks are rendered and stored, or recorded as failed; the accelerator was busy that long."""
        self._work.get(actor, {}).pop(work_key, None)
        self._pools[self._variant_of[actor]].busy_s += busy_s

    def count(self, actor: str, clips: int, failed: int) -> None:
        """Clips stored and tasks failed, for the progress view."""
        pool = self._pools[self._variant_of[actor]]
        pool.clips += clips
        pool.failed += failed

    def snapshot(self, now_s: float, stall_timeout_s: float) -> Snapshot:
        """The state to show and to act on."""
        return Snapshot(
            pools=tuple(
                PoolView(name, len(p.actors), len(p.ready), p.busy_s, p.clips, p.failed)
                for name, p in sorted(self._pools.items())
            ),
            stop_reason=self._stop_reason,
            stalled=tuple(
                actor
                for actor, works in self._work.items()
                if any(now_s - work.alive_at_s > stall_timeout_s for work in works.values())
            ),
            actors_lost=self._actors_lost,
        )
