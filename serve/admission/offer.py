"""What admission decided of a request: where it would go and what the client is told, or why not."""

import secrets
import uuid
from dataclasses import dataclass

from cluster.routing.decision_trace import DecisionTrace
from cluster.routing.router import Choice
from schemas.clip import Status
from schemas.errors import InvalidRequestError, Issue, TransientError
from schemas.moderation import Moderation
from schemas.request import Request
from schemas.task import Group
from serve.tasks import Constraints, NewTask, Offer, Outcome


class RefusedError(InvalidRequestError):
    """No variant would do within the constraints. `choice` is the whole account."""

    def __init__(self, issues: tuple[Issue, ...], choice: Choice) -> None:
        self.choice = choice
        super().__init__(issues)


class NoCapacityError(TransientError):
    """Every pool that could render the request is down."""

    def __init__(self, message: str, choice: Choice) -> None:
        self.choice = choice
        super().__init__(message)


@dataclass(frozen=True)
class Decision:
    """Where a request would go, and what the client is told."""

    request: Request
    constraints: Constraints
    group: Group
    offer: Offer
    choice: Choice

    @property
    def story(self) -> DecisionTrace:
        return self.choice.story

    def as_task(
        self,
        *,
        key_id: str,
        kind: str,
        model: str,
        task_id: str | None = None,
        batch_id: str | None = None,
        router_id: str | None = None,
        webhook_url: str | None = None,
        moderation: Moderation = Moderation(),  # noqa: B008 (frozen)
        bill_refused: bool = False,
        seed: int | None = None,
    ) -> NewTask:
        """The task to store. Its seed is `seed`, or the request's, or a random one. One that moderation refused is over
        already, and billed its quote where `bill_refused`; of its media nothing is kept."""
        seed = self.request.seed if seed is None else seed
        # Of several samples each is a task.
        request, outcome = self.request.model_copy(update={"samples": 1}), None
        if moderation.is_refused:
            request = request.model_copy(update={"inputs": (), "image": None, "video": None})
            outcome = Outcome(
                status=Status.FAILED,
                variant=self.offer.variant,
                billed_usd=self.offer.usd if bill_refused and moderation.is_of_content else 0.0,
                failure=moderation.told,
                failure_code=moderation.code,
                moderation=moderation,
            )
        return NewTask(
            id=task_id or str(uuid.uuid4()),
            key_id=key_id,
            kind=kind,
            model=model,
            request=request,
            constraints=self.constraints,
            group=self.group,
            offer=self.offer,
            priority=self.request.priority,
            seed=secrets.randbits(32) if seed is None else seed,
            batch_id=batch_id,
            router_id=router_id,
            webhook_url=webhook_url,
            moderation=moderation,
            outcome=outcome,
        )
