"""What every replica is going to do: its queue in order, with predicted loads and seconds, up to date event by event.

A task is planned onto a replica when it is routed and can be moved until it starts. The arrays over replicas answer
"when would variant v start on each of them, queued last" in a few vector operations, whatever the length of the
queues. "… and where its turn comes" reads a table of the work ahead by key, whose keys are a few dozen quantiles, and
then asks the best replicas exactly. Where models move, a task put into the middle has the loads near it planned again:
a prediction may be approximate, the order never is.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from cluster.scheduling.adapters import Residency
from cluster.scheduling.memory import FixedMemory, Memory
from cluster.scheduling.replica_queue import ELSEWHERE, ReplicaQueue, Turn, View
from cluster.scheduling.work_queue import Key, Planned, behind
from cluster.scheduling.work_table import Floats, WorkTable

_FEW_REPLICAS = 8  # so many are all asked exactly
_ASKED = 1  # replicas of a group that are asked exactly
_READ = 64  # tasks that are read one by one to tell their work from their loads
_NEAR = 16  # tasks on either side of a new one whose loads are planned again

__all__ = ["FixedMemory", "Floats", "Memory", "Planned", "ReplicaQueue", "Timelines", "Turn", "View"]


class Timelines:
    """All replicas, in groups (accelerator types) that are contiguous in the arrays.

    `overdue_growth`: what is late by a second is expected to take so many more. `adapter_load_s`: what one that a task
    brings takes to load.
    """

    def __init__(self, variants: int, overdue_growth: float = 0.0, adapter_load_s: float = 0.0) -> None:
        self._variants = range(variants)
        self.adapters = Residency(adapter_load_s)
        self._growth = overdue_growth
        self.replicas: list[ReplicaQueue] = []
        self.place: dict[Hashable, int] = {}
        self.groups: dict[str, slice] = {}
        self.waiting: dict[int, Hashable] = {}  # task → replica
        self._keys: dict[int, Key] = {}  # of what waits
        self._until_s: Floats = np.zeros(0)
        self._pending_s: Floats = np.zeros(0)
        self._running: Floats = np.zeros(0)  # 1 or 0
        self._last_key_s: Floats = np.zeros(0)
        self.loads_s: Floats = np.zeros((variants, 0))
        self.loading_s = 0.0  # of what waits, the planned loads
        self.promised_s = 0.0  # of what waits and has a deadline, the work
        self._latest_key_s = -math.inf  # of all that ever waited
        self._number = 0
        self.changes = 0  # of anything that an answer depends on
        self._table = WorkTable()

    # -- replicas ------------------------------------------------------------------------------------------------

    def add(self, replicas: Sequence[tuple[Hashable, str, Memory]], now_s: float, ready_s: float | None = None) -> None:
        """Replicas come up: (name, group, memory)."""
        fresh = [ReplicaQueue(name, group, memory, memory.copy()) for name, group, memory in replicas]
        for replica in fresh:
            replica.until_s = now_s if ready_s is None else ready_s
        self._arrange([*self.replicas, *fresh])

    def restore(self, replicas: Sequence[tuple[ReplicaQueue, float | None]]) -> None:
        """All replicas as they were, and the work of what each runs; what waits on them with its loads planned."""
        for replica, work_s in replicas:
            replica.running = None if work_s is None else ELSEWHERE._replace(work_s=work_s)
            for planned in replica.queue:
                self.waiting[planned.task], self._keys[planned.task] = replica.name, planned[:2]
            self._latest_key_s = max(self._latest_key_s, replica.queue.last_key[0])
        self._count_promised()
        self._arrange([replica for replica, _ in replicas])

    def drop(self, names: Sequence[Hashable]) -> list[Planned]:
        """Replicas are gone; what ran or waited on them, in order."""
        gone = set(names)
        lost: list[Planned] = []
        for replica in self.replicas:
            if replica.name in gone:
                self.adapters.gone(replica.name)
                lost += [replica.running] if replica.running is not None and replica.running.task >= 0 else []
                lost += replica.queue
                for planned in replica.queue:
                    del self.waiting[planned.task], self._keys[planned.task]
                    self.loading_s -= planned.load_s
                    self.promised_s -= planned.work_s * (planned.due_s < math.inf)
        self._arrange([replica for replica in self.replicas if replica.name not in gone])
        return sorted(lost, key=lambda planned: planned[:2])

    def _arrange(self, replicas: list[ReplicaQueue]) -> None:
        self.changes += 1
        known = {id(replica): place for place, replica in enumerate(self.replicas)}
        loads_s = self.loads_s
        self.replicas = sorted(replicas, key=lambda replica: replica.group)
        self.place = {replica.name: place for place, replica in enumerate(self.replicas)}
        self.groups = {}
        for place, replica in enumerate(self.replicas):
            start = self.groups[replica.group].start if replica.group in self.groups else place
            self.groups[replica.group] = slice(start, place + 1)
        self._until_s = np.array([replica.until_s for replica in self.replicas])
        self._pending_s = np.array([replica.pending_s for replica in self.replicas], dtype=np.float64)
        self._running = np.array([float(replica.running is not None) for replica in self.replicas])
        self._last_key_s = np.array([replica.queue.last_key[0] for replica in self.replicas])
        before = [known.get(id(replica), -1) for replica in self.replicas]
        self.loads_s = np.zeros((len(self._variants), len(self.replicas)))
        if before:
            self.loads_s[:, :] = loads_s[:, before] if loads_s.shape[1] else 0.0
        for place, was in enumerate(before):
            if was < 0:
                self._refresh(place)
        self._table.clear()

    # -- questions -----------------------------------------------------------------------------------------------

    def expected_free_s(self, now_s: float) -> Floats:
        """When what each replica runs is expected to end."""
        late_s = now_s - self._until_s
        late_s *= self._running * self._growth
        late_s += now_s
        return np.maximum(self._until_s, late_s, out=late_s)

    def view(self, now_s: float, key_s: float = math.inf, *, last: bool = True) -> View:
        """What is ahead of a task with this key, on every replica. `last`: it may be the last one everywhere."""
        free_s = self.expected_free_s(now_s)
        loading_s = self.loading_s
        if last and (key_s >= self._latest_key_s or key_s >= self._last_key_s.max(initial=-math.inf)):
            ahead_s = self._pending_s
        else:
            last = False
            if len(self.replicas) <= _FEW_REPLICAS:
                ahead_s = np.array([replica.queue.ahead_s(behind(key_s)) for replica in self.replicas])
            else:
                ahead_s = self._ahead_s(key_s)
            pending_s = float(np.add.reduce(self._pending_s))
            loading_s *= float(np.add.reduce(ahead_s)) / pending_s if pending_s > 0 else 0.0
        begin_s = free_s + ahead_s
        # Not .mean(): that spends more on asking what it was given than on a thousand numbers.
        wait_s = (float(np.add.reduce(begin_s)) - loading_s) / len(begin_s) - now_s if len(begin_s) else 0.0
        if not last and len(begin_s):
            # What has a deadline is not put off for it, wherever its turn is.
            wait_s = max(wait_s, (float(np.add.reduce(free_s)) + self.promised_s) / len(begin_s) - now_s)
        return View(key_s, free_s, begin_s, max(0.0, wait_s), last)

    def starts(
        self,
        variant: int,
        view: View,
        load_penalty: float = 0.0,
        *,
        work_s: Callable[[str], float] | None = None,
        keys: Callable[[Hashable], float | None] | None = None,
        brings: Sequence[str] = (),
    ) -> dict[str, Turn]:
        """For each group the replica to prefer and when a task of `variant` that `brings` adapters would start there.

        `load_penalty` is what a second of loading counts beside a second of waiting: loading takes from everybody. A
        task of `work_s`, by group, is not put where it would break a promise to one behind it, but behind that one.
        `keys` may know a smaller key for some replicas, if the view is not of the last.
        """
        key_s, last = view.key_s, view.last
        loads_s = self.loads_s[variant]
        bring_s = self.adapters.all_missing_s(self.place, brings) if brings else None
        if bring_s is not None:
            loads_s = loads_s + bring_s
        start_s = view.begin_s + loads_s
        score = start_s + load_penalty * loads_s if load_penalty else start_s
        found = {}
        for group, members in self.groups.items():
            if last:
                place = members.start + int(score[members].argmin())
                found[group] = Turn(float(start_s[place]), place, key_s, float(loads_s[place]))
                continue
            best, least = Turn(math.inf, -1, key_s, math.inf), math.inf
            for place in _least(score, members, _FEW_REPLICAS if len(self.replicas) <= _FEW_REPLICAS else _ASKED):
                more_s = 0.0 if bring_s is None else float(bring_s[place])
                turn = self.turn(place, variant, float(view.free_s[place]), key_s, work_s, keys, more_s)
                # A replica that never could has an infinite load, and nothing times that is no number.
                penalised = turn.start_s + load_penalty * turn.load_s if load_penalty else turn.start_s
                if penalised < least or best.place < 0:
                    best, least = turn, penalised
            found[group] = best
        return found

    def _ahead_s(self, key_s: float) -> Floats:
        """About how much work is ahead of the key on every replica."""
        if not self._table:
            self._table.fill([replica.queue for replica in self.replicas])
        return self._table.ahead_s(key_s)

    def turn(
        self,
        place: int,
        variant: int,
        free_s: float,
        key_s: float,
        work_s: Callable[[str], float] | None = None,
        keys: Callable[[Hashable], float | None] | None = None,
        bring_s: float = 0.0,
    ) -> Turn:
        """When a task of `variant` would start on one replica, behind what has no larger key and whose promise it would
        break, and so much later for the adapters that it brings."""
        replica = self.replicas[place]
        earlier_s = keys(replica.name) if keys is not None else None
        key = behind(key_s) if earlier_s is None else (earlier_s, -math.inf)
        if key >= replica.queue.last_key:
            load_s = float(self.loads_s[variant, place]) + bring_s
            return Turn(free_s + replica.pending_s + load_s, place, key_s, load_s)
        load_s, reload_s = self._loads_in(replica, variant, key)
        load_s += bring_s
        if load_s == math.inf:
            return Turn(math.inf, place, key_s, load_s)
        spared = key
        if work_s is not None and replica.queue.promised:
            spared = replica.queue.unbroken(key, load_s + work_s(replica.group) + reload_s, free_s)
        if spared != key:
            key = behind(spared[0])
            load_s = self._load_s(replica, variant, key) + bring_s
        return Turn(free_s + replica.queue.ahead_s(key) + load_s, place, max(key_s, key[0]), load_s)

    def _load_s(self, replica: ReplicaQueue, variant: int, key: Key) -> float:
        """What a task of `variant` put in at this key would load."""
        if replica.fixed:
            return replica.memory.load_s(variant)
        return self._memory_at(replica, key)[0].load_s(variant)

    def _loads_in(self, replica: ReplicaQueue, variant: int, key: Key) -> tuple[float, float]:
        """What a task of `variant` put in at this key would load, and what that behind it would have to load again."""
        if replica.fixed:
            return replica.memory.load_s(variant), 0.0
        memory, behind_it = self._memory_at(replica, key, 1)
        load_s = memory.load_s(variant)
        if not load_s or load_s == math.inf or not behind_it:
            return load_s, 0.0
        memory.use(variant)
        return load_s, max(0.0, memory.load_s(behind_it[0].variant) - behind_it[0].load_s + behind_it[0].bring_s)

    def _memory_at(self, replica: ReplicaQueue, key: Key, after: int = 0) -> tuple[Memory, list[Planned]]:
        """What the replica will hold when the queue has come to this key, and so many tasks from there on. What few
        tasks leave in a memory is what it held last."""
        ahead, rest = replica.queue.around(key, _NEAR, after)
        memory = replica.memory.copy()
        for planned in ahead:
            memory.use(planned.variant)
        return memory, rest

    def work_ahead_s(self, turn: Turn, now_s: float) -> float:
        """Of what a turn waits for, the predicted work without loads; of a long queue, by the share in its head."""
        if turn.place < 0:
            return 0.0
        replica = self.replicas[turn.place]
        key = behind(turn.key_s)
        work_s = both_s = 0.0
        for planned in replica.queue.head(_READ):
            if planned[:2] > key:
                return replica.running_work_s(now_s) + work_s
            work_s += planned.work_s
            both_s += planned.work_s + planned.load_s
        share = work_s / both_s if both_s else 1.0
        return replica.running_work_s(now_s) + work_s + share * max(0.0, replica.queue.ahead_s(key) - both_s)

    def longest(self, free_s: Floats, count: int) -> list[int]:
        """The replicas that will have done last what waits on them, the last one first."""
        found: list[int] = (free_s + self._pending_s).argsort()[: -count - 1 : -1].tolist()
        return found

    def forecast_s(self, task: int, now_s: float) -> tuple[float, int]:
        """(completion, tasks ahead) of a waiting task: the plan of its replica run forward up to it."""
        replica, key = self.replicas[self.place[self.waiting[task]]], self._keys[task]
        done_s = replica.expected_free_s(now_s, self._growth) + replica.queue.ahead_s(key)
        return done_s + replica.queue.get(key).total_s, replica.queue.rank(key) + (replica.running is not None)

    def planned(self, task: int) -> Planned:
        """A task that waits."""
        return self.replicas[self.place[self.waiting[task]]].queue.get(self._keys[task])

    def completions(self, now_s: float) -> Iterator[tuple[int, float]]:
        """(task, predicted completion) of everything that waits, in one pass over the queues."""
        for replica in self.replicas:
            at_s = replica.expected_free_s(now_s, self._growth)
            for planned in replica.queue:
                at_s += planned.load_s + planned.work_s
                yield planned.task, at_s

    def _changed(self, place: int, key_s: float, seconds: float) -> None:
        """So much more work waits on a replica, with this key."""
        self.changes += 1
        replica = self.replicas[place]
        replica.pending_s = replica.pending_s + seconds if replica.queue else 0.0
        self._pending_s[place] = replica.pending_s
        self._last_key_s[place] = replica.queue.last_key[0]
        self._table.changed(place, key_s, seconds, len(self.waiting))

    # -- events --------------------------------------------------------------------------------------------------

    def enqueue(
        self,
        place: int,
        task: int,
        variant: int,
        work_s: float,
        key_s: float,
        *,
        deadline_s: float = math.inf,
        due_s: float = math.inf,
        tenant: Hashable = "",
        brings: tuple[str, ...] = (),
    ) -> None:
        """Plan a task onto a replica, behind every task with no larger key."""
        replica = self.replicas[place]
        self._number += 1
        key = (key_s, self._number)
        self._latest_key_s = max(self._latest_key_s, key_s)
        last = key > replica.queue.last_key
        load_s = replica.plan.use(variant) if last else self._load_s(replica, variant, key)
        bring_s = 0.0
        if brings:
            bring_s = self.adapters.missing_s(replica.name, brings)
            self.adapters.await_(replica.name, brings)
            load_s += bring_s
        planned = Planned(
            key_s, self._number, task, variant, work_s, load_s, deadline_s, due_s, tenant, brings, bring_s
        )
        replica.queue.add(planned)
        self.waiting[task], self._keys[task] = replica.name, key
        self._changed(place, key_s, load_s + work_s)
        self.loading_s += load_s
        self.promised_s += work_s * (due_s < math.inf)
        if not replica.fixed:
            if not last:
                self._replan(place, key)
            elif load_s != bring_s:
                self._refresh(place)

    def load_now_s(self, place: int, planned: Planned) -> float:
        """What the replica would load first, began it the task now."""
        replica = self.replicas[place]
        load_s = replica.memory.load_s(planned.variant)
        return load_s + self.adapters.missing_now_s(replica.name, planned.brings) if planned.brings else load_s

    def start(self, place: int, task: int, now_s: float, work_s: float | None = None) -> None:
        """The replica begins a task that waits on it, which takes `work_s` (else what was predicted)."""
        replica = self.replicas[place]
        first = replica.queue.first
        planned = self._take(place, task)
        load_s = self.load_now_s(place, planned)
        replica.memory.use(planned.variant)
        if planned.brings:
            self.adapters.use(replica.name, planned.brings)
        replica.running = planned if load_s == planned.load_s else planned._replace(load_s=load_s)
        self._until(place, now_s + load_s + (planned.work_s if work_s is None else work_s))
        self._running[place] = 1.0
        if not replica.fixed and (first is None or first.task != task or load_s != planned.load_s):
            self._replan(place, (-math.inf, 0))

    def extend(self, place: int, until_s: float) -> None:
        """What runs on the replica ends at `until_s` instead."""
        self._until(place, until_s)

    def occupy(self, place: int, until_s: float) -> None:
        """The replica is busy until then with something that never waited here."""
        self.replicas[place].running = ELSEWHERE
        self._running[place] = 1.0
        self._until(place, until_s)

    def finish(self, place: int, now_s: float) -> None:
        """The replica is free, earlier or later than predicted, and its queue with it."""
        self.replicas[place].running = None
        self._running[place] = 0.0
        self._until(place, now_s)

    def withdraw(self, task: int) -> Planned:
        """Take a waiting task out."""
        place = self.place[self.waiting[task]]
        planned = self._take(place, task)
        if not self.replicas[place].fixed:
            self._replan(place, planned[:2])
        return planned

    def swap(self, place: int, one: int, other: int) -> None:
        """Two tasks of a queue change places."""
        replica = self.replicas[place]
        first, second = replica.queue.remove(self._keys[one]), replica.queue.remove(self._keys[other])
        for planned, slot in ((first, second), (second, first)):
            replica.queue.add(planned._replace(key_s=slot.key_s, number=slot.number))
            self._keys[planned.task] = (slot.key_s, slot.number)
            self._changed(place, slot.key_s, planned.total_s - slot.total_s)
        if not replica.fixed:
            self._replan(place, min(first[:2], second[:2]))

    def reestimate(self, work_s: Callable[[Planned, str], float]) -> None:
        """Predictions have changed: every waiting task gets its seconds anew, by what it is and its replica's group."""
        self.changes += 1
        for place, replica in enumerate(self.replicas):
            if replica.queue:
                group = replica.group
                replica.queue.rework(lambda planned, group=group: planned._replace(work_s=work_s(planned, group)))  # type: ignore[misc]
                replica.pending_s = self._pending_s[place] = replica.queue.total_s
        self._count_promised()
        self._table.clear()

    def _count_promised(self) -> None:
        self.promised_s = sum(p.work_s for replica in self.replicas for p in replica.queue if p.due_s < math.inf)

    def _take(self, place: int, task: int) -> Planned:
        key = self._keys.pop(task)
        del self.waiting[task]
        planned = self.replicas[place].queue.remove(key)
        if planned.brings:
            self.adapters.leave(self.replicas[place].name, planned.brings)
        self._changed(place, planned.key_s, -planned.total_s)
        self.loading_s -= planned.load_s
        self.promised_s -= planned.work_s * (planned.due_s < math.inf)
        return planned

    def _until(self, place: int, until_s: float) -> None:
        self.changes += 1
        self.replicas[place].until_s = self._until_s[place] = until_s

    def _replan(self, place: int, key: Key) -> None:
        """The loads near a key: they may have changed with the order. The rest keeps what was planned."""
        replica = self.replicas[place]
        memory, rest = self._memory_at(replica, key, _NEAR + 1)
        for planned in rest:
            load_s = memory.use(planned.variant) + planned.bring_s
            if load_s != planned.load_s:
                self._changed(place, planned.key_s, replica.queue.reload(planned[:2], load_s))
                self.loading_s += load_s - planned.load_s
        if not rest or rest[-1][:2] == replica.queue.last_key:
            replica.plan = memory
            self._refresh(place)

    def _refresh(self, place: int) -> None:
        plan = self.replicas[place].plan
        self.loads_s[:, place] = [plan.load_s(variant) for variant in self._variants]


def _least(score: Floats, members: slice, count: int) -> list[int]:
    """Where the least scores of a group are."""
    part = score[members]
    if len(part) <= count:
        return list(range(members.start, members.stop))
    if count == 1:
        return [members.start + int(part.argmin())]
    found: list[int] = part.argpartition(count)[:count].tolist()
    return [members.start + place for place in found]
