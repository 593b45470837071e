"""Looks after the Ray that a command works with: whoever waits for one that has ended would wait for ever."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from cluster.processes import OwnCluster

_LOOK_S = 0.5
_PATIENCE_S = 10.0
_STOPS = (signal.SIGINT, signal.SIGTERM)


class Guard:
    """Interrupts the main thread when the Ray that this process started (`own`) has ended by itself, and ends the
    process where that wakes nobody: within Ray's own code it would wait for a minute, and be ended by it then.

    Schedulers ask with SIGTERM what people ask with Ctrl-C: both raise KeyboardInterrupt; then Ray's end is no news.
    """

    def __init__(self, own: OwnCluster | None) -> None:
        self.own = own
        self._interrupting = False
        self._asked = False
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        stderr = sys.stderr
        with handled(self._stop):
            if self.own is not None:
                threading.Thread(target=self._look, args=(self.own,), name="rushes-guard", daemon=True).start()
            try:
                yield
            finally:
                self._over.set()
                sys.stderr = stderr

    def lost(self) -> str | None:
        """The process of Ray's that ended without anybody having asked for it."""
        return None if self._asked or self.own is None else self.own.dead()

    def dying(self) -> bool:
        """Whether Ray no longer answers, or soon will not."""
        return self.own is not None and self.own.dying()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = self._asked or not self._interrupting
        if not isinstance(sys.stderr, _WithoutRay):
            sys.stderr = _WithoutRay(sys.stderr)
        raise KeyboardInterrupt

    def _look(self, own: OwnCluster) -> None:
        while not self._over.wait(_LOOK_S):
            if (name := own.dead()) is None:
                continue
            if not self._asked:
                self._interrupting = True
                _thread.interrupt_main()
            if not self._over.wait(_PATIENCE_S):
                own.kill()
                os.write(2, f"error: {ended_text(name)}\n".encode() if self._interrupting else b"stopped\n")
                os._exit(1)
            return


def ended_text(process: str) -> str:
    """What is said of a Ray that has ended by itself."""
    return f"Ray has ended on this machine ({process}); what is stored is kept, the same command goes on"


class _WithoutRay:
    """stderr without what Ray tells there of a cluster that is being stopped: each call that was under way."""

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith("ray_") else self._inner.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> Iterator[None]:
    """SIGINT and SIGTERM go to `handler`; as before at the end. In other threads than the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.signal(number, handler) for number in _STOPS}
    try:
        yield
    finally:
        for number, before in kept.items():
            signal.signal(number, before)
