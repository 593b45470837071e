"""What `ServiceTimes` has learnt, as a frozen value that becomes JSON."""

from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.cost.load_times import LoadTimesState

USUAL_NOISE = 0.3
"""Standard deviation of the log seconds of calls of one configuration, before any was seen."""


class NodeState(NamedTuple):
    """One node."""

    offset: float
    variance: float
    calls: int


class VariantState(NamedTuple):
    """A variant, on all accelerators."""

    variant: str
    identity: str
    node: NodeState


class PlaceState(NamedTuple):
    """A variant on an accelerator."""

    variant: str
    accelerator: str
    noise: float
    node: NodeState


class LeafState(NamedTuple):
    """A configuration there, with what the prior said of it, and the tenants that were seen with it."""

    variant: str
    accelerator: str
    configuration: tuple[int | float, ...] | int | str
    batch: int
    prior_log_s: float
    usual_log_s: float
    last: int
    node: NodeState
    tenants: tuple[tuple[str, NodeState], ...]


class ServiceTimesState(BaseModel):
    """All that `ServiceTimes` has learnt, beside its prior: for a store, and for whoever predicts from a copy."""

    model_config = ConfigDict(frozen=True)

    version: Literal[2] = 2  # of this format
    observed: int = 0
    noise: float = USUAL_NOISE
    every: NodeState | None = None
    levels: tuple[tuple[float, int], ...] = ()
    variants: tuple[VariantState, ...] = ()
    places: tuple[PlaceState, ...] = ()
    leaves: tuple[LeafState, ...] = ()
    loads: LoadTimesState = LoadTimesState()

    @classmethod
    def read(cls, note: object) -> Self | None:
        """The state in a JSON value; None where there is none or it is of another format."""
        try:
            return cls.model_validate(note)
        except ValidationError:
            return None
