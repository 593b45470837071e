"""A child that a caller never waits for longer than it said, whatever is done in it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from actors.confined import ConfinedProcess


@pytest.fixture(scope="module")
def process() -> Iterator[ConfinedProcess]:
    with closing(ConfinedProcess(None)) as found:
        yield found


def close_all_and_go_on() -> None:
    os.closerange(3, 4096)
    threading.Event().wait()


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def begin_to_answer() -> None:
    threading.Thread(target=stop_soon, daemon=True).start()


def stop_soon() -> None:
    threading.Event().wait(0.05)
    stop()


@pytest.mark.parametrize("deed", [close_all_and_go_on, os.abort])
def test_one_that_hangs_up_is_told_of_and_the_next_call_has_another(
    process: ConfinedProcess, deed: Callable[[], None]
) -> None:
    with pytest.raises((ChildProcessError, TimeoutError), match=r"closed|SIGABRT|not done within 2 s"):
        process.call(deed, timeout_s=2)
    assert process.call(len, "four", timeout_s=30) == 4


def test_one_that_does_not_even_read_what_it_is_asked_is_given_up(process: ConfinedProcess) -> None:
    process.call(begin_to_answer, timeout_s=30)
    threading.Event().wait(0.3)
    with pytest.raises(TimeoutError, match="not done within 0.2 s"):
        process.call(len, b"x" * (4 << 20), timeout_s=0.2)
    assert process.call(len, "four", timeout_s=30) == 4


def test_what_it_prints_is_not_on_the_output_of_the_command(
    process: ConfinedProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(ConfinedProcess(None)) as fresh:
        fresh.call(os.write, 1, b"a word", timeout_s=30)
    assert capfd.readouterr() == ("", "a word")
