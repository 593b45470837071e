"""Parts of a running endpoint die, hang, fail or are taken away. Accepted tasks are rendered, once, all the same.

One endpoint serves all of these tests, in the order in which they stand: what a test breaks is whole again for the
next one, or that is a failure too. `small` has two replicas; `spare` has none until somebody asks for it.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from cluster.topology import Topology
from schemas.clip import Status
from serve.config import Pools, Queue
from serve.tasks import StoredTask
from tests.failures import endpoint as support
from tests.failures.endpoint import Endpoint, catalog_text
from tests.failures.processes import DEAR_TURN_S, kill, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

CATALOG = catalog_text(small=["spare"], spare=[], broken=["spare"], absent=["spare"])
POOLS = Pools(
    variants=("small", "spare", "broken", "absent"),
    min_replicas={"small": 2},
    max_replicas={"small": 2, "absent": 0},
    idle_to_zero_s=1.0,
)
QUEUE = Queue(lease_s=4.0, heartbeat_s=0.3, max_attempts=2, retry_base_s=0.1, drain_s=30.0)


@pytest.fixture(scope="module")
def served(ray_cluster: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with support.endpoint(tmp_path_factory.mktemp("endpoint"), CATALOG, POOLS, QUEUE) as endpoint:
        yield endpoint


@pytest.fixture
def both(served: Endpoint) -> Iterator[Endpoint]:
    """Both replicas are up and idle."""
    served.wait_for_pools(small=2)
    yield served
    with served.script.nothing_held():  # a test that failed keeps no replica from the next one
        wait_until(lambda: not served.store.tasks.running(), "the replicas to be idle")


# -- from nothing, and fallbacks -----------------------------------------------------------------------------------


def test_a_variant_at_zero_is_started_by_demand_and_a_task_cancelled_meanwhile_is_not_rendered(both: Endpoint) -> None:
    assert both.report()["spare"]["replicas"] == 0
    with both.script.loading("spare", "hold"):
        gone, kept = both.submit("cancelled while loading", "spare"), both.submit("waits for the load", "spare")
        both.script.wait("loading", "spare")
        both.cancel(gone)
        assert both.statuses(gone, kept) == [Status.CANCELLED, Status.PENDING]
    (task,) = both.succeeded(kept)
    assert (task.attempts, task.variant, task.fallback) == (1, "spare", "")
    assert both.script.events("called", "cancelled while loading") == []
    assert both.objects_of(gone) == []


def test_a_busy_variant_is_passed_over_where_the_client_says_so_and_the_task_tells(both: Endpoint) -> None:
    both.wait_for_pools(spare=1)
    busy = [*both.holding("fills 1", "fills 2"), both.submit("fills 3")]
    wait_until(lambda: both.shown()["small"]["queued"] == 1, "the ingress to see the queue")
    (task,) = both.succeeded(both.submit("not behind them", skipBusy=True))
    assert (task.variant, task.model, task.attempts) == ("spare", "small", 1)
    assert skipped(task) == ["small"]
    # Seen by the ingress, which then offers the other one, or only by the dispatcher.
    assert task.offer.variant == "spare" or "spare instead" in task.fallback
    for n in (1, 2):
        both.script.go_on(f"fills {n}", "called")
    assert [task.variant for task in both.succeeded(*busy)] == ["small"] * 3


def test_a_variant_that_cannot_be_loaded_is_replaced_and_the_task_says_so(both: Endpoint) -> None:
    with both.script.loading("broken", "fail"):
        (first,) = both.succeeded(both.submit("fails to load", "broken"))
        assert (first.offer.variant, first.variant, first.attempts) == ("broken", "spare", 1)
        assert "broken" in first.fallback
        assert "spare instead" in first.fallback
        assert any("spare" in str(entry.get("text", "")) for entry in first.story)
        shown = both.client.get(f"/v1/tasks/{first.id}").json()
        assert (shown["offeredVariant"], shown["fallbackReason"]) == ("broken", first.fallback)
        # Now that this is known, nobody is offered it.
        wait_until(lambda: not both.report()["broken"]["healthy"], "the pool to be down", turn_s=DEAR_TURN_S)
        (second,) = both.succeeded(both.submit("is not offered", "broken"))
        assert second.variant == "spare"


def test_a_variant_that_may_have_no_replica_is_replaced_at_once(both: Endpoint) -> None:
    (task,) = both.succeeded(both.submit("nobody is there", "absent"))
    assert (task.offer.variant, task.variant, task.model, task.attempts) == ("spare", "spare", "absent", 1)
    assert skipped(task) == ["absent"]
    refused = both.post("nobody is there, nor may be", "absent", fallback=False)
    assert refused.status_code == 503, "and nobody else may"


# -- replicas ------------------------------------------------------------------------------------------------------


def test_a_killed_replica_loses_time_and_nothing_else(both: Endpoint) -> None:
    (killed,) = both.holding("killed", point="step")
    pid = both.script.wait("at step", "killed")["pid"]
    kill(pid)
    both.script.go_on("killed", "step")
    (task,) = both.succeeded(killed)
    assert (task.attempts, task.epoch) == (2, 2)
    assert both.script.wait("called", "killed", 2)["pid"] != pid
    assert len(both.script.events("encoded", "killed")) == 1


def test_a_replica_that_wakes_after_its_lease_can_neither_finish_nor_overwrite(both: Endpoint) -> None:
    (stale,) = both.holding("stale", point="rendered")
    sleeper = both.script.wait("at rendered", "stale")["pid"]
    os.kill(sleeper, signal.SIGSTOP)
    try:
        both.script.go_on("stale", "rendered")
        (before,) = both.succeeded(stale)
        assert (before.attempts, before.epoch) == (2, 2)
        clip = both.clip_of(stale)
        written = clip.stat().st_mtime_ns, clip.read_bytes()
    finally:
        os.kill(sleeper, signal.SIGCONT)
    # It publishes, and tells of it, before it publishes anything else: so once it has done so, that is over.
    later, names = [], []
    while sleeper not in {both.script.wait("called", name)["pid"] for name in names}:
        names.append(f"after {len(names)}")
        later += both.holding(names[-1])
    for name in names:
        both.script.go_on(name, "called")
    both.succeeded(*later)
    assert both.script.events("called", "stale")[0]["pid"] == sleeper
    (after,) = both.succeeded(stale)
    assert after == before
    assert (clip.stat().st_mtime_ns, clip.read_bytes()) == written


def test_a_replica_that_froze_goes_on_with_what_nobody_else_has_taken(both: Endpoint) -> None:
    (frozen,) = both.holding("frozen", point="step", model="spare")
    pid = both.script.wait("at step", "frozen")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        both.script.go_on("frozen", "step")
        wait_until(lambda: both.statuses(frozen) == [Status.PENDING], "its lease to run out")
    finally:
        os.kill(pid, signal.SIGCONT)
    (task,) = both.succeeded(frozen)
    assert (task.attempts, task.epoch) == (1, 1)
    assert len(both.script.events("called", "frozen")) == 1


def test_a_failure_that_may_pass_is_tried_again(both: Endpoint) -> None:
    both.script.plan("no memory", fail=["memory"])
    both.script.plan("no storage", fail=["storage"])
    tasks = both.succeeded(both.submit("no memory"), both.submit("no storage"))
    assert [task.attempts for task in tasks] == [2, 1], "what all tasks share is no fault of one"
    assert [task.last_error != "" for task in tasks] == [True, True]


@dataclass(frozen=True)
class _Piled:
    """What one replica has: a clip that is being stored, one that is rendered and waits for that, one only pulled."""

    stored: str
    rendered: str
    pulled: str
    prompts: tuple[str, str, str]

    @property
    def ids(self) -> tuple[str, str, str]:
        return self.stored, self.rendered, self.pulled


def piled_up(both: Endpoint, name: str) -> _Piled:
    """Three tasks at the replica of `spare`, whose store is slow until the script lets the first go on encoding."""
    storing, rendering, pulling = f"{name}: stored", f"{name}: rendered", f"{name}: pulled"
    (stored,) = both.holding(storing, point="encoding", model="spare")
    (rendered,) = both.holding(rendering, point="step", model="spare")
    pulled = both.submit(pulling, "spare", numInferenceSteps=5)
    wait_until(lambda: both.report()["spare"]["queued"] == 1, "it to be queued")
    both.script.go_on(rendering, "step")
    wait_until(lambda: both.task(pulled).status is Status.RUNNING, "the next pull")
    return _Piled(stored, rendered, pulled, (storing, rendering, pulling))


def test_a_batch_that_waits_for_a_slow_store_keeps_its_leases(both: Endpoint) -> None:
    piled = piled_up(both, "slow store")
    began = both.task(piled.pulled).lease_until
    wait_until(
        lambda: both.task(piled.pulled).lease_until > began + 1.5 * QUEUE.lease_s, "heartbeats for what was pulled"
    )
    both.script.go_on(piled.prompts[0], "encoding")
    assert [task.attempts for task in both.succeeded(*piled.ids)] == [1, 1, 1]


def test_what_a_killed_replica_had_not_begun_loses_no_attempt(both: Endpoint) -> None:
    piled = piled_up(both, "dies")
    kill(both.script.wait("at encoding", piled.prompts[0])["pid"])
    both.script.go_on(piled.prompts[0], "encoding")
    assert [task.attempts for task in both.succeeded(*piled.ids)] == [2, 2, 1]
    assert len(both.script.events("called", piled.prompts[2])) == 1


def test_a_task_that_kills_its_replica_every_time_is_given_up_and_takes_nobody_with_it(both: Endpoint) -> None:
    holders = both.holding("first holder", "second holder")
    both.script.plan("poison", die=99)
    poison = both.submit("poison")
    mates = [both.submit(f"mate {n}") for n in range(3)]
    wait_until(lambda: both.report()["small"]["queued"] == 4, "all to be queued")
    both.script.go_on("first holder", "called")
    met = both.script.wait("called", "poison")["names"]
    assert set(met) == {"poison", "mate 0", "mate 1", "mate 2"}, "they were one batch"
    both.script.go_on("second holder", "called")
    (dead,) = both.ended(poison)
    assert (dead.status, dead.attempts) == (Status.FAILED, QUEUE.max_attempts)
    assert dead.outcome is not None
    assert dead.outcome.dead
    assert "given up after 2 attempts" in dead.outcome.failure
    assert both.store.tasks.counts().dead == 1
    assert both.objects_of(poison) == []
    assert [task.attempts for task in both.succeeded(*mates)] == [2, 2, 2]
    both.succeeded(*holders)
    assert [event["names"] for event in both.script.events("called", "poison")[1:]] == [["poison"]], "then alone"


# -- what clients do -----------------------------------------------------------------------------------------------


def test_one_idempotency_key_makes_one_task_however_often_and_fast_it_is_sent(both: Endpoint) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: both.post("only once", key="key 1"), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    (task_id,) = {answer.json()["id"] for answer in answers}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 7
    assert both.post("something else", key="key 1").status_code == 409
    both.succeeded(task_id)
    assert len(both.script.events("called", "only once")) == 1
    assert len([task for task in both.store.tasks.recent(200) if task.request.prompt == "only once"]) == 1


def test_a_task_cancelled_in_the_queue_is_never_rendered(both: Endpoint) -> None:
    holders = both.holding("before it 1", "before it 2")
    queued = both.submit("cancelled in the queue")
    both.cancel(queued)
    assert both.statuses(queued) == [Status.CANCELLED]
    following = both.submit("comes after it")
    for n in (1, 2):
        both.script.go_on(f"before it {n}", "called")
    both.succeeded(*holders, following)
    assert both.script.events("called", "cancelled in the queue") == []
    assert both.task(queued).attempts == 0


def test_a_task_cancelled_while_it_renders_stops_at_the_next_step_and_frees_the_replica(both: Endpoint) -> None:
    (holder,) = both.holding("elsewhere")
    (rendering,) = both.holding("cancelled at a step", point="step", numInferenceSteps=12)
    following = both.submit("takes its place")
    pid = both.script.wait("at step", "cancelled at a step")["pid"]
    both.cancel(rendering)
    both.script.wait("told to stop", "cancelled at a step")
    both.script.go_on("cancelled at a step", "step")
    (task,) = both.ended(rendering)
    assert (task.status, task.attempts) == (Status.CANCELLED, 1)
    assert len(both.script.events("step", "cancelled at a step")) <= 2
    both.succeeded(following)
    assert both.script.wait("called", "takes its place")["pid"] == pid
    assert both.script.events("encoded", "cancelled at a step") == []
    assert both.objects_of(rendering) == []
    both.script.go_on("elsewhere", "called")
    both.succeeded(holder)


def test_a_task_cancelled_while_it_is_encoded_ends_cancelled(both: Endpoint) -> None:
    (encoding,) = both.holding("cancelled at the end", point="encoding")
    both.cancel(encoding)
    assert both.statuses(encoding) == [Status.RUNNING]
    both.script.go_on("cancelled at the end", "encoding")
    (task,) = both.ended(encoding)
    assert (task.status, task.attempts) == (Status.CANCELLED, 1)
    assert both.client.get(f"/v1/tasks/{encoding}").status_code == 404
    assert len(both.script.events("called", "cancelled at the end")) == 1
    wait_until(lambda: both.objects_of(encoding) == [], "its clip to be removed")


# -- the endpoint's own processes ----------------------------------------------------------------------------------


def test_a_killed_ingress_forgets_nothing_and_another_answers(both: Endpoint) -> None:
    accepted = [*both.holding("held by nobody's request"), both.submit("accepted before")]
    ingress = support.pid_of("Ingress")
    kill(ingress)
    both.script.go_on("held by nobody's request", "called")

    def answers() -> bool:
        try:
            return both.client.get(f"/v1/tasks/{accepted[0]}").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, "another ingress", turn_s=DEAR_TURN_S)
    assert support.pid_of("Ingress") != ingress
    tasks = both.succeeded(*accepted, both.submit("accepted after"))
    assert [task.attempts for task in tasks] == [1, 1, 1]


def test_a_killed_dispatcher_interrupts_nobody(both: Endpoint) -> None:
    running = both.holding("runs 1", "runs 2", point="step")
    waiting = [both.submit(f"waits {n}") for n in range(6)]
    dispatcher = support.pid_of("Dispatcher")
    kill(dispatcher)
    wait_until(
        lambda: support.pids_of("Dispatcher") not in ([], [dispatcher]), "another dispatcher", turn_s=DEAR_TURN_S
    )
    for n in (1, 2):
        both.script.go_on(f"runs {n}", "step")
    tasks = both.succeeded(*running, *waiting)
    assert [task.attempts for task in tasks] == [1] * 8, "nothing was given out twice"
    for task in tasks:
        assert len(both.script.events("called", task.request.prompt)) == 1


def test_a_killed_controller_interrupts_nobody_and_goes_on_to_mend(both: Endpoint) -> None:
    (running,) = both.holding("rendered without a controller", point="step")
    controller = support.controller_pid()
    kill(controller)
    both.script.go_on("rendered without a controller", "step")
    tasks = both.succeeded(running, both.submit("accepted without a controller"))
    assert [task.attempts for task in tasks] == [1, 1]
    assert support.controller_pid() != controller
    lost = support.pool_pids("small")[0]
    kill(lost)
    both.wait_for_pools(small=1)
    both.wait_for_pools(small=2)
    assert lost not in support.pool_pids("small"), "another is in its place"


# -- the end -------------------------------------------------------------------------------------------------------


def test_what_nobody_asks_for_any_more_is_given_back(both: Endpoint) -> None:
    both.wait_for_pools(spare=0)
    wait_until(lambda: support.pool_pids("spare") == [], "its process to end", turn_s=DEAR_TURN_S)


def test_drained_it_finishes_what_runs_and_keeps_what_waits(both: Endpoint) -> None:
    """The last one: nothing is given out after it."""
    running = both.holding("drained 1", "drained 2", point="step")
    waiting = [both.submit(f"kept {n}") for n in range(3)]
    both.ask("drain")
    waiting.append(both.submit("accepted while it drains"))
    assert both.ask("running") == 2
    for n in (1, 2):
        both.script.go_on(f"drained {n}", "step")
    wait_until(lambda: both.ask("running") == 0, "what runs")
    assert [task.attempts for task in both.succeeded(*running)] == [1, 1]
    assert both.statuses(*waiting) == [Status.PENDING] * 4
    assert [task.attempts for task in both.tasks(waiting)] == [0] * 4


def skipped(task: StoredTask) -> list[object]:
    """The variants that could not start, as the task tells."""
    (entry,) = (entry for entry in task.story or task.offer.story if entry["type"] == "capacity")
    return list(entry["skipped"])  # type: ignore[arg-type]
