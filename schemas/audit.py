"""The audit log: who asked for what, what was decided, which clip came of it. One value an event, told once.

    Entry ──canonical JSON──▶ Record: its place, the hash of the record before it, and its own hash over all of that

An entry holds texts, whole numbers and truth values only, money as text: so its canonical JSON is that of RFC 8785,
and whoever checks a hash in another language gets the same bytes. Words of a prompt are never in an entry, only their
salted hash (`trust.redaction`): they can be taken away later, and the chain holds.
"""

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

from schemas.moderation import Moderation

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_LOG_BYTES = 32  # of a log's name
_MOST_CHARS = 1000  # of a reason, or of anything else that somebody else wrote


class AuditPrompts(StrEnum):
    """What the audit log keeps of prompts."""

    KEEP = "keep"  # the words, beside the log
    REDACT = "redact"  # their salted hash alone


class AuditSettings(BaseModel):
    """The audit log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: AuditPrompts = Field(
        default=AuditPrompts.KEEP, description="the words of prompts are kept beside the log, or only their salted hash"
    )
    anchor_s: float = Field(
        default=600.0, ge=1, description="from one signed head of an endpoint's log, stored in `out`, to the next"
    )


class Action(StrEnum):
    """What happened. The part before the dot is what it happened to."""

    TASK_CREATED = "task.created"
    TASK_REFUSED = "task.refused"
    TASK_STARTED = "task.started"  # an attempt
    TASK_RETURNED = "task.returned"  # an attempt that came to nothing; another follows
    TASK_SUCCEEDED = "task.succeeded"
    TASK_FAILED = "task.failed"
    TASK_CANCEL_REQUESTED = "task.cancel_requested"
    TASK_CANCELLED = "task.cancelled"
    TASK_DELETED = "task.deleted"
    PROMPT_ERASED = "prompt.erased"
    BATCH_CREATED = "batch.created"
    BATCH_PLANNED = "batch.planned"
    BATCH_CANCEL_REQUESTED = "batch.cancel_requested"
    BATCH_ENDED = "batch.ended"
    UPLOAD_CREATED = "upload.created"
    UPLOAD_RECEIVED = "upload.received"
    UPLOAD_REMOVED = "upload.removed"
    KEY_CREATED = "key.created"
    KEY_CHANGED = "key.changed"
    KEY_REVOKED = "key.revoked"
    ROUTER_CREATED = "router.created"
    ROUTER_CHANGED = "router.changed"
    ROUTER_DELETED = "router.deleted"
    RUN_STARTED = "run.started"
    RUN_ENDED = "run.ended"
    ROWS_REJECTED = "rows.rejected"
    CHAIN_OPENED = "chain.opened"  # by a process of a run
    STORE_PRUNED = "store.pruned"  # rows other than the log's, for their age
    LOG_PRUNED = "log.pruned"  # records of the log itself, for their age


def storable(text: str) -> str:
    """Text from anywhere without what UTF-8 or Postgres do not have: NUL and lone surrogates become U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _short(text: object) -> object:
    return storable(text)[:_MOST_CHARS] if isinstance(text, str) else text


Text: TypeAlias = Annotated[str, BeforeValidator(_short)]
Detail: TypeAlias = StrictBool | StrictInt | str | tuple[str, ...]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AuditedClip(_Frozen):
    """The stored file that came of a task."""

    sha256: str
    uri: Text


class AuditedFinding(_Frozen):
    """What one scorer of moderation found in one part of a task. `score` is text: '0.83'."""

    part: Text = ""
    outcome: Text = ""
    scorer: Text = ""
    category: Text = ""
    score: Text = ""
    code: Text = ""
    error: Text = ""


def audited(moderation: Moderation) -> tuple[AuditedFinding, ...]:
    """What moderation found, as an entry has it."""
    return tuple(
        AuditedFinding(
            part=one.part.value,
            outcome=one.outcome.value,
            scorer=one.scorer,
            category=one.category,
            score="" if one.error else f"{one.score:.3f}",
            code=one.code,
            error=one.error,
        )
        for one in moderation.findings
    )


