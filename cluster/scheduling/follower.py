"""A scheduler that only makes offers, as the one would whose snapshots it follows: that of an ingress."""

import heapq
from collections.abc import Hashable, Mapping
from typing import Any

from cluster.scheduling.eta import EtaTerms
from cluster.scheduling.job import Job
from cluster.scheduling.scheduler import Scheduler
from cluster.scheduling.snapshot import PlanSnapshot


class Follower(Scheduler):
    """Holds no leases. What was accepted since the last snapshot is submitted here, so that a burst between two of them
    is quoted behind itself."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._terms: EtaTerms | None = None
        self._forget_played()

    def _forget_played(self) -> None:
        self._played: set[Hashable] = set()  # replicas that only pretend to run what was submitted here
        self._ends: list[tuple[float, int, Hashable]] = []  # when each of those has done so
        self._given: dict[Hashable, None] = {}  # replicas with something new to begin

    @property
    def eta_terms(self) -> EtaTerms:
        return self._terms or self.eta.terms

    def follow(self, plan: PlanSnapshot, terms: EtaTerms, after_s: Mapping[str, float]) -> None:
        """Preview and promise as the scheduler would that these are of. What was submitted here is forgotten."""
        variants = [state.served.variant for state in self.variants.values()]
        self.planner = plan.planner(
            variants, estimate=self._seconds, spread=self._spread, doubt=lambda: self.task_times.times.doubt
        )
        self._terms, self.task_times.after_s = terms, dict(after_s)
        self._forget_played()
        self._jobs.clear()
        self._batchable.clear()

    def _plan(self, job: Job, now: float) -> None:
        super()._plan(job, now)
        if (replica := self.planner.timelines.waiting.get(job.seq)) is not None:
            self._given[replica] = None

    def play(self, now: float) -> None:
        """Let what was submitted here since `follow` begin and end as predicted, where nothing else is ahead of it: the
        next snapshot is not told yet. Nothing goes to another replica: of what is in the snapshot only the seconds are
        known, not the requests. Looks only at replicas where something begins or ends."""
        while self._ends and self._ends[0][0] <= now:
            self._given[heapq.heappop(self._ends)[2]] = None
        given, self._given = self._given, {}
        for name in given:
            self._play_on(name, now)

    def _play_on(self, name: Hashable, now: float) -> None:
        timelines = self.planner.timelines
        while True:
            replica = timelines.replicas[timelines.place[name]]
            if replica.running is not None:
                if name not in self._played or replica.until_s > now:
                    return
                self.planner.finish(name, replica.until_s)
            start = self.planner.peek(name, now, steal=False)
            job = self._jobs.get(start.task) if start is not None else None
            if start is None or job is None:
                return
            self.planner.start(start, max(job.accepted_at, replica.until_s))
            self._played.add(name)
            heapq.heappush(self._ends, (replica.until_s, start.task, name))
