"""Webhooks: messages on the end of a task or batch, signed as Standard Webhooks wants, delivered at least once.

The store keeps a message until somebody answered 2xx for it or `max_attempts` were made. A deliverer that dies leaves
its claims to run out; whoever takes them then sends again, under the same `webhook-id`.
"""

import asyncio
import base64
import logging
import random
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import urlsplit

import httpx
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from schemas.errors import ConfigError, InvalidRequestError, Issue
from serve.config import ServeConfig
from serve.errors import AddressError, StoreUnavailableError
from serve.keys import derived, load_secret
from serve.net import Deadline, Outbound, parse_target
from serve.store.contract import Delivery, Store

PREFIX = "whsec_"

_CLAIMED = 256
_A_HOST = 8  # at once
_COOLING_S = 30.0  # a host that did not answer is left alone for so long
_ANSWER_BYTES = 4096  # read so that the receiver sees its answer taken; never looked at
_CLAIM_MARGIN_S = 60.0
_POLL_S = 1.0
_MOST_DOUBLINGS = 30
_DIGITS = re.compile(r"[0-9]{1,9}")

log = logging.getLogger(__name__)


def check_webhook_url(url: str, *, allow_private: bool = False, path: str = "webhookUrl") -> str:
    """The URL, if it is one that may be called; its addresses are checked at each call. InvalidRequestError else."""
    try:
        parse_target(url, allow_private=allow_private)
    except AddressError as error:
        raise InvalidRequestError((Issue(path, str(error), "webhook_url"),)) from error
    return url


def webhook_secret(store: Store, config: ServeConfig, key_id: str) -> str:
    """What the owner of a key verifies messages with: `whsec_…`.

    The configured one for everybody when there is one; otherwise each key has its own, so that no client can sign in
    the endpoint's name for another. Blocking.
    """
    if config.webhooks.secret is not None:
        try:
            Webhook(config.webhooks.secret)
        except (ValueError, RuntimeError, EmptyWebhookSecretError) as error:
            raise ConfigError(f"webhooks.secret: not 'whsec_' and base64: {type(error).__name__}") from error
        return config.webhooks.secret
    return PREFIX + base64.b64encode(derived(load_secret(store), "webhook", key_id)).decode()


