"""Webhook messages: claimed by one deliverer at a time, kept until delivered or given up."""

from concurrent.futures import ThreadPoolExecutor

from serve.store.contract import Delivery, Store
from tests.serve.store.samples import NOW


def message(name: str = "m1", due_at: float = NOW) -> Delivery:
    return Delivery(name, "https://example.com/hook", "key-a", '{"type":"x"}', NOW, due_at)


def test_a_message_is_claimed_until_its_claim_runs_out(store: Store) -> None:
    store.deliveries.add(message())
    assert store.deliveries.due(NOW - 1) == ()
    (claimed,) = store.deliveries.due(NOW, claim_s=60)
    assert (claimed.id, claimed.payload, claimed.attempts) == ("m1", '{"type":"x"}', 0)
    assert store.deliveries.due(NOW + 59) == ()
    assert len(store.deliveries.due(NOW + 60)) == 1


def test_a_failure_is_kept_and_tried_again_when_due(store: Store) -> None:
    store.deliveries.add(message())
    store.deliveries.due(NOW)
    store.deliveries.failed("m1", "HTTP 503", NOW + 5)
    assert store.deliveries.due(NOW + 4) == ()
    (again,) = store.deliveries.due(NOW + 5)
    assert (again.attempts, again.last_error) == (1, "HTTP 503")


def test_what_was_delivered_or_given_up_is_never_due(store: Store) -> None:
    for name in ("m1", "m2", "m3"):
        store.deliveries.add(message(name))
    store.deliveries.delivered("m1", NOW + 1)
    store.deliveries.failed("m2", "HTTP 410", None)
    store.deliveries.failed("m1", "late", NOW + 2)
    assert [due.id for due in store.deliveries.due(NOW + 999)] == ["m3"]
    assert store.deliveries.counts() == {"waiting": 1, "delivered": 1, "given_up": 1}


def test_the_longest_due_come_first(store: Store) -> None:
    for name, due_at in (("b", NOW - 1), ("c", NOW), ("a", NOW - 2)):
        store.deliveries.add(message(name, due_at))
    assert [due.id for due in store.deliveries.due(NOW, limit=2)] == ["a", "b"]
    assert [due.id for due in store.deliveries.due(NOW, limit=2)] == ["c"]


def test_two_deliverers_never_claim_the_same_message(store: Store) -> None:
    for place in range(60):
        store.deliveries.add(message(f"m{place}"))

    def claim(_: int) -> list[str]:
        mine: list[str] = []
        while claimed := store.deliveries.due(NOW, limit=5):
            mine += [delivery.id for delivery in claimed]
        return mine

    with ThreadPoolExecutor(6) as threads:
        claimed = [name for names in threads.map(claim, range(6)) for name in names]
    assert sorted(claimed) == sorted(f"m{place}" for place in range(60))
