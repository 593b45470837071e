"""What only S3 can do: refuse, throttle, break off, go away and come back."""

import os
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.errors import ObjectMissingError, StorageError, StorageUnavailableError
from storage.address import BucketAddress
from storage.done_tasks import done_tasks, pack
from storage.ledger import Ledger
from storage.s3 import S3Settings, S3Store
from storage.store import open_store
from tests.s3_faults import Fault, FaultyProxy
from tests.s3_server import READER_ACCESS_KEY, READER_SECRET_KEY, S3Server
from tests.storage.records import record

pytestmark = pytest.mark.s3
Open = Callable[[], S3Store]


@pytest.fixture
def proxy(s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    assert s3_uri
    with FaultyProxy(s3_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.mark.parametrize(
    "fault",
    [Fault(500, "InternalError"), Fault(503, "SlowDown"), Fault(502, ""), Fault(429, "TooManyRequests")],
    ids=lambda fault: f"{fault.status}",
)
def test_a_server_that_fails_for_a_while_is_waited_for(proxy: FaultyProxy, s3_store: Open, fault: Fault) -> None:
    store = s3_store()
    proxy.script(*[fault] * 3)
    assert store.put("a", b"1")
    proxy.script(*[fault] * 2)
    assert store.get("a") == b"1"
    proxy.script(*[fault] * 2)
    assert [info.key for info in store.list()] == ["a"]
    assert proxy.pending() == 0


def test_a_conflict_between_conditional_writers_is_tried_again(proxy: FaultyProxy, s3_store: Open) -> None:
    proxy.script(Fault(409, "ConditionalRequestConflict"), method="PUT")
    assert s3_store().put("a", b"1", if_absent=True)
    assert proxy.requests.count(proxy.requests[0]) == 2


def test_a_conditional_write_whose_answer_was_lost_is_still_a_win(proxy: FaultyProxy, s3_store: Open) -> None:
    proxy.script(Fault(lose_answer=True), method="PUT")
    assert s3_store().put("a", b"1", if_absent=True)
    assert not s3_store().put("a", b"2", if_absent=True)


def test_a_body_that_breaks_off_is_read_again(proxy: FaultyProxy, s3_store: Open) -> None:
    store = s3_store()
    store.put("a", b"0123456789" * 1000)
    proxy.script(Fault(cut_body_at=100), method="GET")
    assert store.get("a") == b"0123456789" * 1000


def test_a_server_that_hangs_is_given_up_on_and_asked_again(proxy: FaultyProxy, s3_store: Open) -> None:
    store, end = s3_store(), threading.Event()
    proxy.script(Fault(hang_until=end))
    assert store.put("a", b"1")
    end.set()


def test_a_server_that_stays_down_is_a_transient_error_after_the_budget(
    proxy: FaultyProxy, s3_uri: str, s3_store: Open
) -> None:
    proxy.script(*[Fault(503, "SlowDown")] * 100)
    store = S3Store(s3_store().address, S3Settings(retry_budget_s=0.2, client_attempts=1, conditional_put=True))
    with pytest.raises(StorageUnavailableError, match=rf"cannot write {s3_uri}/a at {proxy.endpoint}: SlowDown"):
        store.put("a", b"1")


def test_a_port_where_nobody_listens_is_a_transient_error(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageUnavailableError, match=r"127\.0\.0\.1:9: no answer"):
        open_store(s3_uri, retry_budget_s=0.1).get("a")


def test_a_missing_bucket_is_named_and_not_created(s3_server: S3Server, s3_uri: str) -> None:
    assert s3_uri
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/.*the bucket does not exist") as caught:
        open_store("s3://no-such-bucket/run").check()
    assert s3_server.endpoint in str(caught.value)
    assert not isinstance(caught.value, ObjectMissingError)
    with pytest.raises(StorageError, match="the bucket does not exist"):
        list(open_store("s3://no-such-bucket/run").list())


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "does not know this access key"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
        (
            {"AWS_ACCESS_KEY_ID": READER_ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": READER_SECRET_KEY},
            "may not do that",
        ),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no usable credentials"),
    ],
    ids=["unknown-key", "wrong-secret", "read-only", "none"],
)
def test_credentials_that_do_not_fit_stop_at_once_and_say_what_to_set(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    with pytest.raises(StorageError, match=said) as caught:
        open_store(s3_uri).check()
    assert s3_uri in str(caught.value)


def test_an_endpoint_that_is_no_url_is_a_permanent_error(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:8333")
    with pytest.raises(StorageError, match="localhost:8333"):
        open_store(s3_uri).check()


def test_the_server_is_found_to_support_conditional_writes(s3_uri: str) -> None:
    store = open_store(s3_uri)
    assert isinstance(store, S3Store)
    assert store.supports_conditional_put
    assert list(store.list()) == []


@pytest.mark.parametrize("status", [400, 501])
def test_a_server_that_refuses_the_condition_gets_a_head_and_a_put(
    proxy: FaultyProxy, s3_uri: str, status: int
) -> None:
    store = S3Store(BucketAddress(*s3_uri.removeprefix("s3://").split("/", 1)), S3Settings(retry_budget_s=1))
    proxy.script(Fault(status, "NotImplemented"), method="PUT")
    assert store.put("a", b"1", if_absent=True)
    assert not store.put("a", b"2", if_absent=True)
    assert not store.supports_conditional_put


def test_a_large_file_goes_up_in_parts_and_survives_a_failing_one(
    proxy: FaultyProxy, s3_store: Open, tmp_path: Path
) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(os.urandom(1 << 20) * 12)
    settings = S3Settings(multipart_threshold_bytes=5 << 20, multipart_part_bytes=5 << 20, retry_budget_s=5)
    store = S3Store(s3_store().address, settings)
    proxy.script(Fault(503, "SlowDown"), method="PUT")
    store.put("large.mp4", path, "video/mp4")
    assert store.get("large.mp4") == path.read_bytes()
    info = store.head("large.mp4")
    assert info is not None
    assert info.etag.endswith("-3")
    assert info.content_type == "video/mp4"
    assert not store.put("large.mp4", path, if_absent=True)


def test_a_signed_url_reads_without_credentials(s3_store: Open) -> None:
    store = s3_store()
    store.put("clip.mp4", b"frames")
    assert "X-Amz-Signature" in store.sign("clip.mp4", expires_s=60)  # version 4: newer regions take no other
    with urllib.request.urlopen(store.sign("clip.mp4", expires_s=60)) as answer:
        assert answer.read() == b"frames"


def test_a_restarted_server_has_what_was_written_and_writers_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        ledger = Ledger(open_store(server.make_bucket("outage")))
        ledger.write(record("aa" * 16))
        server.kill()
        writer = threading.Thread(target=ledger.write, args=(record("bb" * 16),))
        writer.start()
        server.restart()
        writer.join(timeout=30)
        assert done_tasks(ledger).fingerprints.tolist() == pack(["aa" * 16, "bb" * 16]).tolist()


def test_many_keys_are_deleted_as_every_server_knows_it(proxy: FaultyProxy, s3_store: Open) -> None:
    store = s3_store()
    for key in ("a", "b", "c"):
        store.put(key, b"1")
    proxy.headers.clear()
    store.delete(["a", "b"])
    (headers,) = proxy.headers
    assert headers["content-md5"]
    assert not [name for name in headers if "checksum" in name]
    assert [info.key for info in store.list()] == ["c"]


def test_clients_are_given_the_address_that_they_can_reach(
    s3_server: S3Server, s3_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3_store()
    store.put("clip.mp4", b"frames", "video/mp4")
    with FaultyProxy(s3_server.port) as outside:
        monkeypatch.setenv("RUSHES_S3_PUBLIC_ENDPOINT", outside.endpoint)
        url = s3_store().sign("clip.mp4", expires_s=60)
        assert url.startswith(f"{outside.endpoint}/")
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"frames"
    assert s3_store().get("clip.mp4") == b"frames", "the store itself keeps its own way"
