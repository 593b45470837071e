"""Any interleaving of submits, leases, ends, losses and cancels: one holder at most, and what ended stays as it is."""

import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.clip import Status
from serve.store.contract import Progress, Store
from serve.store.engine import open_store
from serve.store.memory import MemoryStore
from serve.tasks import LIVE, Lease, StoredTask
from tests.serve.store.samples import NOW, failure, new_task, success

MAX_LIVE = 4


class LeaseMachine(RuleBasedStateMachine):
    """The model: the status of each task, the one valid lease of those that run, and every lease ever given."""

    def opened(self) -> Store:
        return open_store(f"sqlite:///{Path(self.folder.name) / 'tasks.sqlite'}")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = self.opened()
        self.status: dict[str, Status] = {}
        self.seq: dict[str, int] = {}
        self.valid: dict[str, Lease] = {}
        self.leases: list[Lease] = []
        self.cancelled: set[str] = set()
        self.over: dict[str, StoredTask] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(n=st.integers(1, 3))
    def submit(self, n: int) -> None:
        live = self.unthrottled()
        tasks = self.store.tasks.submit([new_task() for _ in range(n)], NOW, max_live=MAX_LIVE).tasks
        for place, task in enumerate(tasks):
            assert task.status is (Status.PENDING if live + place < MAX_LIVE else Status.THROTTLED)
            self.status[task.id], self.seq[task.id] = task.status, task.seq

    @precondition(lambda self: self.status)
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        asked = data.draw(st.lists(st.sampled_from(list(self.status)), min_size=1, max_size=4, unique=True))
        given = self.store.tasks.lease([self.seq[i] for i in asked], "r", "embedded", NOW + 8, NOW)
        assert [lease.task_id for lease in given] == [i for i in asked if self.status[i] is Status.PENDING]
        for lease in given:
            earlier = [old.epoch for old in self.leases if old.task_id == lease.task_id]
            assert lease.epoch == lease.attempt == len(earlier) + 1
            self.status[lease.task_id], self.valid[lease.task_id] = Status.RUNNING, lease
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), what=st.sampled_from(["success", "failure", "give back", "renew"]))
    def holder_speaks(self, data: st.DataObject, what: str) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        task_id = lease.task_id
        is_valid = self.valid.get(task_id) == lease
        if what == "renew":
            stop = self.store.tasks.renew([Progress(task_id, lease.epoch, 0.5, "rendering")], NOW + 9)
            assert bool(stop) == (not is_valid or task_id in self.cancelled)
            return
        before = self.store.tasks.get_many([task_id])
        if what == "give back":
            done = self.store.tasks.give_back(task_id, lease.epoch, "lost", NOW)
            assert bool(done) == is_valid
            after = Status.PENDING
        else:
            outcome = success() if what == "success" else failure()
            done = self.store.tasks.finish(task_id, lease.epoch, outcome, NOW + 1)
            if done and not is_valid:  # the same end told again
                assert self.store.tasks.get_many([task_id]) == before
                return
            assert bool(done) == is_valid
            after = outcome.status
        if done:
            del self.valid[task_id]
            self.status[task_id] = Status.CANCELLED if task_id in self.cancelled else after
            assert done is self.status[task_id]
        else:
            assert self.store.tasks.get_many([task_id]) == before

    @precondition(lambda self: self.status)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(list(self.status)))
        was = self.status[task_id]
        assert self.store.tasks.cancel(task_id, None, NOW) is was
        if was is Status.RUNNING:
            self.cancelled.add(task_id)
        elif was in LIVE:
            self.status[task_id] = Status.CANCELLED

    @rule()
    def release(self) -> None:
        waiting = [i for i in sorted(self.status, key=self.seq.__getitem__) if self.status[i] is Status.THROTTLED]
        released = self.store.tasks.release("key-a", MAX_LIVE, NOW)
        assert [task.id for task in released] == waiting[: max(0, MAX_LIVE - self.unthrottled())]
        for task in released:
            assert task.seq > max(self.seq.values())
        for task in released:
            self.status[task.id], self.seq[task.id] = Status.PENDING, task.seq

    @precondition(lambda self: self.status)
    @rule(data=st.data(), behind=st.integers(0, 1))
    def give_up(self, data: st.DataObject, behind: int) -> None:
        task_id = data.draw(st.sampled_from(list(self.status)))
        (before,) = self.store.tasks.get_many([task_id])
        waits = self.status[task_id] is Status.PENDING and not behind
        said_before = before.outcome == failure(dead=True) and not behind
        done = self.store.tasks.give_up(task_id, before.epoch - behind, failure(dead=True), NOW)
        assert done is (Status.FAILED if waits or said_before else None)
        if waits:
            self.status[task_id] = Status.FAILED

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = self.opened()

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        if not hasattr(self, "store"):
            return
        for task in self.store.tasks.get_many(list(self.status)):
            assert task.status is self.status[task.id]
            assert self.over.setdefault(task.id, task) == task or task.status in LIVE
            if task.status in LIVE:
                del self.over[task.id]
            if task.status is Status.RUNNING:
                assert task.epoch == self.valid[task.id].epoch
        running = [i for i in self.status if self.status[i] is Status.RUNNING]
        live = self.store.tasks.live_index()
        assert [row.id for row in live if row.status is Status.RUNNING] == sorted(running, key=self.seq.__getitem__)
        pending = [i for i in sorted(self.seq, key=self.seq.__getitem__) if self.status[i] is Status.PENDING]
        assert [task.id for task in self.store.tasks.pending()] == pending
        assert [row.id for row in live if row.status is Status.PENDING] == pending

    def unthrottled(self) -> int:
        return sum(status in (Status.PENDING, Status.RUNNING) for status in self.status.values())


class MemoryLeaseMachine(LeaseMachine):
    """The same of the store in memory, which stays open."""

    def opened(self) -> Store:
        return getattr(self, "store", None) or MemoryStore()  # type: ignore[return-value]


TestLeaseMachine = LeaseMachine.TestCase
TestMemoryLeaseMachine = MemoryLeaseMachine.TestCase
TestLeaseMachine.settings = TestMemoryLeaseMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
