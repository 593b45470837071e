"""The store's contract. SQLite (WAL, synchronous=FULL) and Postgres fulfil it alike, and a store in memory as far
as a scheduler needs it; one set of tests runs on all three.

Every method is one transaction, synchronous, thread-safe, and durable when it returns, except in memory. Methods that
change a task which somebody holds take its epoch and do nothing when it is stale (False, or left out of the answer).
Errors: StoreUnavailableError (transient: locked, connection lost) and IdempotencyError; nothing else of SQLAlchemy's
leaves the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from schemas.audit import AuditFilter, Head, Prompt, Record, Told
from schemas.clip import Status
from serve.store.attempts import AttemptEnd
from serve.store.cutoffs import Cutoffs, Pruned
from serve.tasks import Lease, NewTask, Outcome, StoredTask

MOST_AHEAD = 10_000
"""Where `TaskStore.positions` stops to count."""


@dataclass(frozen=True)
class Submitted:
    """`tasks` in the order given. `replayed`: the idempotency key was seen before, these are the tasks of then."""

    tasks: tuple[StoredTask, ...]
    replayed: bool = False


@dataclass(frozen=True)
class Idempotency:
    """The client's own key, and a digest of the body: the same key with another body raises IdempotencyError."""

    key: str
    digest: str


@dataclass(frozen=True)
class Progress:
    """Of one lease, from the replica's heartbeat."""

    task_id: str
    epoch: int
    progress: float
    stage: str


@dataclass(frozen=True)
class Counts:
    """How many tasks are in each status, and how many of them are dead letters."""

    by_status: Mapping[Status, int]
    dead: int = 0


class LiveRow(NamedTuple):  # made a hundred thousand at a time: a frozen dataclass takes four times as long
    """Of a PENDING or RUNNING task, what a scheduler compares with what it believes: cheap to read for all of them."""

    seq: int
    id: str
    status: Status
    epoch: int
    attempts: int
    holder: str
    lease_until: float
    not_before: float
    cancelled: bool


