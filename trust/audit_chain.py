"""The chain of the audit log: making it, and finding what was done to it. Pure.

    hash = SHA-256 of canonical JSON: {"entry": …, "position": n, "previous": hash of record n − 1}

Whoever changes, removes, inserts or moves a record breaks the chain at that place. Whoever can write may also make all
of it anew from there on, or cut off its end: only a head that was noted elsewhere, an anchor, shows that. So a record
is protected from the next anchor on, whenever it was chained.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import ValidationError

from schemas.audit import Action, Head, Prompt, Record
from trust.redaction import hash_of

_MOST_FINDINGS = 1000  # of a log that is broken everywhere the first are enough


def link(text: str, position: int, previous: str) -> str:
    """The hash of an entry, given as its canonical JSON, at this place."""
    told = f'{{"entry":{text},"position":{position},"previous":"{previous}"}}'
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def appended(head: Head, texts: Iterable[str]) -> tuple[list[Record], Head]:
    """The records of entries that follow a head, and the head then."""
    records: list[Record] = []
    position, previous = head.position, head.hash
    for text in texts:
        position += 1
        found = link(text, position, previous)
        records.append(Record(position, previous, found, text))
        previous = found
    return records, Head(head.log, position, previous)


class Fault(StrEnum):
    """What is wrong at a place of a log."""

    ALTERED = "altered"  # its hash is not that of what it says
    UNLINKED = "unlinked"  # it followed another record than the one before it now
    MISSING = "missing"  # there is no record at these places
    MOVED = "moved"  # it stands where another belongs: moved, doubled or inserted
    TRUNCATED = "truncated"  # the log went further once
    REWRITTEN = "rewritten"  # an anchor tells of another record here
    FOREIGN = "foreign"  # an anchor is of another log
    FORGED = "forged"  # an anchor's signature does not hold
    UNTOLD = "untold"  # the log begins late, and no record tells that it was pruned
    PROMPT = "prompt"  # the words beside it are not those that were hashed
    MISFILED = "misfiled"  # it is found under another subject, key, action or time than it says
    UNREADABLE = "unreadable"  # it is no record
    CONTRADICTED = "contradicted"  # what it says is not what is there
    ABSENT = "absent"  # another chain tells of this one, and it is not there; or of a clip no record tells


@dataclass(frozen=True)
class AuditFault:
    """One thing that is wrong. `log` names the chain where there are several."""

    fault: Fault
    position: int
    said: str
    log: str = ""

    def __str__(self) -> str:
        place = f"{self.log[:16]} " if self.log else ""
        return f"{place}record {self.position}: {self.fault.value}: {self.said}"


@dataclass(frozen=True)
class ChainReport:
    """What a chain came to: its records, the last of them as a head, from where it begins, what is wrong."""

    records: int
    head: Head
    floor: Head
    faults: tuple[AuditFault, ...] = ()
    anchored: int = 0  # the last position that an anchor vouches for


@dataclass(frozen=True)
class AuditReport:
    """What a whole log came to. `waiting`: entries that are not chained yet. `signers` of its anchors; `notes` are of
    what is no fault."""

    chains: tuple[ChainReport, ...]
    faults: tuple[AuditFault, ...]
    anchors: int = 0
    signers: tuple[str, ...] = ()
    waiting: int = 0
    notes: tuple[str, ...] = ()

    @property
    def records(self) -> int:
        return sum(chain.records for chain in self.chains)

    @property
    def is_whole(self) -> bool:
        return not self.faults


@dataclass
class ChainCheck:
    """Reads one chain from its beginning, in order. `floor` is what comes before its first record: the opened log, or
    the last record that was pruned. `anchors` are heads noted elsewhere. `partial`: only some of its records are given,
    as in an export of one key's: gaps are none of its faults."""

    floor: Head
    anchors: Sequence[Head] = ()
    partial: bool = False
    faults: list[AuditFault] = field(default_factory=list)
    _last: Head = field(init=False)
    _records: int = field(init=False, default=0)
    _anchored: int = field(init=False, default=0)
    _by_position: dict[int, list[Head]] = field(init=False)
    _pruned: set[tuple[int, str]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._last = self.floor
        self._by_position = {}
        if self.floor.position == 0 and self.floor.hash != self.floor.log:
            self._found(Fault.FOREIGN, 0, "its first record follows the name of another log")
        for anchor in self.anchors:
            if not self.floor.log.startswith(anchor.log):
                self._found(Fault.FOREIGN, anchor.position, f"an anchor is of the log {anchor.log[:16]}")
            else:
                self._by_position.setdefault(anchor.position, []).append(anchor)
        self._hold_against(self.floor.position, self.floor.hash)

    def see(self, record: Record, prompt: Prompt | None = None) -> None:
        """The next record, with what lies beside it."""
        self._records += 1
        at, expected = record.position, self._last.position + 1
        if link(record.text, at, record.previous) != record.hash:
            self._found(Fault.ALTERED, at, "its hash is not that of what it says")
        if at < expected:
            self._found(Fault.MOVED, at, f"it stands after record {self._last.position}")
            return
        if at > expected and not self.partial:
            through = f" to {at - 1}" if at - 1 > expected else ""
            self._found(Fault.MISSING, expected, f"there is no record {expected}{through}")
        elif at == expected and record.previous != self._last.hash:
            self._found(Fault.UNLINKED, at, f"it followed another record {self._last.position} than the one before it")
        self._last = Head(self.floor.log, at, record.hash)
        self._hold_against(at, record.hash)
        if prompt is not None or Action.LOG_PRUNED.value in record.text:
            self._look_into(record, prompt)

    def end(self, head: Head | None = None) -> ChainReport:
        """What it came to; `head` is where the log says itself that it ends."""
        last = self._last.position
        known = [*self._by_position.get(max(self._by_position, default=0), ()), *((head,) if head else ())]
        furthest = max((one.position for one in known), default=0)
        if furthest > last and not self.partial:
            self._found(Fault.TRUNCATED, last + 1, f"the log went to record {furthest} once, and ends at {last}")
        elif head is not None and head.position == last and head.hash != self._last.hash:
            self._found(Fault.REWRITTEN, last, "the log's own head has another record")
        if self.floor.position and not self.partial and not self._is_told():
            told = f"records 1 to {self.floor.position} are gone, and nothing tells that they were pruned"
            self._found(Fault.UNTOLD, self.floor.position, told)
        faults = tuple(sorted(self.faults, key=lambda one: one.position)[:_MOST_FINDINGS])
        return ChainReport(self._records, self._last, self.floor, faults, self._anchored)

    def _hold_against(self, position: int, found: str) -> None:
        for anchor in self._by_position.get(position, ()):
            if anchor.hash == found:
                self._anchored = max(self._anchored, position)
            else:
                self._found(Fault.REWRITTEN, position, "a head that was noted elsewhere has another record here")

    def _look_into(self, record: Record, prompt: Prompt | None) -> None:
        try:
            entry = record.entry
        except ValidationError:
            self._found(Fault.UNREADABLE, record.position, "it is no record that this version knows")
            return
        if entry.action is Action.LOG_PRUNED:
            through, found = entry.details.get("through"), entry.details.get("hash")
            if isinstance(through, int) and isinstance(found, str):
                self._pruned.add((through, found))
        if prompt is not None and prompt.words is not None and not _fits(entry.prompt_sha256, prompt):
            self._found(Fault.PROMPT, record.position, "the words beside it are not those that were hashed")

    def _is_told(self) -> bool:
        floor = (self.floor.position, self.floor.hash)
        anchors = self._by_position.get(self.floor.position, ())
        return floor in self._pruned or any((one.position, one.hash) == floor for one in anchors)

    def _found(self, fault: Fault, position: int, said: str) -> None:
        if len(self.faults) < _MOST_FINDINGS:
            self.faults.append(AuditFault(fault, position, said, self.floor.log))


def _fits(prompt_sha256: str | None, prompt: Prompt) -> bool:
    try:
        return hash_of(prompt.words or "", prompt.salt) == prompt_sha256
    except ValueError:
        return False
