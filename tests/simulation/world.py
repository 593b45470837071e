"""One seeded run of the dispatcher on a virtual clock: the real driver and scheduler, a store in memory, replicas that
only pretend to render.

Everything that happens follows from the seed. `run` ends when every accepted task has ended, or at the bound within
which it should have, and returns what was broken.
"""

import heapq
import itertools
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cluster.scheduling.attempts import LOST
from schemas.catalog import Catalog
from schemas.clip import Status
from serve.config import Pools, Queue, ServeConfig
from serve.dispatch.driver import SchedulerDriver
from serve.dispatch.messages import Work
from serve.errors import StoreUnavailableError
from serve.observability.metrics import DispatchMetrics
from serve.store.memory import MemoryStore
from serve.tasks import Lease, NewTask, StoredTask
from tests.simulation.faults import Faults
from tests.simulation.store import FaultyStore
from tests.simulation.tasks import LORAS, Templates
from tests.simulation.worker import Replica

START = 1_700_000_000.0
LEASE_S = 4.0
_PUMP_S, _SIZES_S, _RESTART_S, _START_S, _DOWN_S = 0.25, 1.0, 2.0, 4.0, 1.5
_GRACE_S = 240.0  # after the last fault: leases run out, pauses of retries end, replicas start


class _Metrics(DispatchMetrics):
    """Counts retries by cause, over all dispatchers of a run."""

    def __init__(self, retries: Counter[str]) -> None:
        super().__init__()
        self._retries_by_cause = retries

    def retried(self, cause: str) -> None:
        super().retried(cause)
        self._retries_by_cause[cause] += 1


@dataclass(frozen=True)
class Violation:
    """What was broken, and for which task."""

    what: str
    task_id: str = ""

    def __str__(self) -> str:
        return f"{self.what}" + (f" (task {self.task_id})" if self.task_id else "")


@dataclass
class Result:
    """One run."""

    seed: int
    tasks: int
    faults: int
    violations: list[Violation]
    simulated_s: float


