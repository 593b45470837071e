"""What a key may still have: tasks a day, dollars a month. Asked and noted within the transaction that uses it."""

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, func, literal, select, text
from sqlalchemy.dialects import postgresql, sqlite

from serve.config import DAY_S
from serve.errors import DailyLimitError, SpendLimitError
from serve.store import tables
from serve.tasks import CREDITS_PER_USD

_TASKS, _BATCHES, _SPENDING = tables.tasks, tables.batches, tables.spending
# Postgres: what is counted of a key stays true until the transaction ends.
_HOLD_KEY = text("SELECT pg_advisory_xact_lock(1920300904, hashtext(:key))")
_TASKS_SINCE = (
    select(func.count())
    .select_from(_TASKS)
    .where(_TASKS.c.key_id == bindparam("key"), _TASKS.c.created_at >= bindparam("since"))
)
_ROWS_SINCE = select(func.coalesce(func.sum(_BATCHES.c.total), 0)).where(
    _BATCHES.c.key_id == bindparam("key"),
    _BATCHES.c.created_at >= bindparam("since"),
    _BATCHES.c.run_uri.is_not(None),
    _BATCHES.c.id != bindparam("but"),
)
_OPEN_RUN = (
    select(literal(1))
    .where(_BATCHES.c.key_id == bindparam("key"), _BATCHES.c.run_uri.is_not(None), _BATCHES.c.finished_at.is_(None))
    .limit(1)
)
_SPENT = select(_SPENDING.c.usd).where(_SPENDING.c.key_id == bindparam("key"), _SPENDING.c.month == bindparam("month"))
_LEAST_USD = 1e-9


def hold(connection: Connection, key_id: str) -> None:
    """Nobody else counts what the key has until the transaction ends. SQLite has one writer anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(_HOLD_KEY, {"key": key_id})


def check_daily(
    connection: Connection, key_id: str, wanted: int, max_since: tuple[float, int] | None, batch_id: str = ""
) -> None:
    """Raises DailyLimitError. Rows of bulk runs count, but for those of `batch_id` itself. The key is held."""
    if max_since is None:
        return
    since, most = max_since
    made = connection.execute(_TASKS_SINCE, {"key": key_id, "since": since}).scalar_one()
    made += connection.execute(_ROWS_SINCE, {"key": key_id, "since": since, "but": batch_id}).scalar_one()
    if made + wanted > most:
        raise DailyLimitError(f"{most} tasks a day, {made} made, {wanted} more asked for", since + DAY_S)


def has_open_run(connection: Connection, key_id: str) -> bool:
    """A bulk run has all that the key may have at once: what comes meanwhile waits for its end."""
    return connection.execute(_OPEN_RUN, {"key": key_id}).first() is not None


def reserve(connection: Connection, key_id: str, at: float, usd: float, max_month_usd: float | None) -> None:
    """Note dollars that something accepted at `at` is said to cost. Raises SpendLimitError. The key is held."""
    if usd <= _LEAST_USD:
        return
    if max_month_usd is not None:
        spent = connection.execute(_SPENT, {"key": key_id, "month": month_of(at)}).scalar() or 0.0
        if spent + usd > max_month_usd + _LEAST_USD:
            raise spend_limit(max_month_usd, spent, usd, at)
    spend(connection, [(key_id, at, usd)])


def spend(connection: Connection, changes: Iterable[tuple[str, float, float]]) -> None:
    """Add dollars, or take them back: (key, when what they are for was accepted, dollars)."""
    by_month: dict[tuple[str, int], float] = {}
    for key_id, at, usd in changes:
        place = key_id, month_of(at)
        by_month[place] = by_month.get(place, 0.0) + usd
    # Sorted: two transactions that wait for several keys wait in the same order.
    rows = [
        {"key_id": key_id, "month": month, "usd": usd}
        for (key_id, month), usd in sorted(by_month.items())
        if abs(usd) > _LEAST_USD
    ]
    if rows:
        connection.execute(_ADD[connection.dialect.name], rows)


def spend_limit(max_usd: float, spent_usd: float, wanted_usd: float, at: float) -> SpendLimitError:
    """The error, in credits."""
    most, spent, wanted = (round(usd * CREDITS_PER_USD, 2) for usd in (max_usd, spent_usd, wanted_usd))
    text = f"{most:g} credits a month, {spent:g} spent or quoted for unfinished tasks, {wanted:g} more asked for"
    return SpendLimitError(text, _next_month(at))


def month_of(at: float) -> int:
    """As `spending` numbers months."""
    when = datetime.fromtimestamp(at, UTC)
    return when.year * 12 + when.month - 1


def _next_month(at: float) -> float:
    year, month = divmod(month_of(at) + 1, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC).timestamp()


def _add(insert: "postgresql.Insert | sqlite.Insert") -> "postgresql.Insert | sqlite.Insert":
    return insert.on_conflict_do_update(
        index_elements=[_SPENDING.c.key_id, _SPENDING.c.month],
        set_={"usd": _SPENDING.c.usd + insert.excluded.usd},
    )


_ADD = {"sqlite": _add(sqlite.insert(_SPENDING)), "postgresql": _add(postgresql.insert(_SPENDING))}
