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
    """The run at one moment."""

    pools: tuple[PoolView, ...]
    stop_reason: str | None
    actors_lost: int


@dataclass
class _Work:
    fingerprints: tuple[str, ...]
    rendering: bool = True


class RunMonitor:
    """Book-keeping of one run of so many variants."""

    def __init__(self, variants: int = 1) -> None:
        self._variants = variants
        self._unloadable: set[str] = set()
        self._pools: dict[str, PoolState] = {}
        self._variant_of: dict[str, str] = {}
        self._work: dict[str, dict[str, _Work]] = {}
        self._kills: Counter[str] = Counter()
        self._slices: Counter[str] = Counter()
        self._stop_reason: str | None = None
        self._actors_lost = 0

    def loading(self, actor: str, variant: str) -> None:
        """An actor's process has started and loads its model.

        A second start of the same actor means that the first process died: what it was rendering is charged with a
        kill, or when it rendered nothing, what it was encoding and storing.
        """
        pool = self._pools.setdefault(variant, PoolState())
        if actor in self._variant_of:
            self._actors_lost += 1
            begun = self._work.pop(actor, {}).values()
            for work in [work for work in begun if work.rendering] or begun:
                self._kills.update(work.fingerprints)
            if actor not in pool.ready:
                pool.lost_loads[actor] += 1
                if pool.lost_loads[actor] >= DEAD_LOADS_TO_GIVE_UP:
                    self.stop(f"variant {variant!r}: its process died {pool.lost_loads[actor]} times while loading")
        pool.ready.discard(actor)
        pool.actors.add(actor)
        self._variant_of[actor] = variant

    def loaded(self, actor: str) -> None:
        """The actor's model is loaded."""
        self._pools[self._variant_of[actor]].ready.add(actor)

    def cannot_load(self, variant: str, reason: str) -> bool:
        """An actor cannot load its variant, for good. True when the run goes on with others; the last one ends it."""
        self._unloadable.add(variant)
        if len(self._unloadable) >= self._variants:
            self.stop(reason)
        return self._stop_reason is None

    def stop(self, reason: str) -> None:
        """End the run. The first reason stands."""
        self._stop_reason = self._stop_reason or reason

    def open_slice(self, slice_key: str) -> int:
        """1 the first time that a slice is begun, 2 when Ray hands it out again."""
        self._slices[slice_key] += 1
        return self._slices[slice_key]

    def kills(self, fingerprints: tuple[str, ...]) -> tuple[int, ...]:
        """How many processes each task has cost so far."""
        return tuple(self._kills[f] for f in fingerprints)

    def begin(self, actor: str, work_key: str, fingerprints: tuple[str, ...]) -> None:
        """An actor starts to render these tasks."""
        self._work.setdefault(actor, {})[work_key] = _Work(fingerprints)

    def rendered(self, actor: str, work_key: str) -> None:
        """The model call is over; encoding and storing follow."""
        if work := self._work.get(actor, {}).get(work_key):
            work.rendering = False

    def end(self, actor: str, work_key: str, busy_s: float = 0.0, clips: int = 0, failed: int = 0) -> None:
        """The tasks are stored, or recorded as failed; the accelerator was busy that long."""
        self._work.get(actor, {}).pop(work_key, None)
        pool = self._pools[self._variant_of[actor]]
        pool.busy_s += busy_s
        pool.clips += clips
        pool.failed += failed

    def snapshot(self) -> Snapshot:
        """The state to show and to act on."""
        return Snapshot(
            pools=tuple(
                PoolView(name, len(p.actors), len(p.ready), p.busy_s, p.clips, p.failed)
                for name, p in sorted(self._pools.items())
            ),
            stop_reason=self._stop_reason,
            actors_lost=self._actors_lost,
        )
