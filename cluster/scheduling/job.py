"""A task as the scheduler knows it: who asked, what it would be on each variant, and how far it has come."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from cluster.routing.terms import RoutingRequest
from cluster.scheduling.eta import Eta


class Call(NamedTuple):
    """What a task would be on one variant."""

    batchable: Hashable  # tasks with the same value may share one model call
    configuration: Hashable  # what decides its seconds, as in `cluster.cost.service_times.CostKey`
    after_s: float = 0.0  # from the end of the model call until the clip is stored, on other threads


class Job(NamedTuple):
    """A waiting task. `request.task` is `seq`, the store's number for it.

    Instants are seconds on the scheduler's clock. `calls` names every variant that the task may go to.
    """

    seq: int
    id: str
    request: RoutingRequest
    calls: Mapping[str, Call]
    variant: str  # that it was offered
    tenant: str = ""
    priority: int = 0
    accepted_at: float = 0.0
    eta: Eta | None = None  # what was promised at acceptance
    attempts: int = 0  # that have begun
    epoch: int = 0  # of its last lease
    not_before: float = 0.0  # a retry waits until then

    @property
    def bound_at(self) -> float:
        """The instant by which nine of ten such tasks are done; infinite where nothing was promised."""
        return self.accepted_at + self.eta.p90_s if self.eta is not None else float("inf")


class Lease(NamedTuple):
    """The right to finish a task, as the store granted it. A later epoch makes it stale."""

    task_id: str
    seq: int
    epoch: int
    attempt: int
