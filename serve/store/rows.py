"""A task as a row, and back."""

from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter
from sqlalchemy import Select, select

from schemas.clip import Status
from schemas.moderation import Moderation
from schemas.request import Request
from schemas.task import Group
from serve.config import DAY_S
from serve.store.database import AnyRow
from serve.store.tables import tasks
from serve.tasks import Constraints, NewTask, Offer, Outcome, StoredTask

_STORY = TypeAdapter(tuple[dict[str, JsonValue], ...])
# Columns that are not fields of a StoredTask, or not under their own names.
_NOT_READ = frozenset({"day", "billed_usd", "quoted_usd", "dead", "purged"})
_NOT_FIELDS = _NOT_READ | {"body", "render_group", "cancelled_at"}
_COLUMNS = [column for column in tasks.c if column.name not in _NOT_READ]
_FIELDS = tuple(column.name for column in _COLUMNS if column.name not in _NOT_FIELDS)


class _Body(BaseModel):
    """What never changes after acceptance."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    request: Request
    constraints: Constraints
    offer: Offer
    moderation: Moderation = Moderation()


def select_tasks() -> Select[Any]:
    """The columns that `stored_task` reads."""
    return select(*_COLUMNS)


def row_of(task: NewTask, seq: int, status: Status, now: float) -> dict[str, object]:
    """A new task's row; what is not named has its default. How one has ended is for `ended_row_of`."""
    body = _Body(request=task.request, constraints=task.constraints, offer=task.offer, moderation=task.moderation)
    return {
        "seq": seq,
        "id": task.id,
        "key_id": task.key_id,
        "kind": task.kind,
        "model": task.model,
        "status": status.value,
        "priority": task.priority,
        "seed": task.seed,
        "batch_id": task.batch_id,
        "router_id": task.router_id,
        "webhook_url": task.webhook_url,
        "created_at": now,
        "day": day_of(now),
        "quoted_usd": task.offer.usd,
        "body": body.model_dump_json(),
        "render_group": task.group.model_dump_json(),
    }


def ended_row_of(task: NewTask, outcome: Outcome, seq: int, now: float) -> dict[str, object]:
    """The row of a task that ends as it is accepted."""
    return {
        **row_of(task, seq, outcome.status, now),
        "finished_at": now,
        "outcome": outcome.model_dump_json(),
        "billed_usd": outcome.billed_usd,
        "variant": outcome.variant,
    }


def as_stored(task: NewTask, seq: int, status: Status, now: float) -> StoredTask:
    """A new task as a later `get` would read it."""
    fields = {name: getattr(task, name) for name in NewTask.model_fields}
    if task.outcome is not None:
        fields |= {"finished_at": now, "variant": task.outcome.variant}
    return StoredTask.model_validate(
        fields | {"seq": seq, "status": status, "created_at": now, "story": task.offer.story}
    )


def stored_task(row: AnyRow) -> StoredTask:
    columns = row._mapping
    body = _body(columns["body"])
    fields: dict[str, Any] = {name: columns[name] for name in _FIELDS}
    fields["request"], fields["constraints"], fields["offer"] = body.request, body.constraints, body.offer
    fields["moderation"] = body.moderation
    fields["group"] = _group(columns["render_group"])
    fields["cancelled"] = columns["cancelled_at"] is not None
    story, outcome = columns["story"], columns["outcome"]
    fields["story"] = body.offer.story if story is None else _STORY.validate_json(story)
    fields["outcome"] = None if outcome is None else Outcome.model_validate_json(outcome)
    return StoredTask.model_validate(fields)


def day_of(instant: float) -> int:
    """UTC days since the epoch."""
    return int(instant // DAY_S)


@lru_cache(maxsize=1024)
def _body(text: str) -> _Body:
    # It never changes, and whoever asks for a task asks again.
    return _Body.model_validate_json(text)


@lru_cache(maxsize=1024)
def _group(text: str) -> Group:
    # Few distinct groups, many tasks; one instance also keeps its key.
    return Group.model_validate_json(text)
