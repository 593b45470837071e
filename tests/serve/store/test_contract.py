"""Tasks in the store: accepted, found, queued, throttled, limited, counted. On both databases and in memory."""

import math
import uuid
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from random import Random

import pytest

from schemas.clip import Status
from schemas.errors import PermanentError
from schemas.request import Request
from serve.errors import DailyLimitError, IdempotencyError, SpendLimitError
from serve.store.contract import MOST_AHEAD, Batch, Idempotency, Store
from serve.tasks import Constraints, Offer, StoredTask
from tests.serve.store.samples import NOW, ended, failure, group, leased, new_task, now_of, submitted, success

DAY = 86_400.0


def test_a_task_is_read_back_as_it_was_submitted(store: Store) -> None:
    task = new_task(
        constraints=Constraints(allow=("embedded",), max_usd=0.5, deadline_at=math.inf),
        priority=-3,
        router_id="r1",
        webhook_url="https://example.com/hook",
    )
    (accepted,) = store.tasks.submit([task], NOW).tasks
    found = store.tasks.get(task.id)
    assert found == accepted
    assert found is not None
    assert found.status is Status.PENDING
    assert found.created_at == NOW
    for name, value in task:
        assert getattr(found, name) == value
    assert found.story == task.offer.story


def test_tasks_come_back_in_the_order_given_with_rising_seqs(store: Store) -> None:
    tasks = [new_task() for _ in range(5)]
    accepted = store.tasks.submit(tasks, NOW).tasks
    assert [task.id for task in accepted] == [task.id for task in tasks]
    assert [task.seq for task in accepted] == sorted({task.seq for task in accepted})
    assert store.tasks.get_many([tasks[3].id, "nobody", tasks[1].id]) == (accepted[3], accepted[1])


def test_a_task_that_was_refused_is_over_as_it_is_accepted(store: Store) -> None:
    refusal = failure().model_copy(update={"billed_usd": 0.01})
    tasks = [new_task(outcome=refusal, webhook_url="https://example.com/hook"), new_task(), new_task()]
    stored = store.tasks.submit(tasks, NOW, max_live=1, max_month_usd=1.0).tasks
    assert [task.status for task in stored] == [Status.FAILED, Status.PENDING, Status.THROTTLED], "it takes no place"
    over = store.tasks.get(stored[0].id)
    assert over == stored[0]
    assert over is not None
    assert (over.outcome, over.finished_at, over.variant, over.epoch) == (refusal, NOW, "embedded", 0)
    assert store.tasks.pending() == stored[1:2]
    (due,) = store.deliveries.due(NOW)
    assert due.id == f"msg_{over.id}"
    assert store.tasks.cancel(over.id, None, NOW) is Status.FAILED
    assert store.tasks.get(over.id) == over
    # Its bill, not its quote, counts against what the key may spend.
    assert store.tasks.submit([new_task(offer=offer_of(0.88))], NOW, max_month_usd=1.0).tasks
    with pytest.raises(SpendLimitError):
        store.tasks.submit([new_task(offer=offer_of(0.02))], NOW, max_month_usd=1.0)


def offer_of(usd: float) -> Offer:
    return new_task().offer.model_copy(update={"usd": usd})


def test_nothing_submitted_is_nothing_stored(store: Store) -> None:
    assert store.tasks.submit([], NOW).tasks == ()
    assert store.tasks.pending() == ()


def test_all_are_stored_or_none(store: Store) -> None:
    taken, fresh = new_task(), new_task()
    store.tasks.submit([taken], NOW)
    with pytest.raises(PermanentError, match="refuses"):
        store.tasks.submit([fresh, taken], NOW)
    assert store.tasks.get(fresh.id) is None


def test_another_keys_task_does_not_exist(store: Store) -> None:
    (task,) = submitted(store, key_id="key-a")
    assert store.tasks.get(task.id, "key-b") is None
    assert store.tasks.cancel(task.id, "key-b", NOW) is None
    assert not store.tasks.delete(task.id, "key-b")
    assert store.tasks.get(task.id, "key-a") == task
    assert store.tasks.recent(key_id="key-b") == ()


@pytest.mark.parametrize("asked", ["", "nobody", "a\x00b", "\ud800", "'; DROP TABLE tasks; --", "x" * 10_000])
def test_a_strange_id_finds_nothing(store: Store, asked: str) -> None:
    assert store.tasks.get(asked) is None
    assert store.tasks.cancel(asked, None, NOW) is None
    assert not store.tasks.delete(asked, None)
    assert not store.tasks.finish(asked, 1, success(), NOW)
    assert store.batches.get(asked) is None


