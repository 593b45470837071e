"""Chains what the audit log was told, and takes anchors of how far it goes. For one thread."""

import logging
import threading
from collections.abc import Callable
from time import time

from actors.audit_trail import drop_anchors, put_anchor
from schemas.audit import Head
from schemas.config import read_config
from schemas.errors import RushesError
from serve.config import ServeConfig
from serve.store.contract import Store
from storage.objects import ObjectStore
from trust.audit_anchor import anchor_signer, signed_by

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_AT_ONCE = 500
_BREATH_S = 0.05  # between two portions, so that others write too


class AuditChainer:
    """Several may run, as when one dispatcher follows another: the store lets one append at a time."""

    def __init__(
        self, store: Store, objects: ObjectStore, config: ServeConfig, now: Callable[[], float] = time
    ) -> None:
        self._store, self._objects, self._settings, self._now = store, objects, config.audit, now
        self._signer = anchor_signer(config.trust, read_config().state_dir)
        self._anchored: Head | None = None
        self._next_at = 0.0
        self._floor = 0

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. A store or object store that is away is tried again at the next turn."""
        while not stop.wait(_EVERY_S):
            self._turn(stop)
        self._turn(stop)

    def run_once(self, stop: threading.Event | None = None) -> int:
        """Chain all that waits, and take an anchor if one is due; how many entries."""
        count = 0
        while (chained := self._store.audit.chain(_AT_ONCE)) > 0:
            count += chained
            if chained == _AT_ONCE and stop is not None:
                stop.wait(_BREATH_S)
        if self._now() >= self._next_at:
            self.anchor()
        return count

    def anchor(self) -> None:
        """How far the log goes now, signed, into the object store and into this process's own log."""
        head, floor = self._store.audit.head(), self._store.audit.floor()
        if head is not None and head.position and head != self._anchored:
            anchor = put_anchor(self._objects, head, self._now(), self._signer)
            by = signed_by(anchor)
            log.info("the audit log goes to %s, %s", head, f"signed by {by!r}" if by else "unsigned")
            self._anchored = head
        if floor is not None and floor.position > self._floor:
            drop_anchors(self._objects, floor.log, floor.position)
            self._floor = floor.position
        self._next_at = self._now() + self._settings.anchor_s

    def _turn(self, stop: threading.Event) -> None:
        try:
            self.run_once(stop)
        except RushesError as error:
            log.warning("the audit log waits: %s", error)
