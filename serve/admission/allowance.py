"""What a key may have: its own limits, and the endpoint's where it has none of its own."""

from dataclasses import dataclass

from serve.config import Limits
from serve.store.contract import ApiKey
from serve.tasks import CREDITS_PER_USD
from serve.wire.instants import midnight


@dataclass(frozen=True)
class Allowance:
    """In force for one key. None: no limit."""

    max_concurrent: int | None
    max_daily: int | None
    monthly_credits: int

    @classmethod
    def of(cls, key: ApiKey, limits: Limits) -> "Allowance":
        return cls(
            limits.max_concurrent if key.max_concurrent is None else key.max_concurrent,
            limits.max_daily if key.max_daily is None else key.max_daily,
            limits.monthly_credits if key.monthly_credits is None else key.monthly_credits,
        )

    def daily(self, now: float) -> tuple[float, int] | None:
        """(since when tasks are counted, how many there may be)."""
        return None if self.max_daily is None else (midnight(now), self.max_daily)

    @property
    def month_usd(self) -> float:
        """Dollars that what is accepted in a UTC month may cost."""
        return self.monthly_credits / CREDITS_PER_USD