def test_text_that_a_database_cannot_hold_is_stored_readably(database_store: Store) -> None:
    task = new_task(request=Request(prompt="nul \x00 here"), model="a\x00b")
    database_store.tasks.submit([task], NOW)
    found = database_store.tasks.get(task.id)
    assert found is not None
    assert found.request.prompt == "nul \x00 here"
    assert found.model == "a\ufffdb"


class TestIdempotency:
    def test_the_same_key_and_body_give_the_tasks_of_then(self, store: Store) -> None:
        key = Idempotency("k1", "digest")
        first = store.tasks.submit([new_task(), new_task()], NOW, idempotency=key)
        again = store.tasks.submit([new_task(), new_task()], NOW + 9, idempotency=key)
        assert not first.replayed
        assert again.replayed
        assert again.tasks == first.tasks
        assert store.tasks.counts().by_status[Status.PENDING] == 2

    def test_another_body_is_refused(self, store: Store) -> None:
        store.tasks.submit([new_task()], NOW, idempotency=Idempotency("k1", "digest"))
        with pytest.raises(IdempotencyError):
            store.tasks.submit([new_task()], NOW, idempotency=Idempotency("k1", "other"))
        assert store.tasks.counts().by_status[Status.PENDING] == 1

    def test_what_was_stored_then_can_be_asked_for(self, store: Store) -> None:
        key = Idempotency("k1", "digest")
        assert store.tasks.replay("key-a", key) is None
        stored = store.tasks.submit([new_task(key_id="key-a")], NOW, idempotency=key).tasks
        assert store.tasks.replay("key-a", key) == stored
        assert store.tasks.replay("key-b", key) is None
        with pytest.raises(IdempotencyError):
            store.tasks.replay("key-a", Idempotency("k1", "other"))

    def test_what_was_stored_under_a_key_can_be_asked_for_without_storing(self, store: Store) -> None:
        key = Idempotency("k1", "digest")
        assert store.tasks.replay("key-a", key) is None
        first = store.tasks.submit([new_task(), new_task()], NOW, idempotency=key)
        assert store.tasks.replay("key-a", key) == first.tasks
        assert store.tasks.replay("key-b", key) is None
        with pytest.raises(IdempotencyError):
            store.tasks.replay("key-a", Idempotency("k1", "other"))

    def test_two_clients_may_use_the_same_one(self, store: Store) -> None:
        key = Idempotency("k1", "digest")
        store.tasks.submit([new_task(key_id="key-a")], NOW, idempotency=key)
        assert not store.tasks.submit([new_task(key_id="key-b")], NOW, idempotency=key).replayed

    def test_a_replay_is_not_limited(self, store: Store) -> None:
        key = Idempotency("k1", "digest")
        first = store.tasks.submit([new_task()], NOW, idempotency=key, max_since=(NOW, 1))
        assert store.tasks.submit([new_task()], NOW, idempotency=key, max_since=(NOW, 1)).tasks == first.tasks

    def test_a_refused_submit_leaves_its_key_unused(self, store: Store) -> None:
        key = Idempotency("k1", "digest")
        with pytest.raises(DailyLimitError):
            store.tasks.submit([new_task()], NOW, idempotency=key, max_since=(NOW, 0))
        assert not store.tasks.submit([new_task()], NOW, idempotency=key).replayed

    def test_of_many_submits_at_once_one_makes_the_task(self, store: Store) -> None:
        key = Idempotency("k1", "digest")
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: store.tasks.submit([new_task()], NOW, idempotency=key), range(16)))
        assert len({answer.tasks[0].id for answer in answers}) == 1
        assert sum(not answer.replayed for answer in answers) == 1
        assert store.tasks.counts().by_status[Status.PENDING] == 1


