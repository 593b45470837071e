"""The receiver that the documentation shows takes what the endpoint sends, and nothing else."""

import http.client
import importlib.util
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.clip import Status
from serve.config import MediaLimits, ServeConfig
from serve.store.contract import Store
from serve.store.messages import delivery, task_message
from serve.tasks import Outcome
from serve.webhooks import Deliverer, check_webhook_url, webhook_secret
from serve.wire.creates import TextToVideo

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "webhook_receiver.py"
PAGE = (ROOT / "docs" / "webhooks.md").read_text()
LABORATORY = ServeConfig(media=MediaLimits(allow_private=True))


@pytest.fixture
def receiver(store: Store) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("webhook_receiver", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    server = module.Receiver(webhook_secret(store, LABORATORY, "key_1"), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_documented_message_is_what_is_sent() -> None:
    (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    shown = json.loads(shown)
    outcome = Outcome(status=Status.SUCCEEDED, variant=shown["data"]["variant"])
    kept = {name: shown["data"][name] for name in ("kind", "model")}
    now = datetime.fromisoformat(shown["timestamp"]).timestamp()
    sent = task_message(task_id=shown["data"]["id"], variant="", batch_id=None, outcome=outcome, now=now, **kept)
    assert json.loads(sent) == shown


def test_the_documented_create_is_one() -> None:
    (body,) = re.findall(r"-d '(.*?)'", PAGE, re.DOTALL)
    read = TextToVideo.model_validate_json(body)
    assert read.webhook_url is not None
    assert check_webhook_url(read.webhook_url, allow_private=True)


def send(store: Store, receiver: Any, key_id: str) -> None:
    now = time.time()
    outcome = Outcome(status=Status.SUCCEEDED, variant="shapes")
    message = task_message(
        task_id="17f2", kind="text_to_video", model="embedded", variant="", batch_id=None, outcome=outcome, now=now
    )
    store.deliveries.add(delivery("17f2", key_id, f"http://127.0.0.1:{receiver.server_address[1]}/hook", message, now))
    assert Deliverer(store, LABORATORY).run_once() == 1


def test_the_example_takes_a_message_of_its_own_key(store: Store, receiver: Any) -> None:
    send(store, receiver, "key_1")
    assert store.deliveries.counts()["delivered"] == 1
    assert receiver.seen["msg_17f2"]["data"] == {
        "id": "17f2",
        "status": "SUCCEEDED",
        "kind": "text_to_video",
        "model": "embedded",
        "variant": "shapes",
    }


def test_the_example_refuses_what_another_key_signed(store: Store, receiver: Any) -> None:
    send(store, receiver, "key_2")
    assert store.deliveries.counts()["delivered"] == 0
    assert receiver.seen == {}


def test_the_example_refuses_what_nobody_signed(receiver: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.server_address[1], timeout=60)
    connection.request("POST", "/hook", b"{}", {"Content-Type": "application/json"})
    assert connection.getresponse().status == 401
    assert receiver.seen == {}
