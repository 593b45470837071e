"""What routing is asked and what it is shown: a task's terms, and a pool's state."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from schemas.catalog import Variant
from schemas.inputs import Role
from schemas.request import Mode
from schemas.shape import Shape


class Preference(StrEnum):
    """What decides between variants that would all do."""

    COST = "cost"
    LATENCY = "latency"
    QUALITY = "quality"


@dataclass(frozen=True, slots=True)
class Terms:
    """The part of a task's constraints that has nothing to do with the moment: many tasks share one."""

    mode: Mode = Mode.TEXT_TO_VIDEO
    variant: str = "auto"
    shape: Shape | None = None  # None: each variant's own default
    steps: int | None = None
    guidance: float | None = None
    roles: tuple[Role, ...] = ()  # of the inputs, each once
    prompt_chars: int = 0
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    min_quality: float = 0.0
    fall_back: bool = True
    fallbacks: tuple[str, ...] | None = None  # instead of the catalog's
    prefer: Preference = Preference.LATENCY
    skip_busy: bool = False  # take the next variant when the preferred one cannot start now
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        shape = self.shape and (self.shape.width, self.shape.height, self.shape.frames)
        own = (self.mode, self.variant, shape, self.steps, self.guidance, self.roles)
        key = (*own, self.allow, self.deny, self.prompt_chars)
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash  # computed once: it is asked for at every decision


class RoutingRequest(NamedTuple):
    """What one task asks of the fleet. `deadline_s` is an instant on the clock of `now_s`."""

    terms: Terms
    max_usd: float = math.inf
    deadline_s: float = math.inf
    task: int = 0  # the caller's own number, for its estimate
    brings: tuple[str, ...] = ()  # adapters, which whoever has not got them loads first


class PoolView(Protocol):
    """What routing reads of a pool: the actors that hold one variant on one accelerator type.

    A variant that could be loaded somewhere but is not has a pool with no replica, whose `start_s` includes the load.
    """

    @property
    def name(self) -> str: ...
    @property
    def variant(self) -> Variant: ...
    @property
    def accelerator(self) -> str: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def price_usd_per_hour(self) -> float: ...
    @property
    def vram_gib(self) -> float: ...  # of the accelerators of one replica together; 0 when not known
    def start_s(self, now_s: float) -> float:
        """When a task that is queued now would start: backlog and load included; infinite when never."""
        ...


@dataclass(frozen=True)
class PoolState:
    """A pool as a frozen value, for callers that keep no live one."""

    name: str
    variant: Variant
    accelerator: str
    wait_s: float = 0.0
    load_s: float = 0.0
    healthy: bool = True
    price_usd_per_hour: float = 0.0
    vram_gib: float = 0.0

    def start_s(self, now_s: float) -> float:
        return now_s + self.wait_s + self.load_s
