"""A replica on the virtual clock: the protocol of `serve.dispatch.messages`, with time and pixels made up.

It pulls, says what it begins, renders, publishes while it asks for the next batch, beats, and keeps its results until
somebody has taken them, as the real worker does.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.clip import Clip, Status, Timings
from serve.dispatch.messages import WAITING, Beat, Begun, Ended, Hello, Results, Work
from serve.store.contract import Progress
from serve.tasks import Lease, Outcome

if TYPE_CHECKING:
    from tests.simulation.world import World

_PUBLISH_S, _AGAIN_S, _BEAT_S, _KEPT_S = 0.3, 1.0, 1.0, 900.0


@dataclass
class _Held:
    lease: Lease
    stage: str = WAITING


@dataclass
class Replica:
    """One process. `until_s`: frozen until then."""

    world: "World"
    name: str
    variant: str
    alive: bool = True
    until_s: float = 0.0
    held: dict[str, _Held] = field(default_factory=dict)
    queue: list[Work] = field(default_factory=list)
    rendering: bool = False
    unwanted: set[str] = field(default_factory=set)
    pulling: bool = False
    publishing: int = 0

    def start(self) -> None:
        self._beat()
        self._pull()

    def kill(self) -> None:
        self.alive = False
        self.world.replica_died(self)

    # -- pulling -------------------------------------------------------------------------------------------------

    def _pull(self) -> None:
        if not self.alive or self.pulling or self.queue:
            return
        if self._frozen(self._pull):
            return
        self.pulling = True
        hello = Hello(self.name, self.variant, 1.0, tuple(held.lease for held in self.held.values()))
        self.world.call(lambda driver: driver.pull(hello), self._pulled, self._pull_failed)

    def _pulled(self, work: Work | None) -> None:
        self.pulling = False
        if not self.alive:
            return
        if work is None:
            if not self.rendering:
                self.world.after(0.7, self._pull)
            return
        for lease in work.leases:
            self.held[lease.task_id] = _Held(lease)
            self.unwanted.discard(lease.task_id)
        self.queue.append(work)
        self._next()

    def _pull_failed(self) -> None:
        self.pulling = False
        self.world.after(0.5, self._pull)

    def woken(self) -> None:
        """A batch is ready."""
        if not self.rendering:
            self._pull()

    # -- rendering -----------------------------------------------------------------------------------------------

    def _next(self) -> None:
        if not self.alive or self.rendering or not self.queue or self.publishing > 1:
            return
        if self._frozen(self._next):
            return
        work = self.queue.pop(0)
        self.rendering = True
        said = Begun(self.name, frozenset((lease.task_id, lease.epoch) for lease in work.leases))
        self.world.call(lambda driver: driver.begun(said), lambda _: None, lambda: None)
        for lease in work.leases:
            self.world.began(lease)
            self.held[lease.task_id] = _Held(lease, "rendering")
        render_s = self.world.render_s(work)
        if any(self.world.is_poison(lease.task_id) for lease in work.leases):
            self.world.after(0.3 * render_s, self.kill)
        self.world.after(render_s, lambda: self._rendered(work, render_s))

    def _rendered(self, work: Work, render_s: float) -> None:
        if not self.alive:
            return
        if self._frozen(lambda: self._rendered(work, render_s)):
            return
        self.rendering = False
        self.publishing += 1
        self.world.busy_s += render_s
        for lease in work.leases:
            if lease.task_id in self.held:
                self.held[lease.task_id].stage = "encoding"
        self.world.after(_PUBLISH_S, lambda: self._publish(work, render_s, 0))
        self._pull()
        self._next()

    # -- publishing ----------------------------------------------------------------------------------------------

    def _publish(self, work: Work, render_s: float, tries: int) -> None:
        if not self.alive:
            return
        if self._frozen(lambda: self._publish(work, render_s, tries)):
            return
        world = self.world
        if world.clips_are_away() and tries < 5:
            world.after(_AGAIN_S, lambda: self._publish(work, render_s, tries + 1))
            return
        ended = []
        for lease in work.leases:
            if lease.task_id in self.unwanted:
                ended.append(Ended(lease, Outcome(status=Status.CANCELLED, variant=self.variant)))
            elif world.clips_are_away():
                ended.append(Ended(lease, None, "the object store is away", "StoreError", blameless=True))
            elif world.fails(lease):
                ended.append(Ended(lease, None, "no memory", "OutOfMemoryError"))
            else:
                ended.append(Ended(lease, self._clip(lease, render_s / len(work.leases))))
        self._tell(Results(self.name, work.batch.group, tuple(ended), render_s), world.elapsed_s)

    def _clip(self, lease: Lease, billed_s: float) -> Outcome:
        uri = self.world.put_clip(lease)
        clip = Clip(uri=uri, sha256="0" * 64, clip_bytes=1, width=64, height=64, frames=17, fps=8.0)
        return Outcome(
            status=Status.SUCCEEDED,
            variant=self.variant,
            clip=clip,
            timings=Timings(render_s=billed_s),
            billed_usd=billed_s,
            billed_gpu_s=billed_s,
        )

    def _tell(self, results: Results, since_s: float) -> None:
        if not self.alive:
            return
        if self._frozen(lambda: self._tell(results, since_s)):
            return

        def again() -> None:
            if self.world.elapsed_s - since_s < _KEPT_S:
                self.world.after(_AGAIN_S, lambda: self._tell(results, since_s))
            else:
                self._told(results)

        self.world.call(lambda driver: driver.done(results), lambda _: self._told(results), again)

    def _told(self, results: Results) -> None:
        if not self.alive:
            return
        self.publishing -= 1
        for ended in results.ended:
            held = self.held.get(ended.lease.task_id)
            if held is not None and held.lease.epoch == ended.lease.epoch:
                del self.held[ended.lease.task_id]
        self._next()
        if not self.rendering:
            self._pull()

    # -- heartbeats ----------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        if not self.alive:
            return
        self.world.after(_BEAT_S, self._beat)
        if self.world.elapsed_s < self.until_s:
            return
        held = tuple(Progress(x.lease.task_id, x.lease.epoch, 0.5, x.stage) for x in self.held.values())
        told = {at.task_id: at.epoch for at in held}

        def answered(unwanted: tuple[str, ...]) -> None:
            for task_id in unwanted:
                now = self.held.get(task_id)
                if now is not None and now.lease.epoch == told.get(task_id):
                    self.unwanted.add(task_id)

        self.world.call(lambda driver: driver.beat(Beat(self.name, held, self.variant)), answered, lambda: None)

    def _frozen(self, later: object) -> bool:
        """Whether the process stands still; then `later` is done when it goes on."""
        wait_s = self.until_s - self.world.elapsed_s
        if wait_s <= 0:
            return False
        self.world.after(wait_s + 0.01, later)  # type: ignore[arg-type]
        return True