class Deliverer:
    """Sends what is due. Several may run: a message is claimed by one at a time. Blocking: give it a thread.

    Hosts do not wait for each other: each has a few senders of its own, and the messages of one that does not answer
    are passed over for a while, uncounted, however many they are.
    """

    def __init__(
        self,
        store: Store,
        config: ServeConfig,
        now: Callable[[], float] = time,
        *,
        outbound: Outbound | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._config, self._now, self._jitter = store, config, now, jitter
        self._outbound = outbound or Outbound(allow_private=config.media.allow_private)
        self._signers: dict[str, Webhook] = {}
        self._cooling: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. A store that is away for a while is waited for."""
        while not stop.is_set():
            try:
                claimed, _ = self._round()
            except StoreUnavailableError as error:
                log.warning("webhooks wait for the store: %s", error)
                claimed = 0
            if not claimed:
                stop.wait(_POLL_S)

    def run_once(self) -> int:
        """Send what is due now, side by side; how many attempts were made."""
        return self._round()[1]

    def _round(self) -> tuple[int, int]:
        """Messages claimed, attempts made. What is claimed and not attempted comes again when its claim runs out."""
        now = self._now()
        self._cooling = {host: until for host, until in self._cooling.items() if until > now}
        due = self._store.deliveries.due(now, _CLAIMED, claim_s=self._config.webhooks.timeout_s + _CLAIM_MARGIN_S)
        by_host: dict[str, deque[Delivery]] = {}
        for delivery in due:
            by_host.setdefault(_host(delivery.url), deque()).append(delivery)
        return len(due), asyncio.run(self._send_all(by_host, now + _CLAIM_MARGIN_S)) if due else 0

    async def _send_all(self, by_host: dict[str, deque[Delivery]], until: float) -> int:
        made = 0

        async def send(host: str, waiting: deque[Delivery]) -> None:
            nonlocal made
            # Nothing is begun that could outlast its claim.
            while waiting and host not in self._cooling and self._now() < until:
                made += 1
                await self._deliver(waiting.popleft())

        senders = ((host, waiting) for host, waiting in by_host.items() for _ in range(min(_A_HOST, len(waiting))))
        await asyncio.gather(*(send(host, waiting) for host, waiting in senders))
        return made

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            failed = await self._attempt(delivery)
        except Exception as error:  # one message must not stop the others
            log.exception("webhook %s", delivery.id)
            failed = _Failed(type(error).__name__)
        try:
            if failed is None:
                await asyncio.to_thread(self._store.deliveries.delivered, delivery.id, self._now())
                return
            due_at = None if failed.is_final else self.next_at(delivery, failed.not_before)
            await asyncio.to_thread(self._store.deliveries.failed, delivery.id, failed.why, due_at)
        except StoreUnavailableError as error:
            # The claim runs out, and it is sent again: at least once.
            log.warning("webhook %s: its outcome was not kept: %s", delivery.id, error)
            return
        level = logging.WARNING if due_at is None else logging.INFO
        end = "given up" if due_at is None else "will be tried again"
        log.log(level, "webhook %s: attempt %d: %s; %s", delivery.id, delivery.attempts + 1, failed.why, end)

    def next_at(self, delivery: Delivery, not_before: float = 0.0) -> float | None:
        """When to try again after a failed attempt: doubling, each between half and the whole, and not before the
        receiver wants it, which is heeded as far as `most_s` goes. None: never."""
        settings = self._config.webhooks
        made = delivery.attempts + 1
        if made >= settings.max_attempts:
            return None
        wait_s = min(settings.most_s, settings.base_s * 2 ** min(made - 1, _MOST_DOUBLINGS))
        now = self._now()
        return max(now + wait_s * (0.5 + 0.5 * self._jitter()), min(not_before, now + settings.most_s))

    async def _attempt(self, delivery: Delivery) -> "_Failed | None":
        """What went wrong; None: nothing."""
        sent_at = datetime.fromtimestamp(int(self._now()), UTC)
        signer = await asyncio.to_thread(self._signer, delivery.key_id)
        headers = {
            "content-type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": signer.sign(delivery.id, sent_at, delivery.payload),
        }
        timeout_s = self._config.webhooks.timeout_s
        try:
            async with self._outbound.call(
                "POST", delivery.url, Deadline(timeout_s), headers=headers, body=delivery.payload.encode()
            ) as answer:
                if 200 <= answer.status < 300:
                    return None
                await answer.head(_ANSWER_BYTES)
                redirect = ", and redirects are not followed" if 300 <= answer.status < 400 else ""
                wanted = retry_after(answer.header("retry-after"), self._now())
                return _Failed(f"answered {answer.status}{redirect}", wanted, is_final=answer.status == 410)
        except AddressError as error:
            return _Failed(str(error))  # DNS may be mended
        except (httpx.TransportError, httpx.InvalidURL, OSError) as error:  # TimeoutError is an OSError
            self._cooling[_host(delivery.url)] = self._now() + _COOLING_S
            timed_out = isinstance(error, TimeoutError)
            return _Failed(f"no answer within {timeout_s:g} s" if timed_out else f"no answer: {type(error).__name__}")

    def _signer(self, key_id: str) -> Webhook:
        signer = self._signers.get(key_id)
        if signer is None:
            signer = self._signers[key_id] = Webhook(webhook_secret(self._store, self._config, key_id))
        return signer


@dataclass(frozen=True)
class _Failed:
    """An attempt. `is_final`: the receiver wants no more of it."""

    why: str
    not_before: float = 0.0
    is_final: bool = False


def retry_after(header: str | None, now: float) -> float:
    """The instant before which a receiver wants no other attempt, by its Retry-After: seconds, or a date (RFC 9110,
    10.2.3). 0 where it does not say, or not so."""
    if header is None:
        return 0.0
    text = header.strip()
    if _DIGITS.fullmatch(text):
        return now + int(text)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return 0.0
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return url