class TestLimits:
    def test_tasks_beyond_the_limit_wait_throttled(self, store: Store) -> None:
        tasks = store.tasks.submit([new_task() for _ in range(4)], NOW, max_live=3).tasks
        more = store.tasks.submit([new_task()], NOW, max_live=3).tasks
        assert [task.status for task in tasks + more] == [Status.PENDING] * 3 + [Status.THROTTLED] * 2
        assert store.tasks.throttled_keys() == ("key-a",)
        assert store.tasks.pending() == tasks[:3]

    def test_another_keys_tasks_do_not_count(self, store: Store) -> None:
        store.tasks.submit([new_task(key_id="key-b")], NOW, max_live=1)
        assert store.tasks.submit([new_task()], NOW, max_live=1).tasks[0].status is Status.PENDING

    def test_release_takes_the_oldest_as_far_as_there_is_room_and_shows_them_as_new(self, store: Store) -> None:
        tasks = store.tasks.submit([new_task() for _ in range(4)], NOW, max_live=1).tasks
        later = submitted(store, key_id="key-b")
        assert store.tasks.release("key-a", 1, NOW) == ()
        ended(store, tasks[0])
        released = store.tasks.release("key-a", 2, NOW)
        assert [task.id for task in released] == [tasks[1].id, tasks[2].id]
        assert store.tasks.pending(after_seq=later[0].seq) == released
        assert now_of(store, tasks[3]).status is Status.THROTTLED
        ended(store, released[0])
        store.tasks.release("key-a", 9, NOW)
        assert store.tasks.throttled_keys() == ()

    def test_a_throttled_task_can_be_cancelled(self, store: Store) -> None:
        _, waits = store.tasks.submit([new_task(), new_task()], NOW, max_live=1).tasks
        assert store.tasks.cancel(waits.id, None, NOW) is Status.THROTTLED
        assert now_of(store, waits).status is Status.CANCELLED
        assert store.tasks.throttled_keys() == ()

    def test_concurrent_releases_let_no_more_through_than_allowed(self, store: Store) -> None:
        store.tasks.submit([new_task() for _ in range(20)], NOW, max_live=0)
        with ThreadPoolExecutor(6) as threads:
            released = list(threads.map(lambda _: store.tasks.release("key-a", 5, NOW), range(12)))
        assert sum(map(len, released)) == 5
        assert store.tasks.counts().by_status[Status.PENDING] == 5

    def test_the_daily_limit_counts_what_was_made_since(self, store: Store) -> None:
        store.tasks.submit([new_task()], NOW - 10)
        store.tasks.submit([new_task(), new_task()], NOW, max_since=(NOW, 3))
        with pytest.raises(DailyLimitError) as refused:
            store.tasks.submit([new_task(), new_task()], NOW, max_since=(NOW, 3))
        assert refused.value.retry_at == NOW + DAY
        store.tasks.submit([new_task()], NOW, max_since=(NOW, 3))
        store.tasks.submit([new_task(key_id="key-b")], NOW, max_since=(NOW, 3))

    def test_concurrent_submits_do_not_pass_the_daily_limit(self, store: Store) -> None:
        def submit(_: int) -> bool:
            try:
                store.tasks.submit([new_task()], NOW, max_since=(NOW, 5), max_live=3)
            except DailyLimitError:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(submit, range(24))) == 5
        found = store.tasks.counts("key-a").by_status
        assert (found[Status.PENDING], found[Status.THROTTLED]) == (3, 2)

    def test_a_month_costs_what_was_billed_and_what_is_offered(self, store: Store) -> None:
        first, second = store.tasks.submit([new_task(), new_task()], NOW, max_month_usd=0.12).tasks  # 0.05 each
        with pytest.raises(SpendLimitError, match="12 credits a month, 10 spent or quoted") as refused:
            store.tasks.submit([new_task()], NOW, max_month_usd=0.12)
        assert refused.value.retry_at == 1_701_388_800.0, "the next month, in UTC"
        ended(store, first, success(billed_usd=0.02))
        (third,) = store.tasks.submit([new_task()], NOW, max_month_usd=0.12).tasks
        with pytest.raises(SpendLimitError):
            store.tasks.submit([new_task()], NOW, max_month_usd=0.12)
        store.tasks.cancel(third.id, None, NOW)
        store.tasks.cancel(second.id, None, NOW)
        store.tasks.submit([new_task(), new_task()], NOW, max_month_usd=0.12)
        store.tasks.submit([new_task(key_id="key-b")], NOW, max_month_usd=0.05)
        store.tasks.submit([new_task()], refused.value.retry_at, max_month_usd=0.05)

    def test_what_costs_nothing_is_taken_whatever_was_spent(self, store: Store) -> None:
        store.tasks.submit([new_task()], NOW, max_month_usd=0.05)
        free = new_task()
        free = free.model_copy(update={"offer": free.offer.model_copy(update={"usd": 0.0})})
        assert len(store.tasks.submit([free], NOW, max_month_usd=0.0).tasks) == 1

    def test_concurrent_submits_do_not_pass_the_month_s_dollars(self, store: Store) -> None:
        def submit(_: int) -> bool:
            try:
                store.tasks.submit([new_task()], NOW, max_month_usd=0.25, max_live=9)
            except SpendLimitError:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(submit, range(24))) == 5

    def test_a_refused_submit_leaves_neither_batch_nor_idempotency_key(self, store: Store) -> None:
        key = Idempotency("k", "digest")
        batch = Batch("b1", "key-a", NOW, 1, 0.05)
        with pytest.raises(SpendLimitError):
            store.tasks.submit([new_task(batch_id="b1")], NOW, idempotency=key, max_month_usd=0.01, batch=batch)
        assert store.batches.get("b1") is None
        assert store.tasks.replay("key-a", key) is None
        stored = store.tasks.submit([new_task(batch_id="b1")], NOW, idempotency=key, batch=batch)
        again = Batch("b2", "key-a", NOW, 1, 0.05)
        replayed = store.tasks.submit([new_task(batch_id="b2")], NOW, idempotency=key, batch=again)
        assert (replayed.replayed, replayed.tasks) == (True, stored.tasks)
        assert store.batches.get("b2") is None