@dataclass
class World:
    """The state of a run."""

    seed: int
    faults: Faults
    driver_class: type[SchedulerDriver] = SchedulerDriver
    elapsed_s: float = 0.0
    busy_s: float = 0.0
    violations: list[Violation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(f"world {self.seed}")
        self.chance = Random(f"network {self.seed}")
        self._jump_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.templates = Templates.shared()
        self.config = ServeConfig(
            out="memory",
            loras=LORAS,
            queue=Queue(lease_s=LEASE_S, heartbeat_s=1.0, retry_base_s=0.5),
            pools=Pools(variants=("small", "swift"), min_replicas={"swift": 0}, max_replicas={"small": 2, "swift": 1}),
        )
        self.served = self.templates.served
        self.inner = MemoryStore()
        self.store: Any = None
        self.driver: SchedulerDriver | None = None
        self.replicas: dict[str, Replica] = {}
        self.targets: dict[str, int] = {"small": 1, "swift": 0}
        self.accepted: list[str] = []
        self.clips: dict[str, set[int]] = {}
        self.removed: set[str] = set()
        self.begins: Counter[str] = Counter()
        self.poisonous: set[str] = set()
        self.starting: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()

    # -- the clock -----------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The wall's, which may jump."""
        return START + self.elapsed_s + self._jump_s

    def steady(self) -> float:
        return self.elapsed_s

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.elapsed_s + max(0.0, seconds), next(self._number), then))

    def at(self, at_s: float, then: Callable[[], None]) -> None:
        self.after(at_s - self.elapsed_s, then)

    # -- the network -----------------------------------------------------------------------------------------------

    def call(
        self, ask: Callable[[SchedulerDriver], Any], on_answer: Callable[[Any], None], on_error: Callable[[], None]
    ) -> None:
        """A message and its answer, either of which may be lost, doubled, late, or out of order."""
        faults, quiet = self.faults, self.elapsed_s >= self.faults.quiet_s
        draw = self.chance.random

        def latency_s() -> float:
            late = not quiet and draw() < faults.delay
            return 0.01 + (draw() * faults.longest_delay_s if late else 0.0)

        lost = not quiet and draw() < faults.lose_request
        times = 2 if not quiet and draw() < faults.double else 1
        answered = [False]

        def failed() -> None:
            if not answered[0]:
                answered[0] = True
                on_error()

        def deliver() -> None:
            driver = self.driver
            if driver is None:
                self.after(0.01, failed)
                return
            try:
                answer = ask(driver)
            except StoreUnavailableError:
                self.after(0.01, failed)
                return
            except Exception:
                self.violations.append(Violation(f"a message raised:\n{traceback.format_exc()}"))
                self.after(0.01, failed)
                return
            if not quiet and draw() < faults.lose_reply:
                return

            def reply() -> None:
                if not answered[0]:
                    answered[0] = True
                    on_answer(answer)

            self.after(latency_s(), reply)

        if not lost:
            for _ in range(times):
                self.after(latency_s(), deliver)
        self.after(3.0 + faults.longest_delay_s, failed)

    # -- the dispatcher --------------------------------------------------------------------------------------------

    def start_driver(self) -> None:
        self.store = FaultyStore(self.inner, self.faults, self.chance, lambda: self.elapsed_s)
        try:
            self.driver = self.driver_class(
                self.config,
                self.served,
                self.store,
                metrics=_Metrics(self.retries),
                on_work=self._woken,
                on_cancelled=self._remove_clip,
                now=self.now,
                steady=self.steady,
            )
        except StoreUnavailableError:
            self.driver = None
            self.after(_DOWN_S, self.start_driver)
            return
        self._pump(self.driver)
        self._size(self.driver)

    def restart_driver(self, without: str | None = None) -> None:
        self.driver = None
        if without is not None:
            kept = {name: variant for name, variant in self.served.variants.items() if name != without}
            self.served = Catalog(variants={name: v.model_copy(update={"fallbacks": ()}) for name, v in kept.items()})
            for replica in [r for r in self.replicas.values() if r.variant == without]:
                replica.kill()
            self.targets.pop(without, None)
        self.after(_DOWN_S, self.start_driver)

    def _pump(self, driver: SchedulerDriver) -> None:
        if driver is not self.driver:
            return
        pause_s = _PUMP_S
        try:
            driver.pump()
        except StoreUnavailableError:
            pause_s = 1.0
        except Exception:
            self.violations.append(Violation(f"the pump raised:\n{traceback.format_exc()}"))
            pause_s = 1.0
        self.after(pause_s, lambda: self._pump(driver))

    def _size(self, driver: SchedulerDriver) -> None:
        if driver is not self.driver:
            return
        self.after(_SIZES_S, lambda: self._size(driver))
        if self.elapsed_s > 3.0:
            self.targets.update(driver.sizes(0, 3))
        for variant, count in self.targets.items():
            mine = [replica for replica in self.replicas.values() if replica.variant == variant]
            for _ in range(count - len(mine) - self.starting[variant]):
                self.starting[variant] += 1
                self.after(_START_S, lambda variant=variant: self._started(variant))
            for replica in mine[count:] if len(mine) > count else ():
                if not replica.held:
                    self._leaves(replica)

    def _leaves(self, replica: Replica) -> None:
        replica.alive = False
        self.replicas.pop(replica.name, None)
        self.call(lambda driver: driver.gone(replica.name), lambda _: None, lambda: None)

    def _started(self, variant: str) -> None:
        self.starting[variant] -= 1
        if variant in self.targets:
            replica = Replica(self, f"{variant}-{next(self._number)}", variant)
            self.replicas[replica.name] = replica
            replica.start()

    def replica_died(self, replica: Replica) -> None:
        if self.replicas.pop(replica.name, None) is not None and replica.variant in self.targets:
            self.starting[replica.variant] += 1
            self.after(_RESTART_S + _START_S, lambda: self._started(replica.variant))

    def _woken(self, name: str) -> None:
        replica = self.replicas.get(name)
        if replica is not None:
            self.after(0.01, replica.woken)

    # -- tasks -----------------------------------------------------------------------------------------------------

    def accept(self, task: NewTask, *, wakes: bool) -> None:
        """An ingress stores a task and tells its client; then it may die before it wakes the dispatcher."""
        (stored,) = self.inner.tasks.submit([task], self.now(), max_live=6).tasks
        self.accepted.append(stored.id)
        driver = self.driver
        if wakes and driver is not None:
            self.after(0.01, lambda: self._wake(driver))
        if self.random.random() < self.faults.cancels:
            self.after(self.random.uniform(0.0, 20.0), lambda: self._cancel(stored.id))
        if self.random.random() < self.faults.poison:
            self.poisonous.add(stored.id)

    def _wake(self, driver: SchedulerDriver) -> None:
        if driver is self.driver:
            try:
                driver.pump()
            except StoreUnavailableError:
                return
            except Exception:
                self.violations.append(Violation(f"the pump raised:\n{traceback.format_exc()}"))

    def _cancel(self, task_id: str) -> None:
        self.inner.tasks.cancel(task_id, None, self.now())

    def is_poison(self, task_id: str) -> bool:
        return task_id in self.poisonous

    def fails(self, lease: Lease) -> bool:
        """Whether this attempt fails, and another one may not."""
        return Random(f"{self.seed} {lease.task_id} {lease.attempt}").random() < self.faults.transient

    def render_s(self, work: Work) -> float:
        return self.faults.slow * self.random.uniform(0.5, 2.0) * (1 + 0.2 * len(work.leases))

    def began(self, lease: Lease) -> None:
        self.begins[lease.task_id] += 1

    # -- clips -----------------------------------------------------------------------------------------------------

    def clips_are_away(self) -> bool:
        return any(window.holds(self.elapsed_s) for window in self.faults.clips_away)

    def put_clip(self, lease: Lease) -> str:
        """Once under the task's own key: a second attempt finds it there."""
        self.clips.setdefault(lease.task_id, set()).add(lease.epoch)
        return f"memory://tasks/{lease.task_id}/clip.mp4"

    def _remove_clip(self, task_id: str) -> None:
        self.clips.pop(task_id, None)

    # -- the run -----------------------------------------------------------------------------------------------------

    def run(self, tasks: int = 24) -> Result:
        self.start_driver()
        faults, random = self.faults, self.random
        for _ in range(tasks):
            at_s = random.uniform(0.0, faults.quiet_s)
            task = self.templates.task(random)
            wakes = random.random() >= faults.no_wake
            self.at(at_s, lambda task=task, wakes=wakes: self.accept(task, wakes=wakes))
        for at_s in faults.kills:
            self.at(at_s, self._kill_one)
        for window in faults.freezes:
            self.at(window.from_s, lambda window=window: self._freeze_one(window.to_s))
        for at_s in faults.restarts:
            self.at(at_s, self.restart_driver)
        for at_s, by_s in faults.jumps:
            self.at(at_s, lambda by_s=by_s: self._jump(by_s))
        if faults.removal_s is not None:
            self.at(faults.removal_s, lambda: self.restart_driver(without="swift"))
        self.after(_SIZES_S, lambda: self._started("small") if not self.replicas else None)
        self.starting["small"] += 1
        bound_s = faults.quiet_s + _GRACE_S + 20.0 * max(1.0, faults.slow)
        while self._heap and self.elapsed_s < bound_s:
            self.elapsed_s, _, then = heapq.heappop(self._heap)
            then()
            if self.elapsed_s > faults.quiet_s and len(self.accepted) == tasks and not self._live():
                break
        self._check()
        return Result(self.seed, tasks, faults.count, self.violations, self.elapsed_s)

    def _kill_one(self) -> None:
        if self.replicas:
            self.random.choice(sorted(self.replicas.values(), key=lambda replica: replica.name)).kill()

    def _freeze_one(self, until_s: float) -> None:
        if self.replicas:
            self.random.choice(sorted(self.replicas.values(), key=lambda r: r.name)).until_s = until_s

    def _jump(self, by_s: float) -> None:
        self._jump_s += by_s

    def _live(self) -> bool:
        return bool(self.inner.tasks.live_index())

    # -- what must hold ------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        found = {task.id: task for task in self.inner.tasks.get_many(self.accepted)}
        most = self.config.queue.max_attempts
        billed_s = 0.0
        for task_id in self.accepted:
            task = found.get(task_id)
            if task is None:
                self._violated("an accepted task is not in the store", task_id)
                continue
            if task.outcome is None or task.status not in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED):
                self._violated(f"has not ended: {self._state_of(task)}", task_id)
                continue
            billed_s += task.outcome.billed_gpu_s
            if task.status is Status.SUCCEEDED and task_id not in self.clips:
                self._violated("succeeded and has no clip", task_id)
            if task.status is not Status.CANCELLED and task.attempts > self.begins[task_id]:
                told = f"{task.status} after {task.attempts} attempts, and it began {self.begins[task_id]} times"
                self._violated(told, task_id)
            if task.attempts > 1 and not self._attempts_may_fail():
                self._violated(f"{task.attempts} attempts, though no worker was ever at fault", task_id)
            if task.attempts > most:
                self._violated(f"{task.attempts} attempts, {most} are the most", task_id)
            excused = self._has_lost_its_variant(task)
            if task.outcome.dead and self.begins[task_id] < most and task.epoch < 8 * most and not excused:
                told = f"given up after it began {self.begins[task_id]} times: {task.outcome.failure}"
                self._violated(told, task_id)
            guilty = self.faults.kills or self.faults.freezes or self.faults.poison or self.faults.transient or excused
            if task.status is Status.FAILED and not guilty:
                self._violated(f"failed, and nothing was wrong with it: {task.outcome.failure}", task_id)
        if self.retries[LOST] and not self._attempts_may_fail():
            self._violated(f"{self.retries[LOST]} leases ran out, and their workers were alive and heard all the time")
        if billed_s > self.busy_s + 1e-6:
            self._violated(f"billed {billed_s:.3f} s, and replicas were busy for {self.busy_s:.3f} s")
        if self.driver is not None and not self._live():
            left = self.driver.scheduler.waiting()
            if left:
                self.driver.scheduler.reconcile((), self.driver.scheduler.version, self.now())
                if self.driver.scheduler.waiting():
                    self._violated(f"{left} tasks still wait in the scheduler, and none in the store")

    def _attempts_may_fail(self) -> bool:
        """Whether anything in this history may end an attempt, or keep its worker from being heard."""
        faults = self.faults
        unheard = faults.lose_request or faults.lose_reply or faults.delay or faults.jumps
        return bool(faults.kills or faults.freezes or faults.poison or faults.transient or unheard or faults.removal_s)

    def _has_lost_its_variant(self, task: StoredTask) -> bool:
        return self.faults.removal_s is not None and task.offer.variant == "swift"

    def _state_of(self, task: StoredTask) -> str:
        driver = self.driver
        known = "no dispatcher"
        if driver is not None:
            scheduler = driver.scheduler
            known = f"waiting here: {scheduler.job(task.seq) is not None}, held: {scheduler.attempts.held(task.id)}"
        return f"{task.status} attempt {task.attempts} epoch {task.epoch} of {task.holder!r}; {known}"

    def _violated(self, what: str, task_id: str = "") -> None:
        self.violations.append(Violation(what, task_id))
