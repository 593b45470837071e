"""One run at a time in one output folder.

Two runs would both render what neither has finished, and each would rewrite the other's plan. The lock is an object of
the store, so it works for folders and buckets alike; its holder renews it, and a holder that died is known at once on
its own machine (its process is gone) and elsewhere by a lock that is renewed no more.
"""

import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import psutil

from schemas.errors import ConfigError, ObjectMissingError, RushesError
from storage import keys
from storage.store import ObjectStore

RENEW_S = 20.0
STALE_S = 90.0


@dataclass(frozen=True)
class Holder:
    """Who runs: told to whoever comes second."""

    token: str
    run_id: str
    manifest: str
    host: str
    pid: int
    process_started_s: float
    since: str

    def __str__(self) -> str:
        return f"run {self.run_id} of {self.manifest} (process {self.pid} on {self.host}, since {self.since})"

    @property
    def is_dead(self) -> bool | None:
        """Whether the process is gone; None for one on another machine."""
        if self.host != socket.gethostname():
            return None
        # By its start too: in containers every first process has the same number.
        return _started_s(self.pid) != self.process_started_s


class RunGoesOnError(ConfigError):
    """Another run has the folder."""


@contextmanager
def run_lock(store: ObjectStore, run_id: str, manifest: str) -> Iterator[None]:
    """Hold the store's only run. RunGoesOnError, naming the run that holds it, when there is one."""
    me = Holder(
        token=secrets.token_hex(8),
        run_id=run_id,
        manifest=manifest,
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started_s=_started_s(os.getpid()),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _take(store, me)
    over = threading.Event()
    renewal = threading.Thread(target=_renew, args=(store, me, over), name="rushes-lock", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        over.set()
        renewal.join(timeout=RENEW_S)
        with suppress(RushesError):  # a store that does not answer: the lock goes stale by itself
            if (holder := _holder(store)) is not None and holder.token == me.token:
                store.delete([keys.RUN_LOCK])


def _take(store: ObjectStore, me: Holder) -> None:
    for _ in range(3):
        if store.put(keys.RUN_LOCK, _body(me), "application/json", if_absent=True):
            # A store without conditional writes lets two through: the one that is read back has it.
            holder = _holder(store)
            if holder is None or holder.token == me.token:
                return
        info, holder = store.head(keys.RUN_LOCK), _holder(store)
        if info is None or holder is None:
            store.delete([keys.RUN_LOCK] if info is not None else [])  # unreadable: its writer was cut off
            continue
        quiet = datetime.now(UTC) - info.modified
        if holder.is_dead or (holder.is_dead is None and quiet > timedelta(seconds=STALE_S)):
            store.delete([keys.RUN_LOCK])
            continue
        until = "" if holder.is_dead is False else f"; if it died, try again in {STALE_S - quiet.total_seconds():.0f} s"
        raise RunGoesOnError(f"{store.address}: {holder} is going on here{until}")
    raise RunGoesOnError(f"{store.address}: another run has just begun here; try again")


def _renew(store: ObjectStore, me: Holder, over: threading.Event) -> None:
    while not over.wait(RENEW_S):
        with suppress(RushesError):
            store.put(keys.RUN_LOCK, _body(me), "application/json")


def _holder(store: ObjectStore) -> Holder | None:
    try:
        return Holder(**json.loads(store.get(keys.RUN_LOCK)))
    except (ObjectMissingError, ValueError, TypeError):
        return None


def _body(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode()


def _started_s(pid: int) -> float:
    """When a process started, 0 when there is none."""
    try:
        return round(psutil.Process(pid).create_time(), 1)
    except psutil.Error:
        return 0.0
