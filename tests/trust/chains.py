"""A chain of the audit log, checked at once."""

from collections.abc import Iterable, Sequence

from schemas.audit import Head, Record
from trust.audit_chain import ChainCheck, ChainReport


def check_chain(
    records: Iterable[Record], floor: Head, anchors: Sequence[Head] = (), head: Head | None = None
) -> ChainReport:
    """All of a chain at once."""
    check = ChainCheck(floor, anchors)
    for record in records:
        check.see(record)
    return check.end(head)
