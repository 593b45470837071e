"""Webhooks against real receivers that fail, hang, redirect and lie, over a real store."""

import json
import logging
import threading
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from schemas.errors import ConfigError, InvalidRequestError
from serve.config import ServeConfig, Webhooks
from serve.errors import StoreUnavailableError
from serve.net import Outbound
from serve.store.contract import Delivery, Store
from serve.webhooks import Deliverer, check_webhook_url, webhook_secret
from tests.serve.strangers import Stranger, endless, hang, raw, status

CONFIG = ServeConfig(webhooks=Webhooks(timeout_s=2.0, max_attempts=6, base_s=10.0, most_s=60.0))
PATIENT = ServeConfig(webhooks=Webhooks(timeout_s=2.0, base_s=40.0))
PAYLOAD = json.dumps({"type": "task.succeeded", "data": {"id": "task-1", "prompt": "日本 ✓"}}, ensure_ascii=False)


class Clock:
    """The real time, moved on by hand: signatures are checked against the real one."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


def due(store: Store, url: str, now: float, name: str = "msg_1", key_id: str = "key_1") -> None:
    store.deliveries.add(Delivery(id=name, url=url, key_id=key_id, payload=PAYLOAD, created_at=now, due_at=now))


def deliverer(store: Store, server: Stranger, clock: Clock, config: ServeConfig = CONFIG) -> Deliverer:
    return Deliverer(store, config, clock, outbound=server.outbound(), jitter=lambda: 1.0)


def test_a_message_is_delivered_and_verifies(store: Store, clock: Clock) -> None:
    with Stranger() as server:
        server.answers(status(204))
        due(store, server.url("/hook?a=b"), clock())
        assert deliverer(store, server, clock).run_once() == 1
        (visit,) = server.visits
        assert (visit.method, visit.path, visit.body.decode()) == ("POST", "/hook?a=b", PAYLOAD)
        assert visit.headers["content-type"] == "application/json"
        assert visit.headers["webhook-id"] == "msg_1"
        secret = webhook_secret(store, CONFIG, "key_1")
        assert Webhook(secret).verify(visit.body, visit.headers) == json.loads(PAYLOAD)
        with pytest.raises(WebhookVerificationError):
            Webhook(webhook_secret(store, CONFIG, "key_2")).verify(visit.body, visit.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(visit.body + b" ", visit.headers)
        assert store.deliveries.counts()["delivered"] == 1
        assert deliverer(store, server, clock).run_once() == 0


def test_a_configured_secret_signs_for_everybody(store: Store, clock: Clock) -> None:
    config = ServeConfig(webhooks=Webhooks(secret="whsec_c2VjcmV0c2VjcmV0c2VjcmV0"))
    with Stranger() as server:
        server.answers(status(200))
        due(store, server.url(), clock())
        deliverer(store, server, clock, config).run_once()
        Webhook("whsec_c2VjcmV0c2VjcmV0c2VjcmV0").verify(server.visits[0].body, server.visits[0].headers)


def test_it_is_tried_until_the_receiver_is_well(store: Store, clock: Clock) -> None:
    """It fails, hangs, redirects inside, hangs up, and then takes it."""
    with Stranger() as inside, Stranger() as server:
        inside.answers(status(200))
        server.answers(status(500), hang(), status(307, f"Location: {inside.url('/internal')}"), raw(b""), status(200))
        due(store, server.url(), clock())
        sender = deliverer(store, server, clock, PATIENT)
        for wait_s in (40.0, 80.0, 160.0, 320.0):
            assert sender.run_once() == 1
            assert store.deliveries.counts() == {"waiting": 1, "delivered": 0, "given_up": 0}
            clock.ahead += wait_s - 2.0
            assert sender.run_once() == 0  # not before its time
            clock.ahead += 2.5
        assert sender.run_once() == 1
        assert store.deliveries.counts()["delivered"] == 1
        assert inside.connections == 0
        assert len(server.visits) == 5
        assert {visit.headers["webhook-id"] for visit in server.visits} == {"msg_1"}
        # Signed anew each time, so that it stays inside the receiver's tolerance.
        assert len({visit.headers["webhook-timestamp"] for visit in server.visits}) == 5


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (status(500), "answered 500"),
        (status(400), "answered 400"),
        (status(301, "Location: https://example.com/"), "redirects are not followed"),
        (hang(), "no answer within 2 s"),
        (raw(b"nonsense"), "no answer: RemoteProtocolError"),
        (raw(b""), "no answer: RemoteProtocolError"),
    ],
    ids=["500", "400", "redirect", "hang", "nonsense", "nothing"],
)
def test_a_failed_attempt_says_why(store: Store, clock: Clock, script, why: str) -> None:  # type: ignore[no-untyped-def]
    with Stranger() as server:
        server.answers(script)
        due(store, server.url(), clock())
        deliverer(store, server, clock).run_once()
        clock.ahead += 20
        (again,) = store.deliveries.due(clock())
        assert why in again.last_error
        assert again.attempts == 1


def test_a_long_answer_is_not_read(store: Store, clock: Clock) -> None:
    for code in ("200", "500"):
        with Stranger() as server:
            whole = endless("text/plain")
            server.answers(whole if code == "200" else _failing_at_length)
            due(store, server.url(), clock(), name=code)
            start = time.perf_counter()
            deliverer(store, server, clock).run_once()
            assert time.perf_counter() - start < CONFIG.webhooks.timeout_s
    assert store.deliveries.counts() == {"waiting": 1, "delivered": 1, "given_up": 0}


def _failing_at_length(visit) -> None:  # type: ignore[no-untyped-def]
    visit.head(500, "Transfer-Encoding: chunked")
    while not visit.over.is_set() and visit.send(b"1000\r\n" + b"\0" * 4096 + b"\r\n"):
        pass


def test_it_is_given_up_after_its_last_attempt(store: Store, clock: Clock) -> None:
    with Stranger() as server:
        server.answers(status(503))
        due(store, server.url(), clock())
        sender = deliverer(store, server, clock)
        attempts = 0
        while store.deliveries.counts()["waiting"]:
            attempts += sender.run_once()
            clock.ahead += 61
        assert attempts == CONFIG.webhooks.max_attempts == len(server.visits)
        assert store.deliveries.counts()["given_up"] == 1


def test_a_receiver_that_is_gone_is_left_alone(store: Store, clock: Clock) -> None:
    with Stranger() as server:
        server.answers(status(410))
        due(store, server.url(), clock())
        deliverer(store, server, clock).run_once()
        assert store.deliveries.counts()["given_up"] == 1


def test_waits_double_up_to_a_limit_and_differ(store: Store) -> None:
    def waits(jitter: float) -> list[float | None]:
        sender = Deliverer(store, CONFIG, lambda: 1000.0, jitter=lambda: jitter)
        made = [sender.next_at(Delivery("a", "", "", "", 0, 0, attempts=n)) for n in range(6)]
        return [at - 1000.0 if at is not None else None for at in made]

    assert waits(1.0) == [10.0, 20.0, 40.0, 60.0, 60.0, None]
    assert waits(0.0) == [5.0, 10.0, 20.0, 30.0, 30.0, None]
    many = Deliverer(store, ServeConfig(webhooks=Webhooks(max_attempts=5000)), lambda: 0.0)
    assert many.next_at(Delivery("a", "", "", "", 0, 0, attempts=4000)) is not None


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ("25", 25.0),
        ("Thu, 01 Jan 2032 00:00:30 GMT", 30.0),
        ("Thursday, 01-Jan-32 00:00:30 GMT", 30.0),
        ("3", 10.0),  # less than our own pause
        ("86400", 60.0),  # `most_s`
        ("Fri, 01 Jan 2100 00:00:00 GMT", 60.0),
        ("Wed, 01 Jan 1997 00:00:00 GMT", 10.0),
        ("soon", 10.0),
        ("-5", 10.0),
        ("9" * 400, 10.0),
        ("1e3", 10.0),
        ("", 10.0),
    ],
)
@pytest.mark.parametrize("code", [429, 503, 500])
def test_a_receiver_says_when_it_wants_to_be_asked_again(store: Store, code: int, said: str, wait_s: float) -> None:
    now = 1_956_528_000.0  # 2032-01-01
    with Stranger() as server:
        server.answers(status(code, f"Retry-After: {said}"))
        due(store, server.url(), now)
        Deliverer(store, CONFIG, lambda: now, outbound=server.outbound(), jitter=lambda: 1.0).run_once()
        assert store.deliveries.due(now + wait_s - 0.5) == ()
        assert len(store.deliveries.due(now + wait_s + 0.5)) == 1


def test_a_receiver_that_moved_inside_is_not_called(store: Store, clock: Clock) -> None:
    """The address is checked at every attempt, not only when the task was made."""
    with Stranger() as server:
        outbound = Outbound(resolver=lambda host, port: ["10.0.0.5"], trust=server.trust)
        due(store, "https://hooks.example/a", clock())
        Deliverer(store, CONFIG, clock, outbound=outbound).run_once()
        clock.ahead += 20
        (again,) = store.deliveries.due(clock())
        assert "does not have a public address" in again.last_error


def test_one_receiver_that_hangs_does_not_hold_up_the_others(store: Store, clock: Clock) -> None:
    with Stranger() as slow, Stranger("quick.test") as quick:
        slow.answers(hang())
        quick.answers(status(200))
        for number in range(8):
            due(store, slow.url(), clock(), name=f"slow_{number}")
            due(store, quick.url(), clock(), name=f"quick_{number}")
        trust = slow.trust
        trust.load_verify_locations(cadata=_pem(quick))
        Deliverer(store, CONFIG, clock, outbound=slow.outbound(trust=trust)).run_once()
        assert store.deliveries.counts() == {"waiting": 8, "delivered": 8, "given_up": 0}
        assert len(quick.visits) == 8


def _pem(server: Stranger) -> str:
    (der,) = server.trust.get_ca_certs(binary_form=True)
    import ssl

    return ssl.DER_cert_to_PEM_cert(der)


def test_thousands_for_a_dead_receiver_do_not_hold_up_the_others(store: Store, clock: Clock) -> None:
    """They come first in the queue, and would take a timeout each."""
    with Stranger() as dead, Stranger("quick.test") as quick:
        dead.answers(hang())
        quick.answers(status(200))
        now = clock()
        for number in range(600):
            due(store, dead.url(), now - 10, name=f"dead_{number}")
        due(store, quick.url(), now, name="quick")
        trust = dead.trust
        trust.load_verify_locations(cadata=_pem(quick))
        sender = Deliverer(store, CONFIG, clock, outbound=dead.outbound(trust=trust))
        start = time.perf_counter()
        attempts = [sender.run_once() for _ in range(3)]
        assert time.perf_counter() - start < 10 * CONFIG.webhooks.timeout_s, "not a timeout for each of the 600"
        assert attempts == [8, 0, 1]
        assert store.deliveries.counts() == {"waiting": 600, "delivered": 1, "given_up": 0}
        # Passed over is not given up: when the claims have run out and the host is back, all arrive.
        dead.answers(status(200))
        clock.ahead += 100
        while sender.run_once():
            pass
        assert store.deliveries.counts()["delivered"] == 601


def test_a_burst_for_one_receiver_goes_out_at_once(store: Store, clock: Clock) -> None:
    with Stranger() as server:
        server.answers(status(200))
        for number in range(60):
            due(store, server.url(), clock(), name=f"msg_{number}")
        assert deliverer(store, server, clock).run_once() == 60
        assert store.deliveries.counts()["delivered"] == 60


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!", "", "whsec_a"])
def test_a_configured_secret_must_be_one(store: Store, secret: str) -> None:
    with pytest.raises(ConfigError, match="webhooks.secret"):
        webhook_secret(store, ServeConfig(webhooks=Webhooks(secret=secret)), "key_1")


def test_two_deliverers_do_not_send_the_same(store: Store, clock: Clock) -> None:
    with Stranger() as server:
        server.answers(status(200))
        for number in range(40):
            due(store, server.url(), clock(), name=f"msg_{number}")
        senders = [threading.Thread(target=deliverer(store, server, clock).run_once) for _ in range(3)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert sorted(visit.headers["webhook-id"] for visit in server.visits) == sorted(
            f"msg_{number}" for number in range(40)
        )


def test_what_was_sent_but_not_kept_is_sent_again(store: Store, clock: Clock) -> None:
    """The store goes away between the answer and the note of it: at least once, under the same id."""

    class Forgetting:
        def __init__(self) -> None:
            self.deliveries, self.notes = self, store.notes

        def due(self, now: float, limit: int = 100, *, claim_s: float = 60.0) -> tuple[Delivery, ...]:
            return store.deliveries.due(now, limit, claim_s=claim_s)

        def delivered(self, delivery_id: str, now: float) -> None:
            raise StoreUnavailableError("away")

    with Stranger() as server:
        server.answers(status(200))
        due(store, server.url(), clock())
        outbound = server.outbound()
        Deliverer(Forgetting(), CONFIG, clock, outbound=outbound).run_once()  # type: ignore[arg-type]
        sender = Deliverer(store, CONFIG, clock, outbound=outbound)
        assert sender.run_once() == 0  # still claimed
        clock.ahead += 70
        assert sender.run_once() == 1
        assert [visit.headers["webhook-id"] for visit in server.visits] == ["msg_1", "msg_1"]
        assert store.deliveries.counts()["delivered"] == 1


def test_it_runs_until_it_is_stopped_and_outlives_the_store(store: Store, clock: Clock) -> None:
    away = threading.Event()

    class Flaky:
        def __init__(self) -> None:
            self.deliveries, self.notes = self, store.notes
            self.delivered, self.failed = store.deliveries.delivered, store.deliveries.failed

        def due(self, now: float, limit: int = 100, *, claim_s: float = 60.0) -> tuple[Delivery, ...]:
            if not away.is_set():
                away.set()
                raise StoreUnavailableError("away")
            return store.deliveries.due(now, limit, claim_s=claim_s)

    with Stranger() as server:
        server.answers(status(200))
        due(store, server.url(), clock())
        stop = threading.Event()
        sender = Deliverer(Flaky(), CONFIG, clock, outbound=server.outbound())  # type: ignore[arg-type]
        thread = threading.Thread(target=sender.run, args=(stop,))
        thread.start()
        deadline = time.monotonic() + 60
        while not store.deliveries.counts()["delivered"] and time.monotonic() < deadline:
            time.sleep(0.02)
        stop.set()
        thread.join(5)
        assert not thread.is_alive()
        assert store.deliveries.counts()["delivered"] == 1


def test_no_secret_is_logged(store: Store, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Stranger() as server:
        server.answers(status(500))
        due(store, server.url("/hook?token=SECRET"), clock())
        deliverer(store, server, clock).run_once()
    assert "attempt 1: answered 500" in caplog.text
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("httpcore")]
    assert not any("SECRET" in line or "whsec_" in line or "signature" in line for line in ours)


@pytest.mark.parametrize("url", ["https://hooks.example.com/a?b=c", "https://example.com:8443/"])
def test_a_good_webhook_url_is_taken(url: str) -> None:
    assert check_webhook_url(url) == url


@pytest.mark.parametrize(
    "url", ["http://example.com/", "https://127.0.0.1/", "https://localhost/", "https://a@example.com/", "", "x"]
)
def test_a_bad_webhook_url_is_refused_at_its_field(url: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        check_webhook_url(url)
    assert refused.value.issues[0].path == "webhookUrl"
