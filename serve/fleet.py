"""The fleet as the dispatcher last saw it: a note in the store that every ingress reads to quote and to show."""

from pydantic import BaseModel, ConfigDict

NOTE = "fleet"
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
    """All pools at `at` (seconds since the epoch). `ratios`: what `cluster.eta` learnt, by regime: (median, bound)."""

    at: float = 0.0
    pools: tuple[PoolReport, ...] = ()
    ratios: tuple[tuple[float, float], ...] = ()
    draining: bool = False