class TaskStore(Protocol):
    """Tasks and their leases."""

    def submit(
        self,
        tasks: Sequence[NewTask],
        now: float,
        *,
        idempotency: Idempotency | None = None,
        max_live: int | None = None,
        max_since: tuple[float, int] | None = None,
        max_month_usd: float | None = None,
        batch: "Batch | None" = None,
    ) -> Submitted:
        """Store tasks of one key, and the batch that they are of, all or none. Beyond `max_live` unfinished unthrottled
        tasks of that key the rest start THROTTLED, and all of them while it has a bulk run open.
        `max_since=(since, n)`: raises DailyLimitError when more than n would have been created since then, rows of bulk
        runs among them. `max_month_usd`: raises SpendLimitError when what the key was accepted in this UTC month would
        cost more, as billed or, while unfinished, as offered. A webhook_url on a task is kept for its end. One with an
        outcome is over at once: it waits for nobody, and takes no place."""

    def replay(self, key_id: str, idempotency: Idempotency) -> tuple[StoredTask, ...] | None:
        """What was stored under the client's key before, without storing anything; None when nothing was."""

    def get(self, task_id: str, key_id: str | None = None) -> StoredTask | None:
        """None when there is none, it was deleted, or it belongs to another key (when `key_id` is given)."""

    def get_many(self, task_ids: Sequence[str]) -> tuple[StoredTask, ...]: ...

    def positions(self, tasks: Sequence[StoredTask]) -> tuple[int, ...]:
        """For each, the PENDING tasks that come before it: higher priority first, then order of acceptance; 0 for one
        that does not wait. Index-only, capped at `MOST_AHEAD`."""

    def pending(self, after_seq: int = 0, limit: int = 5000) -> tuple[StoredTask, ...]:
        """PENDING tasks with a larger seq, in its order: how a dispatcher finds new work, and rebuilds its queue."""

    def live_index(self, after_seq: int = 0, limit: int = 200_000) -> tuple[LiveRow, ...]:
        """PENDING and RUNNING tasks with a larger seq, in its order, as of one instant: what to reconcile with."""

    def waiting_again(self, now: float) -> tuple[StoredTask, ...]:
        """PENDING tasks that were leased before (attempts > 0) and whose `not_before` is past."""

    def lease(
        self,
        seqs: Sequence[int],
        holder: str,
        variant: str,
        until: float,
        now: float,
        *,
        groups: Mapping[int, str] | None = None,
        fallback: Mapping[int, str] | None = None,
    ) -> tuple[Lease, ...]:
        """Take those that are still PENDING and not cancelled: RUNNING, epoch and attempts one higher. `groups` gives
        a new group (JSON of schemas.task.Group) for tasks that go to another variant, `fallback` the reason."""

    def renew(self, progress: Sequence[Progress], until: float) -> tuple[str, ...]:
        """Prolong leases and keep their progress. Returns the task ids that their holder must stop: cancelled, or no
        longer its own."""

    def finish(self, task_id: str, epoch: int, outcome: Outcome, now: float) -> Status | None:
        """End a task for good, and make its webhook due, in one transaction; how it has ended. None: stale, nothing
        was changed. A task that was cancelled meanwhile ends CANCELLED whatever the outcome says, with the outcome's
        bill and without its clip."""

    def give_back(
        self, task_id: str, epoch: int, error: str, not_before: float, *, spent: bool = True
    ) -> Status | None:
        """A failed attempt that is worth another: PENDING again, lease cleared; or CANCELLED, if that was asked for
        meanwhile. None: stale. Not `spent`: nobody began it, so it was no attempt, and its holder can never take it
        up again."""

    def give_up(self, task_id: str, epoch: int, outcome: Outcome, now: float) -> Status | None:
        """End a PENDING task that nobody can ever take, without a lease; how it has ended, also when that was said
        before. None: it does not wait any more, or was leased since `epoch` was read; nothing was changed."""

    def settle(self, ends: Sequence[AttemptEnd], now: float) -> tuple[Status | None, ...]:
        """Several of `finish`, `give_back` and `give_up` in one transaction: all are stored, or none. For each the
        answer that its own method gives; one that is stale does not stop the others."""

    def take_up(self, task_id: str, epoch: int, holder: str, until: float, now: float) -> bool:
        """A lease that was given back goes on, in the same attempt, unless the task was leased again, or ended, or was
        cancelled: its holder was only slow. False: nothing was changed."""

    def expired(self, now: float) -> tuple[StoredTask, ...]:
        """RUNNING tasks whose lease ran out."""

    def cancel(self, task_id: str, key_id: str | None, now: float) -> Status | None:
        """A waiting task ends CANCELLED at once; a running one is marked, and its holder told at the next renew.
        Returns the status before; None when there is no such task."""

    def delete(self, task_id: str, key_id: str | None) -> bool:
        """Hide a task from every later `get` (cancel it first). It stays in the usage, and among the `unpurged` until
        `purged` says that nothing of it is stored any more; one that nobody ever began has nothing stored."""

    def unpurged(self, limit: int = 500) -> tuple[str, ...]:
        """Ids of tasks that were deleted and have ended, and of which something may still be in the object store."""

    def purged(self, task_ids: Sequence[str]) -> None:
        """Nothing of these is in the object store any more. Idempotent."""

    def release(self, key_id: str, max_live: int, now: float) -> tuple[StoredTask, ...]:
        """THROTTLED tasks of a key become PENDING, oldest first, as far as `max_live` allows. They get a new seq, so
        that `pending(after_seq)` finds them."""

    def throttled_keys(self) -> tuple[str, ...]: ...

    def reprice(self, task_id: str, group: str, story: str) -> None:
        """Keep a new routing decision of a waiting task (JSON)."""

    def counts(self, key_id: str | None = None, *, statuses: Sequence[Status] = tuple(Status)) -> Counts:
        """By index alone; it takes as long as there are tasks of these statuses, so ask for no more than you need."""

    def recent(
        self,
        limit: int = 20,
        *,
        statuses: Sequence[Status] = (),
        key_id: str | None = None,
        batch_id: str | None = None,
        before_seq: int | None = None,
    ) -> tuple[StoredTask, ...]:
        """Latest first."""

    def usage(self, key_id: str, start: float, before: float) -> tuple[tuple[str, str, int, float], ...]:
        """(UTC date, model, tasks created, dollars billed) for a key, by date and model. Of pruned tasks only the day
        is known: they count where its first instant lies in the span."""

    def running(self) -> tuple[StoredTask, ...]: ...

    def media_in_use(self) -> frozenset[str]:
        """URIs of the images and videos that unfinished tasks read."""


