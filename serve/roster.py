"""Who renders: the replicas that pulled lately, the places where one could be started, and how many there should be.

A variant without a replica has a placeholder in the policy's plan: a replica that would load first. So a request for a
variant that was scaled to zero is compared fairly (its load counts), waits there, and is routed again once the real
one pulls. A variant that cannot be loaded has neither, and its tasks fall back.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from cluster.calibration import Calibrator
from cluster.cost import Load
from cluster.dispatch import Dispatcher, Start
from cluster.sizing import SizingOptions, VariantDemand, size
from cluster.timeline import FixedMemory
from schemas.catalog import Catalog
from serve.config import ServeConfig
from serve.demand import Demand
from serve.fleet import PoolReport
from serve.kinds import ColdMemory, Kind, accelerator_for, limits_of
from serve.messages import Hello, LoadFailure, Results
from serve.tasks import StoredTask

_PROCESS_S = 10.0  # a new process imports torch and joins, beside loading the model
_DOWN_S, _LONGEST_DOWN_S = 30.0, 600.0
_HOPELESS = 3  # load failures in a row
_BUSY_S = 0.1


@dataclass
class _Replica:
    variant: str
    heard_at: float
    tasks: set[str] = field(default_factory=set)  # that it holds


class Roster:
    """The replicas of one endpoint. Not thread-safe: its broker has the lock."""

    def __init__(
        self,
        config: ServeConfig,
        served: Catalog,
        policy: Dispatcher,
        calibrator: Calibrator,
        accelerators: Sequence[str],
        now: Callable[[], float],
    ) -> None:
        self._config, self._policy, self._calibrator = config, policy, calibrator
        self._replicas: dict[str, _Replica] = {}
        self._strangers: dict[str, tuple[str, float]] = {}  # who beats and has not pulled: (variant, heard at)
        self._kinds: dict[str, Kind] = {}
        for name, variant in served.variants.items():
            accelerator = accelerator_for(variant, accelerators)
            start_s = _PROCESS_S + calibrator.load_s(name, accelerator, Load.COLD)
            self._kinds[name] = Kind(variant, accelerator, start_s, arrived_at=now())
        self._limits = {name: limits_of(config, served, name) for name in served.variants}

    # -- replicas ------------------------------------------------------------------------------------------------

    def greet(self, hello: Hello, now: float) -> bool:
        """Whether the replica is new here. One that was known has been heard."""
        known = self._replicas.get(hello.replica)
        if known is None:
            return True
        known.heard_at = now
        return False

    def join(self, hello: Hello, now: float) -> tuple[list[Start], list[int]]:
        """A replica of a served variant is up: starts, and tasks to be routed again, of its placeholder."""
        kind = self._kinds[hello.variant]
        if kind.asked_at is not None and hello.load_s > 0:
            kind.start_s += 0.5 * (max(hello.load_s, now - kind.asked_at) - kind.start_s)
        if hello.load_s > 0:
            self._calibrator.observe_load(hello.variant, kind.accelerator, Load.COLD, hello.load_s)
        kind.asked_at, kind.failures, kind.down_until = None, 0, 0.0
        self._replicas[hello.replica] = _Replica(hello.variant, now)
        self._strangers.pop(hello.replica, None)
        # Whatever waits for a replica that is not there yet may prefer this one.
        waiting = [seq for other in self._kinds.values() for seq in self._drop_placeholder(other)]
        number = self._policy.numbers[hello.variant]
        starts = self._policy.gained([(hello.replica, kind.accelerator, FixedMemory(number))], now)
        more, moved = self.tend(now)
        return starts + more, waiting + moved

    def leave(self, replica: str, now: float) -> tuple[list[Start], list[int]]:
        """A replica is gone: starts, and the tasks that were planned onto it."""
        gone = self._replicas.pop(replica, None)
        if gone is None:
            return [], []
        waiting = self._policy.lost([replica])
        # Its successor's place first, so that its tasks do not flee to another variant from a mere restart.
        starts, moved = self.tend(now)
        return starts, waiting + moved

    def heard(self, replica: str, now: float, variant: str = "") -> None:
        """A sign of life. A replica that renders for a dispatcher of before pulls only when it is done: until then it
        counts as busy, or its pool might be scaled away under it."""
        known = self._replicas.get(replica)
        if known is not None:
            known.heard_at = now
        elif variant in self._kinds:
            self._strangers[replica] = variant, now

    def silent(self, now: float) -> list[str]:
        """Replicas that were not heard of for longer than a lease."""
        return [name for name, known in self._replicas.items() if now - known.heard_at > self._config.queue.lease_s]

    def began(self, replica: str, tasks: Sequence[StoredTask], now: float) -> None:
        known = self._replicas.get(replica)
        if known is not None:
            known.tasks |= {task.id for task in tasks}
            self._kinds[known.variant].worked_at = now

    def rendered(self, results: Results, now: float) -> None:
        known = self._replicas.get(results.replica)
        if known is not None:
            kind = self._kinds[known.variant]
            kind.worked_at = now
            known.tasks -= {ended.lease.task_id for ended in results.ended}

    def asked(self, variant: str, work_s: float, now: float) -> None:
        """Work has arrived for a variant."""
        self._kinds[variant].asked(work_s, now)

    def load_failed(self, failure: LoadFailure, now: float) -> tuple[list[Start], list[int]]:
        kind = self._kinds[failure.variant]
        kind.failures += 1
        kind.last_failure = failure.error
        kind.failed_at.append(now)
        kind.down_until = now + min(_LONGEST_DOWN_S, _DOWN_S * 2.0 ** (kind.failures - 1))
        kind.asked_at = None
        return [], self._drop_placeholder(kind)

    def tend(self, now: float) -> tuple[list[Start], list[int]]:
        """Placeholders where a replica is missing and could come; none where not."""
        starts: list[Start] = []
        waiting: list[int] = []
        for name, kind in self._kinds.items():
            kind.failed_at = [at for at in kind.failed_at if now - at < 3600]
            wanted = not self._up(name) and self._limits[name][1] > 0 and now >= kind.down_until
            if kind.placeholder and not wanted:
                waiting += self._drop_placeholder(kind)
            elif wanted and not kind.placeholder:
                kind.placeholder = True
                memory = ColdMemory(self._policy.numbers[name], kind.start_s)
                starts += self._policy.gained([(_placeholder(name), kind.accelerator, memory)], now)
        return starts, waiting

    def _drop_placeholder(self, kind: Kind) -> list[int]:
        if not kind.placeholder:
            return []
        kind.placeholder = False
        return self._policy.lost([_placeholder(kind.variant.name)])

    # -- questions -----------------------------------------------------------------------------------------------

    def _up(self, variant: str) -> list[_Replica]:
        return [known for known in self._replicas.values() if known.variant == variant]

    def is_placeholder(self, replica: Hashable) -> bool:
        return replica not in self._replicas

    def variant_of(self, replica: Hashable) -> str:
        known = self._replicas.get(str(replica))
        return known.variant if known is not None else str(replica).removeprefix(_placeholder(""))

    def accelerator_of(self, variant: str) -> str:
        """The type that a variant's replicas are on."""
        return self._kinds[variant].accelerator

    def hopeless(self, variant: str) -> str | None:
        """Why waiting for a variant makes no sense: it failed to load again and again."""
        kind = self._kinds[variant]
        return kind.last_failure if kind.failures >= _HOPELESS else None

    def trouble(self, variant: str) -> str:
        """What is the matter with a variant, in words."""
        kind = self._kinds.get(variant)
        if kind is None:
            return "is not served"
        if kind.down_until:
            return "is down"
        return "is not loaded" if kind.placeholder else "is busy"

    def reports(self, waits: Mapping[str, Demand], now: float) -> tuple[PoolReport, ...]:
        """Every pool as it is now."""
        found = []
        for name, kind in self._kinds.items():
            mine = self._up(name)
            start_s = self._policy.starts(self._policy.numbers[name], now).get(kind.accelerator, (math.inf, -1))[0]
            total_s = start_s - now if math.isfinite(start_s) else 0.0
            load_s = 0.0 if mine else self._remaining_start_s(kind, now)
            found.append(
                PoolReport(
                    variant=name,
                    accelerator=kind.accelerator,
                    replicas=len(mine),
                    starting=max(0, kind.target - len(mine)),
                    busy=sum(bool(known.tasks) for known in mine),
                    queued=waits[name].tasks,
                    backlog_s=max(0.0, total_s if mine else total_s - kind.start_s),
                    load_s=load_s,
                    healthy=bool(mine) or kind.placeholder,
                    failures=len(kind.failed_at),
                    last_failure=kind.last_failure,
                    price_usd_per_hour=kind.variant.price_usd_per_gpu_hour,
                )
            )
        return tuple(found)

    def _remaining_start_s(self, kind: Kind, now: float) -> float:
        return kind.start_s if kind.asked_at is None else max(1.0, kind.start_s - (now - kind.asked_at))

    # -- how many ------------------------------------------------------------------------------------------------

    def sizes(self, waits: Mapping[str, Demand], budget: tuple[float, float], now: float) -> dict[str, int]:
        """Replicas by variant, for what waits; `budget` is (GPUs, CPUs) of the cluster."""
        options = SizingOptions(idle_s=self._config.pools.idle_to_zero_s)
        sizes: dict[str, int] = {}
        for on_gpu, units in ((True, budget[0]), (False, budget[1])):
            demands = []
            for name, kind in self._kinds.items():
                needs = kind.variant.needs
                if (needs.gpus > 0) is not on_gpu:
                    continue
                least, most = self._limits[name]
                mine = self._up(name)
                strangers = self._busy_strangers(name, now)
                # What runs is work too: a busy replica is not given back.
                backlog_s = waits[name].work_s + _BUSY_S * (strangers + sum(bool(known.tasks) for known in mine))
                if now < kind.down_until:
                    least, most = 0, max(1, len(mine))
                demands.append(
                    VariantDemand(
                        name,
                        backlog_s=backlog_s,
                        arriving=kind.arriving_at(now),
                        load_s=kind.start_s,
                        replicas=max(kind.target, len(mine) + strangers),
                        idle_s=0.0 if backlog_s else max(0.0, now - kind.worked_at),
                        waited_s=waits[name].oldest_s,
                        gpus=needs.gpus if on_gpu else needs.cpus,
                        minimum=least,
                        maximum=max(most, least),
                    )
                )
            sizes |= size(demands, units, options)
        for name, count in sizes.items():
            kind = self._kinds[name]
            if count > len(self._up(name)) and kind.asked_at is None:
                kind.asked_at = now
            kind.target = count
        return sizes

    def _busy_strangers(self, variant: str, now: float) -> int:
        lease_s = self._config.queue.lease_s
        self._strangers = {name: (of, at) for name, (of, at) in self._strangers.items() if now - at <= lease_s}
        return sum(of == variant for of, _ in self._strangers.values())


def _placeholder(variant: str) -> str:
    return f"(to be started) {variant}"
