"""The plan: every task that waits, and where the policy has put it."""

import json
import logging

from cluster.dispatch import Dispatcher, Start
from cluster.routing import Choice
from schemas.catalog import Catalog
from schemas.clip import Status
from serve.ends import Ends
from serve.fits import Fits
from serve.roster import Roster
from serve.store.contract import TaskStore
from serve.tasks import StoredTask
from serve.waiting import Waiting
from serve.wants import groups_of, wanted_of

log = logging.getLogger(__name__)

_AT_ONCE = 500


class Plan:
    """Of one broker, which has the lock."""

    def __init__(
        self, served: Catalog, tasks: TaskStore, policy: Dispatcher, waiting: Waiting, roster: Roster, ends: Ends
    ) -> None:
        self.waiting = waiting
        self._served, self._tasks, self._policy, self._roster, self._ends = served, tasks, policy, roster, ends
        self._fits = Fits(served)

    def enter(self, task: StoredTask, now: float) -> list[Start]:
        """A task that waits, perhaps known already."""
        if task.seq in self.waiting:
            return []
        groups = groups_of(task, self._served, self._fits)
        if not groups:
            self._ends.give_up(task, "no variant that is served now can render this task", now)
            return []
        self.waiting.add(task, groups)
        self._roster.asked(task.offer.variant, task.offer.gpu_s, now)
        return self.route(task, now)

    def route(self, task: StoredTask, now: float) -> list[Start]:
        """Where a task that waits goes now, for the first time or once more."""
        wanted = wanted_of(task, self.waiting.groups(task.seq))
        choice, starts = self._policy.submit(
            task.seq, wanted, now, tenant=task.key_id, priority=task.priority, admitted=True
        )
        if choice.routed and choice.variant != task.offer.variant:
            self._note_fallback(task, choice)
        if not choice.routed:
            reasons = [self._roster.hopeless(name) for name in self.waiting.groups(task.seq)]
            if all(reasons):
                log.warning("task %s: nothing that could render it can be loaded: %s", task.id, reasons[0])
                self._policy.withdraw(task.seq, now)
                self.waiting.forget(task.seq)
                self._ends.give_up(task, "the variants that could render this task cannot be loaded", now)
        return starts

    def route_again(self, seqs: list[int], now: float) -> list[Start]:
        """Tasks whose replica is no more, or whose variant has become ready."""
        starts: list[Start] = []
        for seq in seqs:
            task = self.waiting.get(seq)
            if task is not None:
                starts += self.route(task, now)
        return starts

    def forget(self, seq: int, now: float) -> None:
        """It waits no more."""
        self.waiting.forget(seq)
        if seq in self._policy.timelines.waiting:
            self._policy.withdraw(seq, now)

    def forget_ended(self, now: float) -> None:
        """Tasks that were cancelled while they waited."""
        known = list(self.waiting)
        for first in range(0, len(known), _AT_ONCE):
            for task in self._tasks.get_many([task.id for task in known[first : first + _AT_ONCE]]):
                if task.status is not Status.PENDING and task.seq in self.waiting:
                    self.forget(task.seq, now)

    def _note_fallback(self, task: StoredTask, choice: Choice) -> None:
        story = choice.story
        self._tasks.reprice(
            task.id,
            self.waiting.groups(task.seq)[choice.variant or ""].model_dump_json(),
            json.dumps([*story.as_log(), {"type": "note", "text": choice.sentence}], default=list),
        )