@dataclass(frozen=True)
class ApiKey:
    """A key's entry: its secret is not in it."""

    id: str
    name: str
    created_at: float
    max_concurrent: int | None = None
    max_daily: int | None = None
    monthly_credits: int | None = None
    weight: float | None = None  # beside other keys; None: 1
    max_priority: int | None = None  # levels by which its tasks may go ahead of other keys'; None: 0
    revoked_at: float | None = None


class KeyStore(Protocol):
    """API keys, by the SHA-256 of their secret (they are 256 random bits: nothing to guess, so no slow hash)."""

    def add(self, key: ApiKey, digest: str) -> None: ...
    def find(self, digest: str) -> ApiKey | None: ...
    def get(self, key_id: str) -> ApiKey | None: ...
    def all(self) -> tuple[ApiKey, ...]: ...
    def change(self, key: ApiKey) -> bool:
        """Its name and limits, from now on. False when there is none of its id, or it was revoked."""

    def revoke(self, key_id: str, now: float) -> bool: ...


@dataclass(frozen=True)
class RouterConfig:
    """A model router of a client."""

    id: str
    key_id: str
    slug: str
    name: str
    description: str | None
    settings: Mapping[str, JsonValue]
    version: int
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class RouterDecision:
    """One request that a router decided, as its log shows it. `body` is the entry in wire form."""

    id: str
    router_id: str
    created_at: float
    body: Mapping[str, JsonValue]


class RouterStore(Protocol):
    """Model routers and their log. Slugs are unique within a key; lists are newest first; a cursor is opaque."""

    def create(self, router: RouterConfig) -> bool:
        """False when the slug is taken."""

    def get(self, key_id: str, router_id: str) -> RouterConfig | None: ...
    def by_slug(self, key_id: str, slug: str) -> RouterConfig | None: ...
    def list(self, key_id: str, limit: int, cursor: str | None) -> tuple[tuple[RouterConfig, ...], str | None]: ...
    def update(self, router: RouterConfig, expected_version: int) -> bool: ...
    def delete(self, key_id: str, router_id: str) -> bool: ...
    def log(self, decision: RouterDecision) -> None: ...
    def decisions(
        self, router_id: str, limit: int, cursor: str | None
    ) -> tuple[tuple[RouterDecision, ...], str | None]: ...


@dataclass(frozen=True)
class Batch:
    """A collection of tasks, or a bulk run behind one id (`run_uri` is then where it writes)."""

    id: str
    key_id: str
    created_at: float
    total: int
    quote_usd: float
    status: Status = Status.PENDING
    webhook_url: str | None = None
    manifest_uri: str | None = None
    run_uri: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    billed_usd: float = 0.0
    finished_at: float | None = None
    failure: str = ""
    model: str = "auto"
    details: Mapping[str, JsonValue] = field(default_factory=dict)


class BatchStore(Protocol):
    """Batches. Those of queued tasks get status and counts from the tasks; those of bulk runs from `update`."""

    def create(self, batch: Batch) -> None: ...
    def begin(
        self,
        batch: Batch,
        *,
        idempotency: Idempotency | None = None,
        max_since: tuple[float, int] | None = None,
        max_month_usd: float | None = None,
    ) -> Batch:
        """Store the batch of a bulk run, within the limits of its key as `TaskStore.submit` holds them. Where the
        idempotency key was seen before: the batch of then, and nothing is stored."""

    def replay(self, key_id: str, idempotency: Idempotency) -> Batch | None:
        """What was stored under the client's key before, of whatever kind; None when nothing was."""

    def get(self, batch_id: str, key_id: str | None = None) -> Batch | None: ...
    def update(
        self, batch_id: str, status: Status, counts: Mapping[str, int], billed_usd: float, now: float, failure: str = ""
    ) -> None: ...
    def planned(
        self,
        batch_id: str,
        total: int,
        quote_usd: float,
        *,
        max_since: tuple[float, int] | None = None,
        max_month_usd: float | None = None,
    ) -> None:
        """A bulk run knows how many rows it has and what they are said to cost. Raises DailyLimitError or
        SpendLimitError, and changes nothing, where the key may not have so much."""

    def unfinished_runs(self) -> tuple[Batch, ...]: ...
    def cancel(self, batch_id: str, key_id: str | None, now: float) -> int:
        """Cancel its unfinished tasks; returns how many."""


