"""A task of the endpoint, from its acceptance to its clip: the values that the rooms' parts hand each other.

Instants are seconds since the epoch (UTC), as the store keeps them. A task's life:

    accepted → THROTTLED (its key is over its limit) → PENDING → RUNNING (leased) → SUCCEEDED | FAILED | CANCELLED
                                                          ↑__________|  lease expired, transient failure
"""

import math

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cluster.routing.terms import Preference
from schemas.clip import Clip, Status, Timings
from schemas.moderation import Moderation, PublicFigures
from schemas.request import Request
from schemas.task import Group

LIVE = frozenset({Status.PENDING, Status.THROTTLED, Status.RUNNING})
CREDITS_PER_USD = 100  # Runway's unit: one credit is a cent


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


class Constraints(_Frozen):
    """What the client allows: the durable half of a `RoutingRequest`. The variant is `request.variant`."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    fall_back: bool = True
    prefer: Preference = Preference.LATENCY
    min_quality: float = 0.0
    max_usd: float = math.inf
    deadline_at: float = math.inf
    skip_busy: bool = False
    public_figures: PublicFigures = Field(default="auto", description="how strict moderation is about them")


class Offer(_Frozen):
    """What the client was told at acceptance: frozen, so that it can be held against what came."""

    variant: str
    pool: str
    usd: float
    gpu_s: float
    wait_s: float
    eta_at: float
    eta_p90_at: float
    position: int = 0
    regime: int = 0  # of `cluster.scheduling.eta.Eta`, as the next four; they go back into the estimator
    raw_s: float = 0.0
    scale: float = 0.0
    own_s: float = 0.0
    warming_up: bool = False
    reason: str = ""
    sentence: str = ""
    story: tuple[dict[str, JsonValue], ...] = ()

    @property
    def credits(self) -> int:
        """Whole credits, rounded up: a client's cap is never exceeded by rounding."""
        return math.ceil(self.usd * CREDITS_PER_USD - 1e-9)


class Outcome(_Frozen):
    """How a task ended for good."""

    status: Status
    variant: str
    clip: Clip | None = None
    timings: Timings = Timings()
    billed_usd: float = 0.0
    billed_gpu_s: float = 0.0
    billed_finish_usd: float = Field(default=0.0, description="of billed_usd, what was done to the clip afterwards")
    failure: str = Field(default="", description="for the client: no stack trace, no path")
    failure_code: str = Field(default="", description="Runway's vocabulary: INTERNAL, SAFETY.INPUT.TEXT, …")
    moderation: Moderation = Field(default=Moderation(), description="what was found of its media and its frames")
    dead: bool = Field(default=False, description="given up after several attempts: listed among dead letters")


class NewTask(_Frozen):
    """A task that was admitted and is about to be stored."""

    id: str = Field(description="UUID; also the clip's name")
    key_id: str = Field(description="of the API key; 'local' on an endpoint without keys")
    kind: str = Field(description="the route that made it: text_to_video, image_to_video, …, generate, batch")
    model: str = Field(description="as the client named it")
    request: Request
    constraints: Constraints = Constraints()
    group: Group = Field(description="on the variant of the offer")
    offer: Offer
    priority: int = 0
    seed: int
    batch_id: str | None = None
    router_id: str | None = None
    webhook_url: str | None = None
    moderation: Moderation = Field(default=Moderation(), description="what was found of its prompt")
    outcome: Outcome | None = Field(default=None, description="of one that ends as it is accepted: it was refused")


class StoredTask(NewTask):
    """A task as the store has it."""

    seq: int = Field(description="order of acceptance, unique: the dispatcher's number for it")
    status: Status
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempts: int = 0
    epoch: int = Field(default=0, description="rises with every lease: what holds an older one is stale")
    holder: str = ""
    lease_until: float = 0.0
    not_before: float = Field(default=0.0, description="a retry waits until then")
    progress: float = Field(default=0.0, description="share of denoising steps, 0 to 1")
    stage: str = Field(default="", description="loading, rendering, encoding")
    cancelled: bool = Field(default=False, description="asked to stop; a running one stops at its next step")
    deleted: bool = False
    variant: str = Field(default="", description="that runs or ran it")
    fallback: str = Field(default="", description="why it is not the offered one")
    story: tuple[dict[str, JsonValue], ...] = Field(default=(), description="the last routing decision")
    last_error: str = Field(default="", description="of the last failed attempt, for operators")


class Lease(_Frozen):
    """The right to finish a task, as long as nobody else was given a later one."""

    task_id: str
    seq: int
    epoch: int
    attempt: int
