"""The end of a process whose model has stopped making steps."""

import logging
import os
import signal
import threading
from types import TracebackType

log = logging.getLogger(__name__)


class Stopwatch:
    """While it runs, `restart` must be called within every `timeout_s`; else the process is killed.

    A hung kernel cannot be interrupted from Python, so nothing gentler would help. Whoever started the process finds it
    dead and starts another.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._heard = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._watch, name="stopwatch", daemon=True)

    def restart(self) -> None:
        """A sign of life."""
        self._heard.set()

    def __enter__(self) -> "Stopwatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._heard.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over:
            if not self._heard.wait(self._timeout_s):
                log.error("no denoising step for %g s: the process ends itself", self._timeout_s)
                os.kill(os.getpid(), signal.SIGKILL)
            self._heard.clear()
