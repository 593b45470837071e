"""The scheduler of an endpoint, as its configuration says: which variants, how many replicas, on which accelerators."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from cachetools import LRUCache

from cluster.cost.calibration import CostModelPrior, call_of
from cluster.cost.model import Load, best_batch
from cluster.cost.service_times import CostKey, ServiceTimes
from cluster.cost.service_times_state import ServiceTimesState
from cluster.scheduling.attempts import AttemptRules
from cluster.scheduling.eta import EtaEstimator
from cluster.scheduling.follower import Follower
from cluster.scheduling.job import Call
from cluster.scheduling.planner import AcceleratorGroup
from cluster.scheduling.scheduler import Scheduler, SchedulerConfig
from cluster.scheduling.workers import ServedVariant
from schemas.catalog import Catalog, Variant
from serve.config import ServeConfig

_PROCESS_S = 10.0  # a new process imports torch and joins, beside loading the model
_USUAL_GPU = "H200"  # where nothing says which accelerators there are
_MOST_BATCH_SIZES = 4096


def make_scheduler(
    config: ServeConfig,
    served: Catalog,
    accelerators: Mapping[str, str],
    observed: ServiceTimesState | None,
    now: float,
    eta: EtaEstimator | None = None,
) -> Scheduler:
    """`accelerators` by variant; one that is not named has what its needs and the configuration say."""
    return Scheduler(**_arguments(config, served, accelerators, observed), eta=eta, now=now)


def make_follower(
    config: ServeConfig,
    served: Catalog,
    accelerators: Mapping[str, str],
    observed: ServiceTimesState | None,
    now: float,
) -> Follower:
    """As `make_scheduler`, for an ingress."""
    return Follower(**_arguments(config, served, accelerators, observed), now=now)


def _arguments(
    config: ServeConfig, served: Catalog, accelerators: Mapping[str, str], observed: ServiceTimesState | None
) -> dict[str, Any]:
    times = ServiceTimes(CostModelPrior(served.variants.values()), observed)
    pools = []
    # Whether `auto` may choose a variant is settled before the scheduler is asked.
    for variant in served.variants.values():
        where = accelerators.get(variant.name) or _accelerator(variant, config)
        least, most = limits_of(config, served, variant.name)
        start_s = _PROCESS_S + times.load_s(variant.name, where, Load.COLD)
        pools.append(ServedVariant(variant.model_copy(update={"auto": True}), where, least, most, start_s))
    # Prices are the variants' own; a group only says which accelerators there are.
    groups = [AcceleratorGroup(name) for name in dict.fromkeys(pool.accelerator for pool in pools)]
    rules = AttemptRules(config.queue.lease_s, config.queue.max_attempts, config.queue.retry_base_s)
    return {
        "served": pools,
        "groups": groups,
        "times": times,
        "batch_size": _BatchSizes(),
        "config": SchedulerConfig(rules, idle_s=config.pools.idle_to_zero_s),
    }


def limits_of(config: ServeConfig, served: Catalog, name: str) -> tuple[int, int]:
    """(least, most) replicas of a variant; the first served one stays up. Names in the config may be aliases."""

    def said(table: dict[str, int], default: int) -> int:
        return next(
            (n for alias, n in table.items() if (v := served.find(alias)) is not None and v.name == name), default
        )

    least = said(config.pools.min_replicas, 1 if name == next(iter(served.variants)) else 0)
    return least, max(least, said(config.pools.max_replicas, 1))


def accelerators_of(served: Catalog, there: Sequence[str]) -> dict[str, str]:
    """The type that each variant's replicas are on, of those that there are."""
    return {name: _of(variant, there) for name, variant in served.variants.items()}


def _of(variant: Variant, there: Sequence[str]) -> str:
    if not variant.needs.gpus:
        return "cpu"
    named = variant.needs.accelerator_type
    if named in there:
        return str(named)
    return next((name for name in there if name != "cpu"), "cpu")


def _accelerator(variant: Variant, config: ServeConfig) -> str:
    needs = variant.needs
    return needs.accelerator_type or config.pools.accelerator or ("cpu" if not needs.gpus else _USUAL_GPU)


class _BatchSizes:
    """How many of so many waiting tasks of a group go into one model call. Remembered: the cost model is asked once."""

    def __init__(self) -> None:
        self._known: LRUCache[tuple[str, str, Hashable], int] = LRUCache(_MOST_BATCH_SIZES)

    def __call__(self, variant: Variant, accelerator: str, call: Call, ready: int) -> int:
        if ready <= 1 or variant.max_batch <= 1:
            return 1
        key = variant.name, accelerator, call.configuration
        best = self._known.get(key)
        if best is None:
            shape, steps, guidance = call_of(CostKey(variant.name, accelerator, call.configuration))
            best = best_batch(variant, shape, accelerator=accelerator, steps=steps, guidance=guidance)
            self._known[key] = best
        return min(ready, best)
