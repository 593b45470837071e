"""Functions in a process of their own, with a limit of memory and of time: for decoding what strangers made.

A decoder that hangs, crashes or asks for all the memory there is cannot be stopped from inside its own process. Here
it ends its child, and the caller gets an exception.
"""

import multiprocessing
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# A child imports what the function needs; on a machine that does much else this takes a while.
_START_S = 120.0
_GRACE_S = 1.0


class ConfinedProcess:
    """One child, started at the first call and again after a call that ended it. One call at a time."""

    def __init__(self, memory_bytes: int | None) -> None:
        """`memory_bytes` is what a call may have beyond what the child takes for itself; enforced on Linux. None: as
        much as there is."""
        self._memory_bytes = memory_bytes
        self._child: tuple[BaseProcess, Connection] | None = None

    def call(self, function: Callable[..., T], *arguments: Any, timeout_s: float) -> T:
        """What `function` returns. It, its arguments and its result are pickled.

        Raises what the function raises, TimeoutError after `timeout_s` (starting the child does not count) and
        ChildProcessError when the child died over it. After these two the next call has a new child.
        """
        child, connection = self._child or self._start()
        deadline = time.monotonic() + timeout_s
        # Sending and receiving wait for a child that neither reads nor finishes what it writes: then it goes too.
        watchdog = threading.Timer(timeout_s + _GRACE_S, child.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            connection.send((function, arguments))
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"not done within {timeout_s:g} s")
            returned, answer = connection.recv()
        except TimeoutError:
            self.close()
            raise
        except (EOFError, ConnectionError) as error:
            child.join(_GRACE_S)  # one that closed its end may go on for ever
            alive = child.exitcode is None
            self.close()
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done within {timeout_s:g} s") from error
            ended = "closed its connection" if alive else f"ended with {_told(child.exitcode)}"
            raise ChildProcessError(f"its process {ended}") from error
        finally:
            watchdog.cancel()
        if not returned:
            raise answer
        result: T = answer
        return result

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._child is not None:
            child, connection = self._child
            self._child = None
            child.kill()
            child.join()
            connection.close()

    def _start(self) -> tuple[BaseProcess, Connection]:
        # Not forked: this process has threads, and perhaps an accelerator.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child = context.Process(target=_answer_all, args=(theirs, self._memory_bytes), daemon=True)
        child.start()
        # Else a child that dies would leave its end open: ours.
        theirs.close()
        self._child = child, ours
        if not ours.poll(_START_S):
            self.close()
            raise ChildProcessError(f"its process did not start within {_START_S:g} s")
        ours.recv()
        return self._child


class ConfinedProcesses:
    """Several children behind one `call`, which any number of threads may make: each waits for a child of its own.
    Starts none before it is needed."""

    def __init__(self, count: int, memory_bytes: int) -> None:
        """`memory_bytes` is for each, as of `ConfinedProcess`."""
        self._idle: queue.LifoQueue[ConfinedProcess] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(ConfinedProcess(memory_bytes))

    def call(self, function: Callable[..., T], *arguments: Any, timeout_s: float) -> T:
        """As `ConfinedProcess.call`."""
        process = self._idle.get()
        try:
            return process.call(function, *arguments, timeout_s=timeout_s)
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End those that are idle."""
        while not self._idle.empty():
            self._idle.get().close()


def _answer_all(connection: Connection, memory_bytes: int | None) -> None:
    """The child's life. It ends with its parent, whose end of the pipe then closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to act on
    with suppress(OSError, ValueError):  # stdout is the command's: what it calls may print
        os.dup2(sys.stderr.fileno(), 1)
    connection.send(None)
    limited = memory_bytes is None
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, ConnectionError):
            return
        if memory_bytes is not None and not limited:  # only now: what the function needs has just been imported
            _limit(memory_bytes)
            limited = True
        answer: tuple[bool, Any]
        try:
            answer = True, function(*arguments)
        except Exception as error:
            answer = False, error
        try:
            connection.send(answer)
        except ConnectionError:
            return
        except Exception as error:
            connection.send((False, TypeError(f"the result does not travel: {type(error).__name__}: {error}")))


def _limit(memory_bytes: int) -> None:
    used = Path("/proc/self/statm")
    if used.exists():
        base_bytes = int(used.read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = base_bytes + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _told(exit_code: int | None) -> str:
    return signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else f"code {exit_code}"