class TestMedia:
    def test_media_of_unfinished_tasks_are_in_use(self, store: Store) -> None:
        def task(**media: str) -> StoredTask:
            (made,) = submitted(store, request=Request(prompt="x", **media))
            return made

        task(), task(image="s3://b/inputs/waits.png")
        leased(store, task(video="s3://b/inputs/runs.mp4"))
        ended(store, task(image="s3://b/inputs/done.png"))
        ended(store, task(image="s3://b/inputs/failed.png"), failure())
        store.tasks.cancel(task(image="s3://b/inputs/cancelled.png").id, None, NOW)
        assert store.tasks.media_in_use() == {"s3://b/inputs/waits.png", "s3://b/inputs/runs.mp4"}


class TestQueue:
    def test_position_is_by_priority_and_then_by_acceptance(self, store: Store) -> None:
        low, first, second, high = (submitted(store, priority=p)[0] for p in (-1, 0, 0, 5))
        assert store.tasks.positions((high, first, second, low)) == (0, 1, 2, 3)
        assert [store.tasks.positions((task,)) for task in (low, high)] == [(3,), (0,)]
        leased(store, first)
        assert store.tasks.positions((second, now_of(store, first))) == (1, 0)
        assert store.tasks.positions(()) == ()

    def test_positions_are_right_whichever_tasks_are_asked_for_together(self, store: Store) -> None:
        chance = Random(1)
        tasks = [submitted(store, priority=chance.choice((-100, -1, 0, 0, 0, 7, 100)))[0] for _ in range(60)]
        for task in chance.sample(tasks, 15):
            leased(store, task)
        waiting = sorted(store.tasks.pending(), key=lambda task: (-task.priority, task.seq))
        for count in (1, 2, 5, len(waiting)):
            some = chance.sample(waiting, count)
            assert store.tasks.positions(some) == tuple(waiting.index(task) for task in some)

    def test_position_is_capped(self, store: Store) -> None:
        tasks = store.tasks.submit([new_task() for _ in range(MOST_AHEAD + 2)], NOW).tasks
        near, far = tasks[MOST_AHEAD - 1], tasks[-1]
        assert store.tasks.positions((near,)) == (MOST_AHEAD - 1,)
        assert store.tasks.positions((far, near, tasks[5])) == (MOST_AHEAD, MOST_AHEAD - 1, 5)

    def test_pending_goes_on_from_a_seq_and_keeps_to_its_limit(self, store: Store) -> None:
        tasks = submitted(store, 5)
        assert store.tasks.pending(limit=2) == tasks[:2]
        assert store.tasks.pending(after_seq=tasks[1].seq) == tasks[2:]
        leased(store, tasks[3])
        assert store.tasks.pending(after_seq=tasks[1].seq) == (tasks[2], tasks[4])

    def test_a_reader_that_goes_on_from_the_last_seq_misses_no_task(self, store: Store) -> None:
        seen: list[str] = []
        last = 0
        with ThreadPoolExecutor(8) as threads:
            jobs = [threads.submit(store.tasks.submit, [new_task()], NOW) for _ in range(200)]
            running = set(jobs)
            while running:
                # A reader that never waits would keep the writers from their turns.
                running = wait(running, return_when=FIRST_COMPLETED).not_done
                fresh = store.tasks.pending(after_seq=last)
                seen += [task.id for task in fresh]
                last = fresh[-1].seq if fresh else last
        assert sorted(seen) == sorted(job.result().tasks[0].id for job in jobs)

    def test_a_new_routing_decision_of_a_waiting_task_is_kept(self, store: Store) -> None:
        waits, runs = submitted(store, 2)
        leased(store, runs)
        for task in (waits, runs):
            store.tasks.reprice(task.id, group("turbo").model_dump_json(), '[{"variant":"turbo"}]')
        assert (now_of(store, waits).group, now_of(store, waits).story) == (group("turbo"), ({"variant": "turbo"},))
        assert now_of(store, runs).group == group("embedded")


