"""Batches that were leased to a replica and not begun yet, as far as anybody said: to lose one costs no attempt.

A replica says what it begins before it begins, so a task that ends its process has been told of. Everything else that
is lost on the way (a process that dies before it starts, an answer that never arrives) is no fault of the task.
"""

import threading

from serve.messages import Begun, Hello, Work


class Handed:
    """At most one such batch a replica. Thread-safe by itself: who is about to render waits for nobody's store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: dict[str, Work] = {}

    def give(self, replica: str, work: Work) -> None:
        with self._lock:
            self._works[replica] = work

    def answer(self, hello: Hello) -> Work | None:
        """What the replica was given and does not have, for the first time or because an answer was lost."""
        with self._lock:
            work = self._works.get(hello.replica)
            if work is None or not set(work.leases) & set(hello.holds):
                return work
            # It asks for the next while the last steps of this one are made.
            del self._works[hello.replica]
            return None

    def begun(self, said: Begun) -> None:
        """A batch is begun as one."""
        with self._lock:
            work = self._works.get(said.replica)
            if work is not None and any((x.task_id, x.epoch) in said.leases for x in work.leases):
                del self._works[said.replica]

    def take(self, replica: str) -> Work | None:
        """What the replica was given and never begins now."""
        with self._lock:
            return self._works.pop(replica, None)

    def holder(self, task_id: str, epoch: int) -> str | None:
        """The replica that has the lease and has not begun."""
        with self._lock:
            return next(
                (
                    replica
                    for replica, work in self._works.items()
                    if any((lease.task_id, lease.epoch) == (task_id, epoch) for lease in work.leases)
                ),
                None,
            )