@dataclass(frozen=True)
class Upload:
    """A file that a client was told it may send."""

    id: str
    key_id: str
    filename: str
    object_key: str
    created_at: float
    expires_at: float
    content_type: str = ""
    upload_bytes: int | None = None


class UploadStore(Protocol):
    def add(self, upload: Upload) -> None: ...
    def get(self, upload_id: str) -> Upload | None: ...
    def complete(self, upload_id: str, content_type: str, upload_bytes: int) -> None: ...
    def expired(self, now: float) -> tuple[Upload, ...]: ...
    def remove(self, upload_id: str) -> None: ...


@dataclass(frozen=True)
class Delivery:
    """A webhook message until it was delivered: at least once."""

    id: str
    url: str
    key_id: str
    payload: str
    created_at: float
    due_at: float
    attempts: int = 0
    last_error: str = ""
    delivered_at: float | None = None
    given_up: bool = False


class DeliveryStore(Protocol):
    def due(self, now: float, limit: int = 100, *, claim_s: float = 60.0) -> tuple[Delivery, ...]:
        """Those due, claimed for `claim_s`: another deliverer leaves them alone until then."""

    def add(self, delivery: Delivery) -> None: ...
    def delivered(self, delivery_id: str, now: float) -> None: ...
    def failed(self, delivery_id: str, error: str, due_at: float | None) -> None:
        """`due_at` None: given up."""

    def counts(self) -> Mapping[str, int]:
        """waiting, delivered, given_up."""


class NoteStore(Protocol):
    """Small named JSON values: the fleet's last state, calibration, ETA regimes, webhook secrets, drain flags."""

    def read(self, name: str) -> JsonValue: ...
    def write(self, name: str, value: JsonValue) -> None: ...
    def write_once(self, name: str, value: JsonValue) -> None:
        """Unless there is one of that name: of several first writers, one wins for all."""

    def read_many(self, prefix: str) -> Mapping[str, JsonValue]: ...


class Filed(NamedTuple):
    """Under what a record of the audit log is found: its own entry says the same."""

    at: float
    action: str
    subject: str
    key_id: str


class ChainedRecord(NamedTuple):
    """A record of the audit log, with what lies beside it."""

    record: Record
    prompt: Prompt | None
    filed: Filed


class AuditStore(Protocol):
    """The audit log. What the other stores change they tell of themselves, in the same transaction."""

    def tell(self, told: Sequence[Told]) -> None:
        """Of what is stored nowhere else, such as what was refused."""

    def chain(self, limit: int = 1000) -> int:
        """Chain what was told and waits, at most so much of it, in the order in which it was told; how many. Any
        process may, one does at a time."""

    def head(self) -> Head | None:
        """How far the chain goes; None before its first record."""

    def floor(self) -> Head | None:
        """What comes before its first record that is there: the opened log, or the last record that was pruned."""

    def waiting(self, most: int | None = None) -> int:
        """How many entries are not chained yet, counted no further than `most`."""

    def records(self, after: int = 0, limit: int = 1000, of: AuditFilter | None = None) -> tuple[ChainedRecord, ...]:
        """In the chain's order, from after that position."""

    def prune(self, before: float, limit: int, now: float, actor: str) -> int:
        """Remove records from the beginning that are older, up to the first that is not, and tell of it; how many."""

    def erase(self, subject: str, now: float, actor: str) -> int:
        """Remove the words and salts beside the records of a subject, `task:ID`, and tell of it; of how many. The chain
        stays whole: it has their hashes."""


class Store(Protocol):
    """All of them, over one database."""

    tasks: TaskStore
    keys: KeyStore
    routers: RouterStore
    batches: BatchStore
    uploads: UploadStore
    deliveries: DeliveryStore
    notes: NoteStore
    audit: AuditStore

    def prune(self, before: Cutoffs, limit: int = 500) -> Pruned:
        """Forget what is older, at most `limit` rows of a kind, in short transactions: call it until nothing is left.

        A task stays while its batch is open, while an old idempotency key may name it, and while it is `unpurged`. What
        was billed for it stays in the usage. A batch stays while a task of it does; its notes go with it.
        """

    def close(self) -> None: ...