class TestCancelAndDelete:
    def test_a_waiting_task_ends_at_once(self, store: Store) -> None:
        (task,) = submitted(store)
        assert store.tasks.cancel(task.id, "key-a", NOW + 1) is Status.PENDING
        found = now_of(store, task)
        assert (found.status, found.finished_at, found.cancelled) == (Status.CANCELLED, NOW + 1, True)
        assert found.outcome is not None
        assert found.outcome.status is Status.CANCELLED
        assert store.tasks.lease([task.seq], "r", "embedded", NOW + 9, NOW) == ()

    def test_a_running_task_is_marked(self, store: Store) -> None:
        (task,) = submitted(store)
        leased(store, task)
        assert store.tasks.cancel(task.id, None, NOW + 2) is Status.RUNNING
        found = now_of(store, task)
        assert (found.status, found.cancelled) == (Status.RUNNING, True)

    @pytest.mark.parametrize("outcome", [success(), failure()])
    def test_one_that_ended_stays_as_it_ended(self, store: Store, outcome) -> None:  # type: ignore[no-untyped-def]
        (task,) = submitted(store)
        ended(store, task, outcome)
        before = now_of(store, task)
        assert store.tasks.cancel(task.id, None, NOW + 5) is outcome.status
        assert now_of(store, task) == before

    def test_a_deleted_task_is_hidden_and_still_in_the_usage(self, store: Store) -> None:
        (task,) = submitted(store)
        ended(store, task)
        assert store.tasks.delete(task.id, "key-a")
        assert not store.tasks.delete(task.id, "key-a")
        assert store.tasks.get(task.id) is None
        assert store.tasks.cancel(task.id, None, NOW) is None
        assert store.tasks.recent() == ()
        assert now_of(store, task).deleted
        assert store.tasks.usage("key-a", NOW - 1, NOW + 1) == (("2023-11-14", "gen4_turbo", 1, pytest.approx(0.04)),)


class TestSums:
    def test_usage_is_by_utc_date_and_model(self, store: Store) -> None:
        for at, model in ((NOW, "a"), (NOW, "b"), (NOW + 1, "b"), (NOW + DAY, "a")):
            (task,) = store.tasks.submit([new_task(model=model)], at).tasks
            if model == "b":
                ended(store, task, success(billed_usd=0.25))
        submitted(store, key_id="key-b")
        assert store.tasks.usage("key-a", NOW, NOW + 2 * DAY) == (
            ("2023-11-14", "a", 1, 0.0),
            ("2023-11-14", "b", 2, 0.5),
            ("2023-11-15", "a", 1, 0.0),
        )
        assert store.tasks.usage("key-a", NOW + 1, NOW + DAY) == (("2023-11-14", "b", 1, 0.25),)

    def test_counts_name_every_status_and_the_dead(self, store: Store) -> None:
        one, two, three = submitted(store, 3)
        ended(store, one)
        ended(store, two, failure(dead=True))
        leased(store, three)
        submitted(store, 2, key_id="key-b")
        all_of_them, of_a = store.tasks.counts(), store.tasks.counts("key-a")
        assert all_of_them.by_status[Status.PENDING] == 2
        assert of_a.by_status[Status.PENDING] == 0
        for counts in (all_of_them, of_a):
            assert [counts.by_status[s] for s in (Status.RUNNING, Status.SUCCEEDED, Status.FAILED)] == [1, 1, 1]
            assert counts.dead == 1
        assert store.tasks.counts("key-b").dead == 0

    def test_recent_is_latest_first_and_narrowed_by_what_is_asked(self, store: Store) -> None:
        tasks = submitted(store, 4)
        ended(store, tasks[1], failure())
        (other,) = submitted(store, key_id="key-b")
        shown = [task.id for task in store.tasks.recent(limit=3)]
        assert shown == [other.id, tasks[3].id, tasks[2].id]
        assert [task.id for task in store.tasks.recent(statuses=[Status.FAILED])] == [tasks[1].id]
        assert [task.id for task in store.tasks.recent(key_id="key-a", before_seq=tasks[2].seq)] == [
            tasks[1].id,
            tasks[0].id,
        ]
        assert store.tasks.recent(batch_id=str(uuid.uuid4())) == ()
