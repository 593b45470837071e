"""The policies that the simulator knows by name: the usual ones, and Rushes' own."""

from collections.abc import Callable

from cluster.simulation.baselines import (
    EarliestCompletion,
    EarliestCompletionOrRefuse,
    EarliestCompletionSoft,
    Fifo,
    JoinShortestQueue,
    JoinShortestQueueFallback,
    JoinShortestQueueOrRefuse,
    LeastWork,
    PowerOfTwo,
    PowerOfTwoFallback,
    PowerOfTwoOrRefuse,
    Random,
    RoundRobin,
)
from cluster.simulation.policy_context import Policy, PolicyContext
from cluster.simulation.scheduler_policy import Rushes

PolicyFactory = Callable[[PolicyContext], Policy]

POLICIES: dict[str, PolicyFactory] = {
    "fifo": Fifo,
    "random": Random,
    "round_robin": RoundRobin,
    "jsq": JoinShortestQueue,
    "jsq_fallback": JoinShortestQueueFallback,
    "jsq_refuse": JoinShortestQueueOrRefuse,
    "p2c": PowerOfTwo,
    "p2c_fallback": PowerOfTwoFallback,
    "p2c_refuse": PowerOfTwoOrRefuse,
    "least_work": LeastWork,
    "ect": EarliestCompletion,
    "ect_refuse": EarliestCompletionOrRefuse,
    "ect_soft": EarliestCompletionSoft,
    "rushes": Rushes,
}
