"""What every body that asks for a clip may say of its turn, its price and who may render it: Runway has none of it."""

import math
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from cluster.routing.terms import Preference
from serve.wire.base import Refusal, Wire

_FAR_S = 4_102_444_800.0  # 2100: nobody means a later instant

Name = Annotated[str, Field(min_length=1, max_length=200)]


def _deadline(value: object, info: ValidationInfo) -> float:
    """Seconds since the epoch, from an ISO instant or from seconds to go."""
    now = float((info.context or {}).get("now", 0.0))
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refusal("must be seconds from now, or an instant like 2030-01-31T12:00:00Z", "invalid_type")
    if isinstance(value, str):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            raise Refusal(
                "must be seconds from now, or an instant like 2030-01-31T12:00:00Z", "invalid_format"
            ) from None
        at = (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    else:
        at = now + value
    if not math.isfinite(at) or at <= now or at > _FAR_S:
        raise Refusal("must be an instant that is to come", "too_small" if at <= now else "too_big")
    return at


def _webhook(url: str) -> str:
    if not url.startswith(("https://", "http://")) or any(char.isspace() or ord(char) < 33 for char in url):
        raise Refusal("must be an https:// URL", "invalid_format")
    return url


class Own(Wire):
    """What Runway does not have: every field is optional."""

    priority: int = Field(default=0, ge=-100, le=100, description="higher is rendered earlier")
    deadline: Annotated[float | None, BeforeValidator(_deadline)] = Field(
        default=None,
        description="seconds from now, or an ISO instant; refused at once when it cannot be kept",
        json_schema_extra={"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]},
    )
    max_credits: float | None = Field(default=None, ge=0, le=1e9, description="refused when it would cost more")
    fallback: bool = Field(default=True, description="another variant may render it when the named one cannot")
    optimize_for: Preference | None = Field(default=None, description="between variants that would all do")
    allow_models: tuple[Name, ...] | None = Field(default=None, max_length=100)
    deny_models: tuple[Name, ...] = Field(default=(), max_length=100)
    min_quality: float = Field(default=0.0, ge=0, le=1)
    skip_busy: bool = Field(default=False, description="pass over a variant that cannot start now")
    webhook_url: Annotated[str, Field(max_length=2000), AfterValidator(_webhook)] | None = None