class Entry(_Frozen):
    """One event, as it is told. Fields that have their default are not in the JSON."""

    at: str = Field(description="ISO 8601, UTC, to the millisecond")
    actor: Text = Field(description="who: `key:ID`, `user:NAME@HOST`, `service:NAME@HOST`")
    action: Action
    subject: Text = Field(default="", description="to what: `task:ID`, `batch:ID`, `key:ID`, `run:ID` …")
    key_id: Text = Field(default="", description="the API key whose it is")
    decision: Text = Field(default="", description="in a word: a status, a variant, a code")
    reason: Text = Field(default="", description="why, for people")
    clip: AuditedClip | None = None
    moderation: tuple[AuditedFinding, ...] = ()
    prompt_sha256: str | None = Field(default=None, description="of salt and words; both lie beside the log, if at all")
    details: dict[str, Detail] = Field(default_factory=dict)

    @cached_property
    def canonical(self) -> str:
        """As the chain hashes it."""
        return canonical(self.model_dump(mode="json", exclude_defaults=True))


def prompt_erased(subject: str, records: int, now: float, actor: str) -> Entry:
    """What a log tells of prompts that were erased from it."""
    return Entry(
        at=instant(now), actor=actor, action=Action.PROMPT_ERASED, subject=subject, details=details(records=records)
    )


@dataclass(frozen=True)
class AuditFilter:
    """Of the audit log, what is all of these; None: whatever it is. Instants are seconds since the epoch."""

    key_id: str | None = None
    subject: str | None = None
    action: str | None = None
    since: float | None = None
    before: float | None = None

    def takes(self, entry: "Entry") -> bool:
        wanted = ((self.key_id, entry.key_id), (self.subject, entry.subject), (self.action, entry.action.value))
        if any(value is not None and value != found for value, found in wanted):
            return False
        if self.since is None and self.before is None:
            return True
        at = seconds_of(entry.at)
        return (self.since is None or at >= self.since) and (self.before is None or at < self.before)


@dataclass(frozen=True)
class Prompt:
    """What lies beside an entry: the salt (hexadecimal) of its `prompt_sha256`, and the words where they are kept."""

    salt: str
    words: str | None = None


@dataclass(frozen=True)
class Told:
    """An entry that is not in a chain yet, with what lies beside it."""

    entry: Entry
    prompt: Prompt | None = None


@dataclass(frozen=True)
class Record:
    """An entry at its place. `text` is its canonical JSON, as it was hashed."""

    position: int
    previous: str
    hash: str
    text: str

    @cached_property
    def entry(self) -> Entry:
        """Raises pydantic's ValidationError where the text is no entry that this version knows."""
        return Entry.model_validate_json(self.text)


@dataclass(frozen=True)
class Head:
    """How far a chain goes. `log` is its name, 64 digits drawn by chance, and the hash before its first record."""

    log: str
    position: int
    hash: str

    @classmethod
    def opened(cls, log: str) -> "Head":
        """Of a chain without records."""
        return cls(log, 0, log)

    @classmethod
    def drawn(cls) -> "Head":
        """Of a new chain, its name drawn by chance."""
        return cls.opened(secrets.token_hex(_LOG_BYTES))

    def __str__(self) -> str:
        return f"{self.log}:{self.position}:{self.hash}"

    @classmethod
    def read(cls, text: str) -> "Head":
        """As `str` has it; of `log` the first 16 digits are enough. Raises ValueError."""
        log, _, rest = text.partition(":")
        position, _, digest = rest.partition(":")
        if len(log) < 16 or not position.isdecimal() or len(digest) != 64:
            raise ValueError(f"no head of a log: {text!r}; it is LOG:POSITION:HASH, as `rushes audit head` prints it")
        return cls(log, int(position), digest)


def canonical(value: Any) -> str:
    """Canonical JSON (RFC 8785) of texts, whole numbers, truth values, and lists and objects of them."""
    return _CANONICAL.encode(value)


def instant(at: float) -> str:
    """Seconds since the epoch as an entry has them."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(at: str) -> float:
    """And back. Raises ValueError."""
    return datetime.fromisoformat(at).timestamp()


def money(usd: float) -> str:
    """Dollars as an entry has them: '0.012345', of which nothing below a millionth is told."""
    return str(Decimal(usd).quantize(Decimal("0.000001")))


def details(**given: object) -> dict[str, Detail]:
    """Those that say something, not None and not empty; texts as an entry may have them."""
    found: dict[str, Detail] = {}
    for name, value in given.items():
        if isinstance(value, str):
            if value:
                found[name] = storable(value)[:_MOST_CHARS]
        elif isinstance(value, list | tuple | set | frozenset):
            if value:
                found[name] = tuple(storable(str(one))[:_MOST_CHARS] for one in value)
        elif value is not None:
            found[name] = value  # type: ignore[assignment]  # an Entry refuses what is none
    return found
