"""What waits: in which order, in which batches and for whom."""

from collections.abc import Callable

from schemas.clip import Status
from serve.config import Limits
from serve.dispatch.fleet import NOTE, FleetReport
from serve.store.contract import ApiKey
from tests.serve.dispatch.endpoint import Endpoint


def test_a_task_waits_until_a_replica_pulls_and_is_then_leased_to_it(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    assert endpoint.statuses([task]) == [Status.PENDING]
    work = endpoint.pull()
    assert work is not None
    held = endpoint.stored(task)
    assert (held.status, held.holder, held.epoch, held.variant) == (Status.RUNNING, "r1", 1, "small")
    assert work.batch.tasks[0].fingerprint == task.id


def test_a_waiting_replica_is_told_when_work_comes(endpoint: Endpoint) -> None:
    assert endpoint.pull() is None
    endpoint.submit()
    assert endpoint.woken == ["r1"]
    assert endpoint.pull() is not None


def test_tasks_of_one_group_share_a_call_up_to_the_best_batch(endpoint: Endpoint) -> None:
    endpoint.submit(6)
    first, second = endpoint.pull(), endpoint.pull()
    assert first is not None
    assert second is not None
    assert (len(first.batch.tasks), len(second.batch.tasks)) == (4, 2)


def test_tasks_of_different_shapes_never_share_a_call(endpoint: Endpoint) -> None:
    endpoint.submit(2)
    endpoint.submit(2, width=96, height=64, num_frames=17)
    while work := endpoint.pull():
        assert len({endpoint.store.tasks.get(task.fingerprint).group.key for task in work.batch.tasks}) == 1  # type: ignore[union-attr]
        assert len(work.batch.tasks) == 2


def test_a_lora_s_task_waits_for_the_replica_that_had_it_last(make: Callable[..., Endpoint]) -> None:
    endpoint = make(loras=("owner/",))
    ink = {"loras": [{"source": "owner/ink"}]}
    assert (endpoint.pull("r1"), endpoint.pull("r2")) == (None, None)
    endpoint.submit()
    plain = endpoint.pull("r1")
    endpoint.submit(**ink)
    inked = endpoint.pull("r2")
    assert plain is not None
    assert inked is not None
    for work, replica in ((plain, "r1"), (inked, "r2")):
        endpoint.finish(work, replica)
        assert endpoint.pull(replica) is None
    endpoint.submit(**ink)
    assert endpoint.woken[-1] == "r2"
    assert endpoint.pull("r1") is None, "who would have to load it does not take it over"
    assert endpoint.pull("r2") is not None


def test_higher_priority_goes_first(endpoint: Endpoint) -> None:
    endpoint.pull("r1")
    endpoint.submit(1)
    endpoint.pull("r1")  # busy with the first
    low = endpoint.submit(4, width=96, height=64)
    (high,) = endpoint.submit(1, priority=5)
    work = endpoint.pull("r1")
    assert work is not None
    assert [task.fingerprint for task in work.batch.tasks] == [high.id]
    assert endpoint.statuses(low) == [Status.PENDING] * 4


def of_keys(endpoint: Endpoint, count: int) -> list[str]:
    """Whose tasks the next calls of one replica are for."""
    found = []
    for _ in range(count):
        work = endpoint.pull("r1")
        assert work is not None
        found += [endpoint.stored_by_id(task.fingerprint).key_id for task in work.batch.tasks]
        endpoint.finish(work, "r1")
    return found


def test_a_key_goes_ahead_of_others_by_as_many_levels_as_it_may(endpoint: Endpoint) -> None:
    for name, levels in (("paid", 3), ("free", None)):
        endpoint.store.keys.add(ApiKey(name, name, 0.0, max_priority=levels), f"digest-{name}")
    endpoint.after(5.0)
    endpoint.pull("r1")
    endpoint.submit(1)
    endpoint.pull("r1")  # busy with the first
    endpoint.submit(3, key="others", width=96, height=64)
    endpoint.submit(1, key="free", priority=100, width=64, height=96)
    endpoint.submit(1, key="paid", priority=2, width=96, height=96)
    assert of_keys(endpoint, 1) == ["paid"], "before all that came earlier; 'free' may not, whatever it says"


def test_a_key_has_as_much_of_the_fleet_as_its_weight_says(make: Callable[..., Endpoint]) -> None:
    def share_of_heavy(weight: float | None) -> int:
        endpoint = make()
        heavy = f"heavy-{weight}"
        endpoint.store.keys.add(ApiKey(heavy, heavy, 0.0, weight=weight), f"digest-{heavy}")
        endpoint.after(5.0)
        endpoint.pull("r1")
        for number in range(12):  # no two share a call
            for key in ("light", heavy):
                endpoint.submit(1, key=key, num_inference_steps=2 + 2 * number + (key == heavy))
        found = of_keys(endpoint, 12).count(heavy)
        of_keys(endpoint, 12)
        return found

    assert share_of_heavy(3.0) > share_of_heavy(None)


def test_a_key_s_weight_is_changed_and_taken_back_while_it_runs(endpoint: Endpoint) -> None:
    endpoint.store.keys.add(ApiKey("paid", "paid", 0.0), "digest")
    shares = lambda: endpoint.driver.scheduler.planner.shares  # noqa: E731
    assert endpoint.store.keys.change(ApiKey("paid", "paid", 0.0, weight=4.0, max_priority=7))
    endpoint.after(5.0)
    assert (shares().weight("paid"), shares().key("paid", 100, 0.0)) == (4.0, -7 * 30.0)
    told = [tenant for tenant in endpoint.report().plan.tenants if tenant.name == "paid"]
    assert [(tenant.weight, tenant.max_priority) for tenant in told] == [(4.0, 7)], "every ingress quotes by it"
    assert endpoint.store.keys.change(ApiKey("paid", "paid", 0.0))
    endpoint.after(5.0)
    assert (shares().weight("paid"), shares().key("paid", 100, 0.0)) == (1.0, 0.0)


def test_a_key_over_its_limit_is_throttled_and_released_as_its_tasks_end(make: Callable[..., Endpoint]) -> None:
    endpoint = make(limits=Limits(max_concurrent=2))
    tasks = endpoint.submit(5)
    assert endpoint.statuses(tasks).count(Status.THROTTLED) == 3
    rendered = 0
    while rendered < 5:
        work = endpoint.pull("r1")
        assert work is not None
        assert len(work.batch.tasks) <= 2
        endpoint.finish(work, "r1")
        rendered += len(work.batch.tasks)
        endpoint.after(1)
    assert set(endpoint.statuses(tasks)) == {Status.SUCCEEDED}


def test_a_draining_broker_gives_out_nothing_and_keeps_what_waits(endpoint: Endpoint) -> None:
    tasks = endpoint.submit(2)
    endpoint.driver.drain()
    assert endpoint.pull("r1") is None
    assert endpoint.statuses(tasks) == [Status.PENDING] * 2
    assert FleetReport.model_validate(endpoint.store.notes.read(NOTE)).draining
