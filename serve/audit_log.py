"""An endpoint's audit log, read: verified against the anchors in its object store, exported, prompts erased."""

from collections.abc import Iterator, Sequence

from actors.audit_trail import stored_anchors
from schemas.audit import AuditFilter, Head
from schemas.errors import ConfigError
from serve.store.audit import filed_of
from serve.store.contract import ChainedRecord, Store
from storage.objects import ObjectStore
from trust.audit_chain import AuditFault, AuditReport, ChainCheck, Fault
from trust.audit_source import Found, checked_anchors, signers_of

_AT_ONCE = 1000
_TRIES = 3  # while records are pruned at the same time


class EndpointAuditLog:
    """`AuditSource` over an endpoint's store. `objects` is where its clips go, and the anchors; None: they are not
    looked at."""

    def __init__(self, store: Store, objects: ObjectStore | None) -> None:
        self._store, self._objects = store, objects

    def verify(self, heads: Sequence[Head] = (), authorities: str | None = None) -> AuditReport:
        audit = self._store.audit
        stored = stored_anchors(self._objects) if self._objects is not None else ()
        believed, forged = checked_anchors(stored, authorities)
        for _ in range(_TRIES):
            head, floor = audit.head(), audit.floor()
            if head is None or floor is None:
                return self._headless(forged, len(believed))
            # What is older than the floor says nothing of what is left.
            known = [one for one in (*(anchor.head for anchor in believed), *heads) if one.position >= floor.position]
            check = ChainCheck(floor, known)
            misfiled: list[AuditFault] = []
            for found in self._all(floor.position):
                check.see(found.record, found.prompt)
                if not _is_filed(found):
                    said = "it is found under another subject, key, action or time than it says"
                    misfiled.append(AuditFault(Fault.MISFILED, found.record.position, said, floor.log))
            report = check.end(head)
            later = audit.head()
            if later is None or later.position < report.head.position:
                # It moves in the transaction that appends: what stands after it was put there by somebody else.
                said = f"the log's own head is {'gone' if later is None else later.position}, and records go further"
                misfiled.append(AuditFault(Fault.MOVED, report.head.position, said, floor.log))
            if audit.floor() == floor:
                break
        faults = tuple(sorted([*report.faults, *misfiled, *forged], key=lambda one: one.position))
        notes = () if self._objects is not None else ("anchors were not looked at: say where clips go, with --out",)
        return AuditReport((report,), faults, len(believed), signers_of(believed), audit.waiting(), notes)

    def records(self, of: AuditFilter) -> Iterator[Found]:
        """With what was told and waits: it is chained first."""
        self._chain_all()
        floor = self._store.audit.floor()
        if floor is None:
            raise ConfigError(self._nothing())
        for found in self._all(floor.position, of):
            yield floor.log, found.record, found.prompt

    def heads(self) -> tuple[Head, ...]:
        self._chain_all()
        head = self._store.audit.head()
        return () if head is None else (head,)

    def erase(self, subject: str, now: float, actor: str) -> int:
        return self._store.audit.erase(subject, now, actor)

    def _headless(self, forged: Sequence[AuditFault], anchors: int) -> AuditReport:
        """Of a store without the row that says how far its log goes: nothing was told yet, or somebody took it away."""
        first = next(self._all(0), None)
        if first is None and not anchors:
            raise ConfigError(self._nothing())
        at, before = (1, "") if first is None else (first.record.position, first.record.previous)
        fault = AuditFault(Fault.TRUNCATED, at, "the log's own head is gone, though there are records or anchors of it")
        check = ChainCheck(Head(before if at == 1 else "", at - 1, before), partial=True)
        for found in self._all(0):
            check.see(found.record, found.prompt)
        report = check.end()
        faults = (fault, *report.faults, *forged)
        return AuditReport((report,), faults, anchors, waiting=self._store.audit.waiting())

    def _chain_all(self) -> None:
        while self._store.audit.chain():
            pass

    def _all(self, after: int, of: AuditFilter | None = None) -> Iterator[ChainedRecord]:
        while page := self._store.audit.records(after, _AT_ONCE, of):
            yield from page
            after = page[-1].record.position

    def _nothing(self) -> str:
        waiting = self._store.audit.waiting()
        return "the audit log has no records yet" + (f"; {waiting} wait to be chained" if waiting else "")


def _is_filed(found: ChainedRecord) -> bool:
    try:
        return filed_of(found.record.text) == found.filed
    except (ValueError, KeyError, TypeError):
        return False
