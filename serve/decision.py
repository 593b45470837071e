"""What admission decided of a request: where it would go and what the client is told, or why not."""

import secrets
import uuid
from dataclasses import dataclass

from cluster.routing import Choice
from cluster.story import Story
from schemas.errors import InvalidRequestError, Issue, TransientError
from schemas.request import Request
from schemas.task import Group
from serve.tasks import Constraints, NewTask, Offer


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
    def story(self) -> Story:
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
    ) -> NewTask:
        """The task to store. Without a seed in the request it gets a random one."""
        seed = self.request.seed
        return NewTask(
            id=task_id or str(uuid.uuid4()),
            key_id=key_id,
            kind=kind,
            model=model,
            request=self.request,
            constraints=self.constraints,
            group=self.group,
            offer=self.offer,
            priority=self.request.priority,
            seed=secrets.randbits(32) if seed is None else seed,
            batch_id=batch_id,
            router_id=router_id,
            webhook_url=webhook_url,
        )
