"""API keys: made, told apart, and forgotten within seconds of being revoked. Also the endpoint's own secret.

A key is `rsh_` and 256 random bits. Only its SHA-256 is stored: there is nothing to guess, so no slow hash, and a
lookup by digest tells a clock nothing about the keys there are.
"""

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic

from fastapi import Request

from cluster.scheduling.events import TenantShare
from schemas.errors import ConfigError, InvalidRequestError, Issue
from serve.context import Context
from serve.errors import UnauthorizedError
from serve.store.contract import ApiKey, Store

PREFIX = "rsh_"
LOCAL = ApiKey(id="local", name="local", created_at=0.0)
CACHE_S = 3.0
SECRET_NOTE = "secret/endpoint"

_SECRET_BYTES = 32
_MOST = 2**31 - 1  # what a column holds
_LIMITS = {
    "max_concurrent": (1, _MOST),
    "max_daily": (1, _MOST),
    "monthly_credits": (0, _MOST),
    "weight": (0.001, 1000.0),
    "max_priority": (0, 100),
}
_KEY = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOST_CACHED = 10_000  # unknown keys are remembered too, or each wrong one would cost a read


def create(
    store: Store,
    name: str,
    now: float,
    *,
    max_concurrent: int | None = None,
    max_daily: int | None = None,
    monthly_credits: int | None = None,
    weight: float | None = None,
    max_priority: int | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which nobody can read again. Limits of None are the endpoint's own.

    Raises ConfigError for a name or a limit that cannot be.
    """
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(
        id=f"key_{uuid.uuid4().hex}",
        name=name,
        created_at=now,
        max_concurrent=max_concurrent,
        max_daily=max_daily,
        monthly_credits=monthly_credits,
        weight=weight,
        max_priority=max_priority,
    )
    _check(key)
    store.keys.add(key, digest(secret))
    return key, secret


def change(store: Store, key_id: str, **changes: str | float | None) -> ApiKey:
    """A key with another name or other limits; None: the endpoint's own. Running endpoints heed it within seconds.

    Raises ConfigError for a key that is not there, or was revoked, and as `create` does.
    """
    known = store.keys.get(key_id)
    if known is None or known.revoked_at is not None:
        raise ConfigError(f"{key_id}: {'was revoked' if known else 'no such key; see `rushes keys list`'}")
    key = replace(known, **changes)  # type: ignore[arg-type]
    _check(key)
    store.keys.change(key)
    return key


def share_of(key: ApiKey) -> TenantShare:
    """What the scheduler gives the key beside others."""
    return TenantShare(key.id, 1.0 if key.weight is None else key.weight, key.max_priority or 0)


def _check(key: ApiKey) -> None:
    if not 1 <= len(key.name) <= 100 or not key.name.isprintable():
        raise ConfigError(f"name: {key.name!r} is not 1 to 100 printable characters")
    for field, (least, most) in _LIMITS.items():
        value = getattr(key, field)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{field}: {value:g} is not from {least:g} to {most:g}")


def digest(secret: str) -> str:
    """As the store knows a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


async def caller(request: Request) -> ApiKey:
    """FastAPI's dependency: whose request this is. `app.state.context` is the Context.

    Raises UnauthorizedError, and InvalidRequestError for an X-Runway-Version that is no date.
    """
    version = request.headers.get("x-runway-version")
    if version is not None and _VERSION.fullmatch(version) is None:
        raise InvalidRequestError((Issue("X-Runway-Version", "not a date such as 2024-11-06", "invalid_header"),))
    context: Context = request.app.state.context
    if not context.config.auth:
        return LOCAL
    return await keyring(request).find(request.headers.get("authorization"))


def keyring(request: Request) -> "Keyring":
    """The process's own, made at the first request."""
    state = request.app.state
    found: Keyring | None = getattr(state, "keyring", None)
    if found is None:
        found = state.keyring = Keyring(state.context.store)
    return found


@dataclass(frozen=True)
class _Known:
    key: ApiKey | None
    until: float


class Keyring:
    """The keys of a store, remembered for `cache_s`: a busy key costs one read in that time, a revoked one dies then.

    For one event loop. `clock` is monotonic.
    """

    def __init__(self, store: Store, cache_s: float = CACHE_S, clock: Callable[[], float] = monotonic) -> None:
        self._store, self._cache_s, self._clock = store, cache_s, clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._reading: dict[str, asyncio.Task[ApiKey | None]] = {}

    async def find(self, authorization: str | None) -> ApiKey:
        """The key in an Authorization header. Raises UnauthorizedError, which never says why a key is not taken."""
        if not authorization:
            raise UnauthorizedError("no API key: send the header 'Authorization: Bearer rsh_…'")
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or _KEY.fullmatch(secret) is None:
            raise UnauthorizedError("not an API key: send the header 'Authorization: Bearer rsh_…'")
        key = await self._lookup(digest(secret))
        if key is None or key.revoked_at is not None:
            raise UnauthorizedError("this API key is not known here, or was revoked")
        return key

    async def _lookup(self, of: str) -> ApiKey | None:
        known = self._known.get(of)
        if known is not None and known.until > self._clock():
            return known.key
        # One read for all who ask at once. Shielded: one of them going away must not fail the others.
        task = self._reading.get(of)
        if task is None:
            task = self._reading[of] = asyncio.create_task(self._read(of))
            task.add_done_callback(lambda _: self._reading.pop(of, None))
        return await asyncio.shield(task)

    async def _read(self, of: str) -> ApiKey | None:
        until = self._clock() + self._cache_s
        key = await asyncio.to_thread(self._store.keys.find, of)
        self._known[of] = _Known(key, until)
        self._known.move_to_end(of)
        while len(self._known) > _MOST_CACHED:
            self._known.popitem(last=False)
        return key


def load_secret(store: Store) -> bytes:
    """The endpoint's secret, made at the first call and kept in the store; it signs URLs and derives webhook secrets.

    Processes that start together agree on one.
    """
    kept = store.notes.read(SECRET_NOTE)
    if kept is None:
        store.notes.write_once(SECRET_NOTE, base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())
        kept = store.notes.read(SECRET_NOTE)
    if not isinstance(kept, str):
        raise ConfigError(f"the store's note {SECRET_NOTE!r} is not a secret; remove it to get a new one")
    return base64.b64decode(kept)


def derived(secret: bytes, purpose: str, *parts: str) -> bytes:
    """A secret for one purpose: what is signed for one can never be used as another. ConfigError without a secret."""
    if len(secret) < _SECRET_BYTES:
        raise ConfigError("the endpoint has no secret to sign with: Context.secret comes from load_secret(store)")
    message = "\0".join((purpose, *parts))
    return hmac.new(secret, message.encode(), hashlib.sha256).digest()
