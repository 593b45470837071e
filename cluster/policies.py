"""The policies that the simulator knows by name: the usual ones, and Rushes' own over simulated machines."""

import math
from collections.abc import Callable

import numpy as np

from cluster.baselines import (
    EarliestCompletion,
    EarliestCompletionOrRefuse,
    Fifo,
    JoinShortestQueue,
    LeastWork,
    PowerOfTwo,
    Random,
    RoundRobin,
)
from cluster.dispatch import Dispatcher, Group
from cluster.dispatch import Start as LiveStart
from cluster.fleet import Fleet
from cluster.habits import Habits
from cluster.situation import Policy, Run, Situation, Verdict
from cluster.terms import PoolView, Terms, Wanted
from schemas.catalog import Latent, Needs, Variant
from schemas.request import Mode
from schemas.shape import ShapeRule


class Rushes:
    """The Dispatcher that the endpoint drives, over simulated machines."""

    def __init__(self, situation: Situation, habits: Habits | None = None) -> None:
        self.s = situation
        trace, fleet = situation.trace, situation.fleet
        self._kind = [pool.name for pool in fleet.pools]
        groups = [
            Group(pool.name, pool.price_usd_per_hour, pool.vram_gib, pool.speed) for pool in fleet.pools if pool.count
        ]
        self.dispatcher = Dispatcher(
            [variant_of(name, fleet) for name in trace.names],
            groups,
            estimate=self._estimate,
            patience_s=float(np.median(trace.allowance_s)) if len(trace) else 60.0,
            habits=habits,
        )
        self._number_of = dict(self.dispatcher.numbers)
        self._place = {pool.name: (pool.number, pool.speed) for pool in self.dispatcher.pools.values()}
        self._terms = [Terms(variant=_own_name(name)) for name in trace.names]
        self._tenant: list[int] = trace.tenant.tolist()
        self._priority: list[int] = trace.priority.tolist()
        self.up([machine.number for machine in situation.machines], 0.0)

    def _estimate(self, pool: PoolView, wanted: Wanted) -> float:
        number, speed = self._place[pool.name]
        return self.s.work_s(wanted.task, number) / speed

    def arrive(self, task: int, now_s: float, *, admitted: bool) -> Verdict:
        wanted = Wanted(self._terms[self.s.variant[task]], deadline_s=self.s.deadline_s[task], task=task)
        choice, starts = self.dispatcher.submit(
            task, wanted, now_s, tenant=self._tenant[task], priority=self._priority[task], admitted=admitted
        )
        if choice.pool is None:
            return Verdict(admitted, math.nan, 0.0, [])
        return Verdict(True, choice.completion_s, choice.completion_s - choice.start_s, self._runs(starts))

    def free(self, machine: int, now_s: float) -> list[Run]:
        return self._runs(self.dispatcher.free(machine, now_s))

    def down(self, machines: list[int], now_s: float) -> list[int]:  # noqa: ARG002
        return self.dispatcher.lost(machines)

    def up(self, machines: list[int], now_s: float) -> list[Run]:
        hardware = self.s.machines
        return self._runs(
            self.dispatcher.gained([(m, self._kind[hardware[m].pool], hardware[m].copy()) for m in machines], now_s)
        )

    def refitted(self, now_s: float) -> None:
        self.dispatcher.reestimate(now_s)

    def _runs(self, starts: list[LiveStart]) -> list[Run]:
        return [Run(int(start.replica), start.task, self._number_of[start.variant]) for start in starts]  # type: ignore[call-overload]


def _own_name(name: str) -> str:
    """To routing `auto` is no variant; in a trace it is one like any other."""
    return "(auto)" if name == "auto" else name


def variant_of(name: str, fleet: Fleet) -> Variant:
    """A catalog entry for a variant of a trace: everything that routing does not ask for is open."""
    known = fleet.variants.get(name)
    # Unchecked: a trace's names need not be a catalog's.
    return Variant.model_construct(
        name=_own_name(name),
        pipeline="",
        weights="",
        steps=1,
        fps=1.0,
        modes=(Mode.TEXT_TO_VIDEO,),
        shape=ShapeRule(divisor=1, max_frames=10**6, max_pixels=10**9, native=((16, 16, 1),)),
        latent=Latent(channels=1, spatial=1, temporal=1),
        needs=Needs(vram_gib=known.vram_gib if known else 0.0),
        fallbacks=tuple(map(_own_name, known.fallbacks)) if known else (),
        quality=known.quality if known else 0.5,
        aliases=(),
        auto=True,
    )


POLICIES: dict[str, Callable[[Situation], Policy]] = {
    "fifo": Fifo,
    "random": Random,
    "round_robin": RoundRobin,
    "jsq": JoinShortestQueue,
    "p2c": PowerOfTwo,
    "least_work": LeastWork,
    "ect": EarliestCompletion,
    "ect_refuse": EarliestCompletionOrRefuse,
    "rushes": Rushes,
}
