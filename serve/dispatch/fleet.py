"""The fleet as the dispatcher last saw it: a note in the store that every ingress reads to quote and to show."""

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from cluster.scheduling.demand import demands
from cluster.scheduling.eta import EtaTerms
from cluster.scheduling.scheduler import Scheduler
from cluster.scheduling.snapshot import PlanSnapshot

NOTE = "fleet"
ETA = "eta"  # the note in which the dispatcher keeps what it learnt of its promises
CALIBRATION = "calibration"  # the note in which the dispatcher keeps what calls took


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class PoolReport(_Frozen):
    """One variant on one accelerator type."""

    variant: str
    accelerator: str
    replicas: int  # up and registered
    starting: int  # asked for, not yet up
    busy: int
    queued: int  # tasks planned onto it, not started
    backlog_s: float  # predicted seconds until a task that is queued now would start, loads not included
    load_s: float  # until a replica would be up, when there is none
    healthy: bool
    failures: int = 0  # of the last hour
    last_failure: str = ""
    price_usd_per_hour: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.variant}/{self.accelerator}"


class FleetReport(_Frozen):
    """All pools at `at` (seconds since the epoch); `plan` and `eta` are what an ingress makes offers of, as the
    dispatcher itself would."""

    at: float = 0.0
    pools: tuple[PoolReport, ...] = ()
    last_seq: int = 0  # of the tasks that the dispatcher has taken in
    plan: PlanSnapshot | None = None
    after_s: dict[str, float] = {}  # by variant, from the end of a call until its clips are stored and told
    eta: EtaTerms = EtaTerms()
    draining: bool = False

    @classmethod
    def read(cls, note: JsonValue) -> Self | None:
        """The report in a note; None where there is none, or it is of another version."""
        try:
            return None if note is None else cls.model_validate(note)
        except ValidationError:
            return None


def fleet_report(scheduler: Scheduler, now: float, last_seq: int = 0) -> FleetReport:
    """Every pool as it is now."""
    waits = demands(scheduler, now)
    pools = []
    for name, state in scheduler.variants.items():
        mine = [worker for worker in scheduler.workers.values() if worker.variant == name]
        variant, accelerator = state.served.variant, state.served.accelerator
        start_s = scheduler.planner.start_s(name, accelerator, now) - now
        total_s = start_s if math.isfinite(start_s) else 0.0
        pools.append(
            PoolReport(
                variant=name,
                accelerator=accelerator,
                replicas=len(mine),
                starting=max(0, state.target - len(mine)),
                busy=sum(map(scheduler.is_busy, mine)),
                queued=waits[name].tasks,
                backlog_s=max(0.0, total_s if mine else total_s - state.start_s),
                load_s=0.0 if mine else state.remaining_start_s(now),
                healthy=bool(mine) or state.placeholder,
                failures=state.failures(now),
                last_failure=state.last_failure,
                price_usd_per_hour=variant.price_usd_per_gpu_hour,
            )
        )
    return FleetReport(
        at=now,
        pools=tuple(pools),
        last_seq=last_seq,
        after_s=dict(scheduler.task_times.after_s),
        plan=PlanSnapshot.of(scheduler.planner, now),
        eta=scheduler.eta.terms,
        draining=scheduler.draining,
    )
