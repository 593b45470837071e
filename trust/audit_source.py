"""A log that can be read, wherever it is kept: what `rushes audit` works on."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from schemas.audit import AuditFilter, Head, Prompt, Record
from trust.audit_anchor import Anchor, signed_by, trouble
from trust.audit_chain import AuditFault, AuditReport, Fault

Found = tuple[str, Record, Prompt | None]
"""A record with the name of its chain, and with what lies beside it."""


class AuditSource(Protocol):
    """An endpoint's log, or a run's."""

    def verify(self, heads: Sequence[Head] = (), authorities: str | None = None) -> AuditReport:
        """Read all of it. `heads` were noted elsewhere; `authorities`, in PEM, must vouch for whoever signed anchors.
        Raises ConfigError where there is no log, and without the `trust` extra where there are signatures."""
        ...

    def records(self, of: AuditFilter) -> Iterator[Found]:
        """Chain by chain, in their order."""
        ...

    def heads(self) -> tuple[Head, ...]:
        """How far the chains go that tell of all others."""
        ...

    def erase(self, subject: str, now: float, actor: str) -> int:
        """Take the words and salts away that lie beside the records of a subject, `task:ID`, and tell of it; of how
        many."""
        ...


def checked_anchors(
    stored: Iterable[tuple[str, Anchor | None]], authorities: str | None
) -> tuple[list[Anchor], list[AuditFault]]:
    """Of stored anchors (key, anchor), those that can be believed; and what is wrong with the others."""
    believed: list[Anchor] = []
    faults: list[AuditFault] = []
    for key, anchor in stored:
        why = "it cannot be read" if anchor is None else trouble(anchor, authorities)
        if why is not None:
            position, log = (0, "") if anchor is None else (anchor.position, anchor.log)
            faults.append(AuditFault(Fault.FORGED, position, f"the anchor {key}: {why}", log))
        elif anchor is not None:
            believed.append(anchor)
    return believed, faults


def signers_of(anchors: Iterable[Anchor]) -> tuple[str, ...]:
    """By name, each once; 'nobody' for what is not signed."""
    return tuple(sorted({signed_by(anchor) or "nobody" for anchor in anchors}))
