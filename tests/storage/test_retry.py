"""Trying again: only what is transient, only within the budget, never in step with others."""

import pytest

from schemas.errors import StorageError, StorageUnavailableError
from storage.retry import Backoff, retried


class Server:
    """Fails `times` times, and lets time pass only in pauses."""

    def __init__(self, times: int, error: type[Exception] = StorageUnavailableError) -> None:
        self.times, self.error, self.calls, self.now_s = times, error, 0, 1000.0
        self.pauses_s: list[float] = []

    def call(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error(f"failure {self.calls}")
        return "done"

    def sleep(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        self.now_s += pause_s

    def run(self, backoff: Backoff) -> str:
        return retried(self.call, backoff, clock=lambda: self.now_s, sleep=self.sleep, chance=lambda: 1.0)


def test_transient_failures_are_tried_again_with_growing_pauses() -> None:
    server = Server(5)
    assert server.run(Backoff(budget_s=60, first_s=1, longest_s=5)) == "done"
    assert server.pauses_s == [1, 2, 4, 5, 5]


def test_the_budget_ends_it_with_the_last_error() -> None:
    server = Server(100)
    with pytest.raises(StorageUnavailableError, match="failure 4"):
        server.run(Backoff(budget_s=10, first_s=1, longest_s=100))
    assert sum(server.pauses_s) <= 10


def test_permanent_errors_are_raised_at_once() -> None:
    server = Server(1, StorageError)
    with pytest.raises(StorageError):
        server.run(Backoff())
    assert server.calls == 1


def test_no_budget_is_one_attempt() -> None:
    server = Server(1)
    with pytest.raises(StorageUnavailableError):
        server.run(Backoff(budget_s=0))
    assert server.calls == 1


def test_clients_that_failed_together_come_back_apart() -> None:
    pauses = {Backoff().pause_s(3, chance) for chance in (0.0, 0.5, 0.99)}
    assert len(pauses) == 3
    assert all(0.2 <= pause <= 0.4 for pause in pauses)
