"""How many PENDING tasks come before each of some: higher priority first, then order of acceptance.

One statement, whose parts count what lies between one asked place and the next: together they pass over the queue once,
by its index alone, however many ask.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

from sqlalchemy import Connection, TextClause, text

from schemas.clip import Status
from serve.store.contract import MOST_AHEAD

Place = tuple[int, int]
"""(priority, seq)"""

_COUNT = "(SELECT COUNT(*) FROM (SELECT 1 FROM tasks {hint} WHERE status = '{pending}' AND {where} LIMIT {most}) x)"
_ABOVE = "priority > :a{n}"
_BETWEEN = "priority > :a{n} AND priority < :b{n}"
_TO = "priority = :a{n} AND seq < :b{n}"
_FROM = "priority = :a{n} AND seq >= :b{n}"
_FROM_TO = "priority = :a{n} AND seq >= :b{n} AND seq < :c{n}"


def positions(connection: Connection, places: Sequence[Place], *, is_sqlite: bool) -> Mapping[Place, int]:
    """For each place, no more than `MOST_AHEAD`."""
    if not places:
        return {}
    asked = sorted(set(places), key=lambda place: (-place[0], place[1]))
    ranges, ends = _ranges(asked)
    statement = _statement(tuple(where for where, _ in ranges), is_sqlite)
    told = {f"{'abc'[place]}{n}": value for n, (_, values) in enumerate(ranges) for place, value in enumerate(values)}
    found = connection.execute(statement, told).one()
    ahead = list(accumulate(found))
    return {place: min(MOST_AHEAD, ahead[end]) for place, end in zip(asked, ends, strict=True)}


@lru_cache(maxsize=256)
def _statement(wheres: tuple[str, ...], is_sqlite: bool) -> TextClause:
    # Mostly one task is asked for, or a few of the same priority: SQLAlchemy reads each such statement once.
    hint = "INDEXED BY tasks_ahead" if is_sqlite else ""
    counts = (
        _COUNT.format(hint=hint, pending=Status.PENDING, where=where.format(n=n), most=MOST_AHEAD)
        for n, where in enumerate(wheres)
    )
    return text(f"SELECT {', '.join(counts)}")


def _ranges(asked: Sequence[Place]) -> tuple[list[tuple[str, tuple[int, ...]]], list[int]]:
    """What to count, in order, and for each place the last range before it."""
    ranges: list[tuple[str, tuple[int, ...]]] = []
    ends: list[int] = []
    last: Place | None = None
    for priority, seq in asked:
        if last is not None and last[0] == priority:
            ranges.append((_FROM_TO, (priority, last[1], seq)))
        else:
            if last is None:
                ranges.append((_ABOVE, (priority,)))
            else:
                ranges += [(_FROM, last), (_BETWEEN, (priority, last[0]))]
            ranges.append((_TO, (priority, seq)))
        ends.append(len(ranges) - 1)
        last = priority, seq
    return ranges, ends
