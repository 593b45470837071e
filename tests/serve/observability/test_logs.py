"""Logs carry the ids of the work at hand, and no secret."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from serve.observability import logs


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    level = root.level
    handler = logs.configure("INFO", stream=stream)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_line_is_one_json_object_with_ids_and_fields(out: io.StringIO) -> None:
    with logs.context(request_id="r1"), logs.context(task_id="t1", batch_id=None):
        logging.getLogger("serve.dispatch.dispatcher").info("rendered\nlate", extra={"render_s": 1.5})
    entry = json.loads(out.getvalue())
    assert out.getvalue().count("\n") == 1
    assert entry["message"] == "rendered\nlate"
    assert (entry["level"], entry["logger"]) == ("info", "serve.dispatch.dispatcher")
    assert (entry["request_id"], entry["task_id"], entry["render_s"]) == ("r1", "t1", 1.5)
    assert "batch_id" not in entry
    assert entry["time"].endswith("+00:00")


def test_ids_end_with_their_block_and_do_not_leak_between_coroutines(out: io.StringIO) -> None:
    async def work(name: str) -> None:
        with logs.context(task_id=name):
            await asyncio.sleep(0)
            logging.info("in %s", name)

    async def both() -> None:
        await asyncio.gather(work("a"), work("b"))

    asyncio.run(both())
    logging.info("after")
    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(entry["message"], entry.get("task_id")) for entry in entries] == [
        ("in a", "a"),
        ("in b", "b"),
        ("after", None),
    ]
    assert logs.current() == {}


def test_an_error_keeps_its_trace(out: io.StringIO) -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        logging.exception("failed")
    assert "ValueError: bad" in json.loads(out.getvalue())["error"]


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        ("Authorization: Bearer abc123", "abc123"),
        ("rsh_deadbeef was used", "deadbeef"),
        ("secret whsec_MfKQ9r8GKY", "MfKQ9r8GKY"),
        ("postgresql://rushes:hunter2@db/rushes", "hunter2"),
        ("GET /clips/1.mp4?expires=1&sig=0badcafe", "0badcafe"),
    ],
)
def test_secrets_do_not_get_out(out: io.StringIO, said: str, secret: str) -> None:
    logging.info(said)
    logging.info("see %s", "field", extra={"seen": said})
    try:
        raise RuntimeError(said)
    except RuntimeError:
        logging.exception("failed")
    assert secret not in out.getvalue()


def test_on_a_terminal_a_line_is_readable_and_cannot_be_forged() -> None:
    record = logging.makeLogRecord(
        {"name": "serve.http", "levelno": 30, "levelname": "WARNING", "msg": "odd prompt\n09:00 info all fine\x1b[2J"}
    )
    with logs.context(task_id="t1"):
        line = logs.TerminalFormatter(colour=True).format(record)
    assert "\n" not in line
    assert "\x1b[2J" not in line
    assert "http: odd prompt" in line
    assert line.endswith("task_id=t1")
