"""The audit log of a run: each process that takes part writes a chain of its own, and the run's own chain tells of all.

    driver   run.started {heads of earlier chains} … run.ended {heads of all chains} ──▶ anchor, signed
    actor    chain.opened {the run's head then} · task.succeeded · task.failed …          one object a batch

So nobody waits for anybody, and a chain of which the end is cut off, or which is gone, is missed: another told of it.
A process that is killed leaves a chain that simply ends; the next run into the folder tells how far it went.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import time

from pydantic import ValidationError

from schemas.audit import Action, AuditedClip, AuditPrompts, Entry, Head, Told, audited, details, instant, money
from schemas.clip import Record as LedgerRecord
from schemas.clip import Status
from schemas.errors import ObjectMissingError, one_line
from schemas.task import Task
from storage import keys
from storage.audit_segments import AuditSegments, Line
from storage.store import ObjectStore
from trust.audit_anchor import Anchor, anchored
from trust.audit_chain import appended
from trust.redaction import redacted, without_words, words_of
from trust.signers import PemSigner, Signer

log = logging.getLogger(__name__)

_MOST_SEGMENTS = 200  # of a chain; more are folded when a run ends
_ENDS = {Status.SUCCEEDED: Action.TASK_SUCCEEDED, Status.CANCELLED: Action.TASK_CANCELLED}


@dataclass(frozen=True)
class RunAudit:
    """What an actor's chain needs to know of its run: small enough to travel. `head` is the run's own when it began."""

    run_id: str
    actor: str
    prompts: AuditPrompts
    head: Head


class Trail:
    """One process's chain. Thread-safe. It begins with its first entry: a process that did nothing leaves nothing."""

    def __init__(self, store: ObjectStore, opening: Callable[[], Entry] | None = None) -> None:
        """`opening` makes the first entry of a chain, where that is not what the first call tells."""
        self._segments, self._opening = AuditSegments(store), opening
        self._lock = threading.Lock()
        self._head = Head.drawn()

    @property
    def head(self) -> Head:
        with self._lock:
            return self._head

    def tell(self, told: Sequence[Told]) -> None:
        """Chain these and store them in one object: durable when this returns. Raises what the store raises."""
        if not told:
            return
        with self._lock:
            if self._head.position == 0 and self._opening is not None:
                told = [Told(self._opening()), *told]
            records, head = appended(self._head, [one.entry.canonical for one in told])
            lines = [Line(head.log, record, one.prompt) for record, one in zip(records, told, strict=True)]
            try:
                self._segments.write(head.log, lines)
            except BaseException:
                # Stored or not, nobody knows: what follows goes into another chain, so that none has two ends.
                self._head = Head.drawn()
                raise
            self._head = head


def actor_trail(store: ObjectStore, run: RunAudit, process: str) -> Trail:
    """Of an actor."""

    def opening() -> Entry:
        return Entry(
            at=instant(time()),
            actor=run.actor,
            action=Action.CHAIN_OPENED,
            subject=f"run:{run.run_id}",
            details=details(process=process, heads=[str(run.head)]),
        )

    return Trail(store, opening)


def task_ended(task: Task, record: LedgerRecord, run: RunAudit, at: float, found: bool = False) -> Told:
    """What became of one task of a run, as its ledger has it. `found`: an earlier process had stored the clip."""
    prompt_sha256, prompt = redacted(words_of(task.words, task.negative_prompt), run.prompts)
    clip = record.clip
    entry = Entry(
        at=instant(at),
        actor=run.actor,
        action=_ENDS.get(record.status, Action.TASK_FAILED),
        subject=f"task:{record.fingerprint}",
        decision=record.failure_code or record.error_class or record.status.value,
        reason=without_words(record.error or "", *task.prompts, task.negative_prompt)
        or ("stored by a process that died before it could tell" if found else ""),
        clip=None if clip is None else AuditedClip(sha256=clip.sha256, uri=clip.uri),
        moderation=audited(record.moderation),
        prompt_sha256=prompt_sha256,
        details=details(
            run=run.run_id,
            variant=record.variant,
            revision=record.revision,
            seed=record.seed,
            attempts=record.attempts,
            billed_usd=money(record.billed_usd),
            quarantined=record.quarantined or None,
            signed_by=None if clip is None else clip.signed_by,
        ),
    )
    return Told(entry, prompt)


# -- what chains tell of each other ------------------------------------------------------------------------------------


def untold_heads(store: ObjectStore) -> list[str]:
    """Heads of the chains of which no chain of a run tells as far as they go: what the next of a run's entries has to
    tell of. Reads the runs' own chains whole, and the ends of each other."""
    segments = AuditSegments(store)
    chains = segments.chains()
    ends = segments.ends(chains)
    told: dict[str, int] = {}
    for chain, found in ends.items():
        if found.begins_with(Action.RUN_STARTED):
            for line in segments.lines(chains[chain]):
                for known in heads_in(line):
                    told[known.log] = max(told.get(known.log, 0), known.position)
    heads = (found.head for found in ends.values())
    return [str(head) for head in heads if head is not None and told.get(head.log, -1) < head.position]


def fold_chains(store: ObjectStore) -> int:
    """Put the segments of long chains into fewer objects: reading many small ones is slow. How many are gone."""
    segments = AuditSegments(store)
    long = [found for found in segments.chains().values() if len(found) > _MOST_SEGMENTS]
    fewer = sum(map(segments.fold, long))
    segments.drop_folded()
    return fewer


def heads_in(line: object) -> Iterator[Head]:
    """The heads of other chains that a line of a segment tells of; nothing of what is none."""
    if not isinstance(line, Line):
        return
    try:
        told = line.record.entry.details.get("heads")
    except ValidationError:
        return
    for text in told if isinstance(told, tuple) else ():
        with suppress(ValueError):
            yield Head.read(text)


# -- anchors -----------------------------------------------------------------------------------------------------------


def put_anchor(store: ObjectStore, head: Head, now: float, signer: Signer | PemSigner | None) -> Anchor:
    """Store the head, signed, once: the first that was taken at a place stays. Where the signer fails it is unsigned,
    and our own log says why. Raises what the store raises."""
    at = instant(now)
    try:
        anchor = anchored(head, at, signer)
    except Exception as error:  # a signer may be somebody else's, and raise what it likes
        log.error("an anchor of the audit log is not signed: %s", one_line(error))
        anchor = anchored(head, at)
    body = anchor.model_dump_json(indent=1, exclude_defaults=True).encode()
    store.put(keys.audit_anchor(head.log, head.position), body, "application/json", if_absent=True)
    return anchor


def stored_anchors(store: ObjectStore) -> Iterator[tuple[str, Anchor | None]]:
    """(key, anchor) of all that are there; None for one that cannot be read."""
    for info in store.list(keys.AUDIT_ANCHORS):
        if keys.audit_anchor_of(info.key) is None:
            continue
        try:
            yield info.key, Anchor.model_validate_json(store.get(info.key))
        except ValidationError:
            yield info.key, None
        except ObjectMissingError:
            continue


def drop_anchors(store: ObjectStore, log: str, before: int) -> int:
    """Remove anchors of positions that were pruned; how many."""
    old = [
        info.key
        for info in store.list(keys.AUDIT_ANCHORS)
        if (of := keys.audit_anchor_of(info.key)) is not None and log.startswith(of[0]) and of[1] < before
    ]
    store.delete(old)
    return len(old)
