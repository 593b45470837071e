"""The endpoint's own branches of the error tree in `schemas/errors.py`."""

from schemas.errors import PermanentError, TransientError


class StoreUnavailableError(TransientError):
    """The task store does not answer: locked for too long, or its server is away."""


class RunNotLaunchedError(TransientError):
    """No process of a bulk run could be started now."""


class IdempotencyError(PermanentError):
    """An Idempotency-Key came again with another body."""


class LimitError(PermanentError):
    """A key has used up what it may. `retry_at`: when it may again, in seconds since the epoch."""

    def __init__(self, message: str, retry_at: float) -> None:
        self.retry_at = retry_at
        super().__init__(message)


class DailyLimitError(LimitError):
    """A key has made its last task of the day."""


class SpendLimitError(LimitError):
    """A key's tasks of this month would cost more than its credits."""


class AddressError(PermanentError):
    """A URL that we do not call: not HTTPS, no domain, or an address that is not public."""


class UnauthorizedError(PermanentError):
    """No API key, or one that is unknown or revoked: 401. The message never repeats what was sent."""
