"""A broker over a real store, with replicas that are only names: who renders what, when, and after what."""

from dataclasses import dataclass, field

from schemas.catalog import Catalog
from schemas.clip import Clip, Status, Timings
from schemas.request import Request
from serve.admission.admission import Admission
from serve.config import ServeConfig
from serve.dispatch.driver import SchedulerDriver
from serve.dispatch.fleet import NOTE, FleetReport
from serve.dispatch.messages import Beat, Begun, Ended, Hello, Results, Work
from serve.store.contract import Progress, Store
from serve.tasks import Constraints, Outcome, StoredTask
from tests.pipelines.catalogs import TWO_VARIANTS

CATALOG = TWO_VARIANTS.replace('aliases = ["petit"]', 'aliases = ["petit"]\nfallbacks = ["swift"]')
START = 1_700_000_000.0


@dataclass
class Clock:
    at: float = START

    def __call__(self) -> float:
        return self.at


@dataclass
class Endpoint:
    """One broker, restartable, over a store that stays."""

    store: Store
    config: ServeConfig
    served: Catalog
    clock: Clock = field(default_factory=Clock)
    woken: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.driver = self.started()

    def started(self) -> SchedulerDriver:
        told = {"on_work": self.woken.append, "on_cancelled": self.leftovers.append}
        return SchedulerDriver(self.config, self.served, self.store, now=self.clock, steady=self.clock, **told)

    def submit(self, count: int = 1, variant: str = "small", key: str = "key-a", **other: object) -> list[StoredTask]:
        limits = {name: other.pop(name) for name in list(other) if name in Constraints.model_fields}
        admission = Admission(self.config, self.served, None, self.clock)
        tasks = [
            admission.consider(
                Request.model_validate({"variant": variant, "prompt": f"prompt {n}"} | other),
                Constraints.model_validate(limits),
                key_id=key,
            ).as_task(key_id=key, kind="text_to_video", model=variant)
            for n in range(count)
        ]
        most = self.config.limits.max_concurrent
        stored = list(self.store.tasks.submit(tasks, self.clock.at, max_live=most).tasks)
        self.driver.pump()
        return stored

    def after(self, seconds: float) -> None:
        """Time passes, and the dispatcher looks around meanwhile."""
        until = self.clock.at + seconds
        while self.clock.at < until:
            self.clock.at = min(until, self.clock.at + max(1.0, seconds / 100))
            self.driver.pump()

    def pull(self, replica: str = "r1", variant: str = "small", *, begin: bool = True) -> Work | None:
        """What the replica gets, and begins."""
        work = self.driver.pull(Hello(replica, variant, 1.0))
        if work is not None and begin:
            self.begin(work, replica)
        return work

    def begin(self, work: Work, replica: str = "r1") -> None:
        self.driver.begun(Begun(replica, frozenset((lease.task_id, lease.epoch) for lease in work.leases)))

    def beat(self, work: Work, replica: str = "r1", stage: str = "rendering") -> tuple[str, ...]:
        progress = tuple(Progress(lease.task_id, lease.epoch, 0.5, stage) for lease in work.leases)
        return self.driver.beat(Beat(replica, progress, work.batch.group.variant))

    def finish(self, work: Work, replica: str = "r1", **other: object) -> None:
        ended = tuple(Ended(lease, succeeded(work.batch.group.variant)) for lease in work.leases)
        self.driver.done(Results(replica, work.batch.group, ended, 1.0))

    def report(self) -> FleetReport:
        """The last that was noted."""
        found = FleetReport.read(self.store.notes.read(NOTE))
        assert found is not None
        return found

    def stored_by_id(self, task_id: str) -> StoredTask:
        found = self.store.tasks.get(task_id)
        assert found is not None
        return found

    def stored(self, task: StoredTask) -> StoredTask:
        return self.stored_by_id(task.id)

    def statuses(self, tasks: list[StoredTask]) -> list[Status]:
        return [self.stored(task).status for task in tasks]


def succeeded(variant: str) -> Outcome:
    clip = Clip(uri="file:///clip.mp4", sha256="0" * 64, clip_bytes=1, width=64, height=64, frames=17, fps=8.0)
    return Outcome(status=Status.SUCCEEDED, variant=variant, clip=clip, timings=Timings(render_s=1.0), billed_usd=0.01)


def silent_then_another(endpoint: Endpoint) -> tuple[Work, Work]:
    """What `r1` pulled and kept for longer than its lease, and what `r2` then got."""
    stale = endpoint.pull("r1")
    assert stale is not None
    endpoint.after(endpoint.config.queue.lease_s + 1)
    endpoint.after(endpoint.config.queue.retry_base_s + 1)
    fresh = endpoint.pull("r2")
    assert fresh is not None
    return stale, fresh
