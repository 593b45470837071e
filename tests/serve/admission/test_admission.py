"""Admission: names, shapes, routes, quotes, promises and refusals, without a server."""

import itertools
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.routing.terms import Preference
from cluster.scheduling.eta import EtaTerms, regime_of
from cluster.scheduling.events import TenantShare
from schemas.errors import ConfigError, InvalidRequestError
from schemas.request import Mode, Request
from serve.admission.admission import Admission
from serve.admission.offer import Decision, NoCapacityError, RefusedError
from serve.config import Pools, ServeConfig
from serve.dispatch.fleet import CALIBRATION, NOTE, PoolReport
from serve.store.contract import Store
from serve.tasks import Constraints
from tests.serve.http.endpoint import catalog_with, pool, report_of, stored

NOW = 1_900_000_000.0
PRICES = {"shapes": 720.0, "shapes-turbo": 360.0, "tiny-random": 36.0}
ALL = ("embedded", "embedded-turbo", "tiny-random")


class Notes:
    """The one part of a store that admission reads."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.reads = 0

    def read(self, name: str) -> Any:
        self.reads += 1
        return self.kept.get(name)


@dataclass
class Desk:
    """An admission, its clock and its notes."""

    admission: Admission
    notes: Notes
    now: float = NOW
    seq: int = 0

    def note(self, *pools: PoolReport, **more: Any) -> None:
        config = self.admission._config
        report = report_of(config, self.admission.served, pools, self.now, **more)
        self.notes.kept[NOTE] = report.model_dump(mode="json")
        self.admission.refresh()

    def consider(self, request: Request | None = None, **constraints: Any) -> Decision:
        return self.admission.consider(request or ask(), Constraints(**constraints), key_id="k")

    def accept(self, request: Request | None = None) -> Decision:
        decision = self.consider(request)
        task = decision.as_task(key_id="k", kind="text_to_video", model="m")
        self.seq += 1
        self.admission.accepted([stored(task, self.seq, self.now)])
        return decision


def desk(variants: tuple[str, ...] = ALL, prices: dict[str, float] | None = None, **pools: Any) -> Desk:
    config = ServeConfig(pools=Pools(variants=variants, **pools))
    notes = Notes()

    class OnlyNotes:
        pass

    store: Any = OnlyNotes()
    store.notes = notes
    typed: Store = store
    made = Desk(None, notes)  # type: ignore[arg-type]
    made.admission = Admission(config, catalog_with(prices), typed, lambda: made.now)
    return made


def ask(variant: str = "embedded", **fields: Any) -> Request:
    return Request(variant=variant, **{"prompt": "a red circle", **fields})


def issues_of(error: pytest.ExceptionInfo[InvalidRequestError]) -> list[tuple[str, str]]:
    return [(issue.path, issue.code) for issue in error.value.issues]


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variant"),
    [("embedded", "shapes"), ("shapes", "shapes"), ("gen4_turbo", "shapes-turbo"), ("tiny", "tiny-random")],
)
def test_an_alias_is_its_variant(name: str, variant: str) -> None:
    assert desk().consider(ask(name)).offer.variant == variant


def test_names_that_nobody_knows_or_serves_are_refused() -> None:
    with pytest.raises(InvalidRequestError) as unknown:
        desk().consider(ask("embeded"))
    assert issues_of(unknown) == [("variant", "unknown_model")]
    assert unknown.value.issues[0].choices[0] == "embedded"
    with pytest.raises(InvalidRequestError) as elsewhere:
        desk().consider(ask("mochi"))
    assert issues_of(elsewhere) == [("variant", "not_served")]
    with pytest.raises(InvalidRequestError) as listed:
        desk().consider(deny=("nobody",))
    assert issues_of(listed) == [("deny", "unknown_model")]
    with pytest.raises(ConfigError, match="unknown variant 'nobody'"):
        desk(("nobody",))


def test_a_variant_that_is_not_served_is_replaced_by_its_served_fallback() -> None:
    only_turbo = desk(("embedded-turbo",))
    offer = only_turbo.consider(ask("embedded")).offer
    assert (offer.variant, offer.reason) == ("shapes-turbo", "filter_order_fallback")
    with pytest.raises(RefusedError):
        only_turbo.consider(ask("embedded"), fall_back=False)


def test_a_mode_that_a_variant_does_not_have_names_those_that_do() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        desk().consider(ask("embedded", mode=Mode.VIDEO_TO_VIDEO, video="s3://b/v"))
    assert issues_of(caught) == [("variant", "mode")]
    assert caught.value.issues[0].choices == ("tiny-random",)


def test_auto_takes_what_is_meant_for_it_before_what_is_not() -> None:
    assert desk().consider(ask("auto")).offer.variant in ("shapes", "shapes-turbo")
    assert desk(("tiny-random",)).consider(ask("auto")).offer.variant == "tiny-random"
    video = ask("auto", video="s3://b/v")
    assert desk().consider(video).offer.variant == "tiny-random"


# -- shapes ----------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["embedded", "tiny", "auto"]),
    st.none() | st.builds("{}:{}".format, st.integers(1, 4000), st.integers(1, 4000)),
    st.none() | st.floats(0.01, 3600),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_asked_for_is_rendered_in_a_shape_that_there_is(
    variant: str, ratio: str | None, duration: float | None
) -> None:
    at = DESK
    decision = at.consider(ask(variant, ratio=ratio, duration_s=duration))
    rule = at.admission.served[decision.offer.variant].shape
    assert rule.issues(decision.group.shape) == ()


def test_each_variant_has_its_own_shape() -> None:
    at = desk()
    big = ask("tiny", ratio="256:256")
    assert str(at.consider(big).group.shape) == "256x256x17"
    at.note(pool("tiny-random", healthy=False), pool("shapes"), pool("shapes-turbo"))
    with pytest.raises(NoCapacityError):
        at.consider(big)
    near = {"shapes": False, "shapes-turbo": False, "tiny-random": True}
    assert at.admission.able(ask(ratio="256:256")) == near
    assert at.admission.able(ask(ratio="64:64")) == dict.fromkeys(near, True)


# -- quotes and promises ---------------------------------------------------------------------------------------------


def test_a_variant_that_is_not_loaded_is_loaded_first() -> None:
    at = desk()
    assert at.consider().offer.wait_s == pytest.approx(10 + at.admission.served["shapes"].cost.load_cold_s)
    at.note(pool("shapes", load_s=3.0, replicas=0))
    assert at.consider().offer.wait_s == pytest.approx(3.0)
    at.now += 1
    at.note(pool("shapes", load_s=3.0, replicas=1))
    assert at.consider().offer.wait_s == 0


def test_a_quote_is_seconds_times_price() -> None:
    at = desk(prices=PRICES)
    at.note(pool("shapes", price_usd_per_hour=720.0))
    offer = at.consider().offer
    assert offer.usd == pytest.approx(offer.gpu_s * 720 / 3600)
    assert offer.credits == math.ceil(offer.usd * 100)


def test_what_finished_calls_took_is_what_the_next_are_quoted() -> None:
    from cluster.cost.calibration import Calibrator
    from cluster.cost.fit import Measured

    at = desk()
    before = at.consider()
    calibrator = Calibrator(at.admission.served.variants.values())
    for _ in range(20):
        call = Measured(before.group.shape, before.group.steps, before.group.guidance, 1, 10 * before.offer.gpu_s)
        calibrator.observe("shapes", "cpu", call)
    at.notes.kept[CALIBRATION] = calibrator.state.model_dump(mode="json")
    at.now += 11
    assert at.consider().offer.gpu_s == pytest.approx(10 * before.offer.gpu_s, rel=0.1)


def test_promises_follow_what_the_dispatcher_learnt() -> None:
    at = desk()
    at.note(pool("shapes"))
    plain = at.consider().offer
    at.now += 1
    at.note(pool("shapes"), eta=EtaTerms(log_median=math.log(2), bounds=(1.5,) * 4, warm_up=0.3))
    learnt = at.consider().offer
    assert learnt.eta_at - at.now == pytest.approx(2 * plain.raw_s, rel=0.01)
    assert learnt.eta_p90_at - at.now == pytest.approx(2 * plain.raw_s * math.exp(1.5 * learnt.scale), rel=0.01)
    assert plain.eta_at - NOW == pytest.approx(plain.raw_s, rel=0.01)
    assert plain.eta_p90_at > plain.eta_at
    assert (learnt.regime, learnt.raw_s) == (regime_of(plain.raw_s, plain.raw_s), pytest.approx(plain.raw_s))
    assert learnt.own_s == pytest.approx(plain.raw_s)


def test_own_acceptances_count_until_the_next_note_has_them() -> None:
    at = desk()
    at.note(pool("shapes"))
    offers = [at.accept().offer for _ in range(5)]
    work_s = offers[0].gpu_s
    waits_s = [offer.wait_s for offer in offers]
    assert waits_s[:2] == pytest.approx([0.0, work_s])
    assert all(a < b for a, b in itertools.pairwise(waits_s))
    assert waits_s[-1] < 4 * work_s, "tasks of one kind share calls, and are said to"
    assert [offer.position for offer in offers] == [0, 1, 2, 3, 4]
    at.now += 1
    at.note(pool("shapes", backlog_s=5 * work_s - 1, queued=4, busy=1), last_seq=5)
    assert at.consider().offer.wait_s == pytest.approx(5 * work_s - 1, abs=1e-3)
    assert at.consider().offer.position == 4


def test_a_burst_is_spread_over_replicas() -> None:
    at = desk()
    at.note(pool("shapes", replicas=4))
    for _ in range(8):
        at.accept()
    offer = at.consider().offer
    assert offer.gpu_s < offer.wait_s <= 2 * offer.gpu_s, "two behind each other on every replica, or in one call"


def test_a_backlog_shrinks_with_the_clock() -> None:
    at = desk()
    at.note(pool("shapes", backlog_s=10.0))
    at.now += 4
    assert at.consider().offer.wait_s == pytest.approx(6.0)
    at.now += 8  # what should be over and is not goes on for half as long as it is late
    assert at.consider().offer.wait_s == pytest.approx(1.0)


def test_older_notes_change_nothing() -> None:
    at = desk()
    at.note(pool("shapes", backlog_s=10.0))
    at.now -= 5
    at.note(pool("shapes", backlog_s=99.0))
    at.now += 5
    assert at.consider().offer.wait_s == pytest.approx(10.0)


def test_the_store_is_read_at_most_every_so_often() -> None:
    at = desk()
    for _ in range(100):
        at.consider()
    assert at.notes.reads <= 2
    at.now += 0.6
    at.consider()
    assert at.notes.reads == 3
    at.admission.kept_fresh = True
    at.now += 60
    at.consider()
    assert at.notes.reads == 3


# -- refusals --------------------------------------------------------------------------------------------------------


def test_what_costs_too_much_is_refused_with_the_least_that_would_do() -> None:
    at = desk(prices=PRICES)
    credits = at.consider(fall_back=False).offer.credits
    assert at.consider(fall_back=False, max_usd=credits / 100).offer.credits == credits
    with pytest.raises(RefusedError) as caught:
        at.consider(fall_back=False, max_usd=(credits - 1) / 100)
    assert issues_of(caught) == [("max_credits", "price")]
    assert caught.value.issues[0].choices == (str(credits),)
    assert not caught.value.choice.routed


@given(st.floats(0, 500), st.floats(0.1, 600), st.booleans(), st.floats(0.5, 4), st.floats(1, 8))
@settings(max_examples=80, deadline=None)
def test_a_deadline_is_kept_by_the_estimate_or_refused_with_one_that_is(
    backlog_s: float, within_s: float, fall_back: bool, median: float, bound: float
) -> None:
    at = desk()
    at.note(pool("shapes", backlog_s=backlog_s), pool("shapes-turbo", backlog_s=backlog_s / 2),
            eta=EtaTerms(log_median=math.log(median), bounds=(bound,) * 4))  # fmt: skip
    deadline_at = NOW + within_s
    try:
        offer = at.consider(deadline_at=deadline_at, fall_back=fall_back).offer
    except RefusedError as error:
        (issue,) = error.issues
        assert (issue.path, issue.code) == ("deadline", "deadline_cannot_be_kept")
        earliest = datetime.fromisoformat(issue.choices[0]).timestamp()
        assert earliest > deadline_at or within_s < 3
        at.now += 1  # the client reads, and asks again
        left_s = max(0.0, backlog_s - 1)
        at.note(pool("shapes", backlog_s=left_s), pool("shapes-turbo", backlog_s=max(0.0, backlog_s / 2 - 1)),
                eta=EtaTerms(log_median=math.log(median), bounds=(bound,) * 4))  # fmt: skip
        again = at.consider(deadline_at=earliest, fall_back=fall_back).offer
        assert again.eta_at <= earliest
    else:
        assert offer.eta_at <= deadline_at


@given(
    st.lists(st.tuples(st.sampled_from(list(PRICES)), st.floats(0, 100), st.booleans()), unique_by=lambda p: p[0]),
    st.sampled_from(["auto", "embedded", "tiny"]),
    st.sampled_from(list(Preference)),
    st.integers(0, 200),
    st.sets(st.sampled_from(list(PRICES))),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_an_offer_keeps_every_constraint(
    pools: list[tuple[str, float, bool]],
    variant: str,
    prefer: Preference,
    credits: int,
    deny: set[str],
    fall_back: bool,
) -> None:
    at = desk(prices=PRICES)
    up = {name for name, _, healthy in pools if healthy} | (PRICES.keys() - {name for name, _, _ in pools})
    at.note(*(pool(n, backlog_s=wait_s, healthy=healthy, price_usd_per_hour=PRICES[n]) for n, wait_s, healthy in pools))
    try:
        offer = at.consider(
            ask(variant), prefer=prefer, max_usd=credits / 100, deny=tuple(sorted(deny)), fall_back=fall_back
        ).offer
    except (RefusedError, NoCapacityError):
        return
    assert offer.credits <= credits
    assert offer.variant not in deny
    assert offer.variant in up
    named = {"embedded": "shapes", "tiny": "tiny-random"}.get(variant)
    assert fall_back or named is None or offer.variant == named
    assert math.isfinite(offer.eta_at)
    assert NOW <= offer.eta_at <= offer.eta_p90_at


def test_who_is_down_is_no_reason_to_blame_the_client() -> None:
    at = desk(("embedded",))
    at.note(pool("shapes", healthy=False))
    with pytest.raises(NoCapacityError):
        at.consider()


def test_a_variant_that_may_have_no_replica_is_not_offered() -> None:
    at = desk(max_replicas={"embedded": 0})
    assert at.consider(ask("auto")).offer.variant == "shapes-turbo"


def test_a_decision_is_quick() -> None:
    from time import process_time

    at = desk()
    at.note(pool("shapes"), pool("shapes-turbo"))
    request = ask("auto", ratio="1280:720", duration_s=2.0)
    at.consider(request)
    began = process_time()
    for _ in range(300):
        at.consider(request)
    assert (process_time() - began) / 300 < 1e-3


DESK = desk()


def test_a_share_that_the_dispatcher_has_not_noted_yet_is_heeded_in_an_offer() -> None:
    at = desk(("shapes",))
    at.note(pool("shapes"))
    for number in range(20):
        decision = at.consider()
        task = decision.as_task(key_id=f"other-{number}", kind="text_to_video", model="m")
        at.seq += 1
        at.admission.accepted([stored(task, at.seq, at.now)])
    urgent = ask(priority=50)
    usual = at.admission.consider(urgent, Constraints(), key_id="paid").offer.wait_s
    ahead = at.admission.consider(urgent, Constraints(), key_id="paid", share=TenantShare("paid", 1.0, 50)).offer.wait_s
    assert ahead < usual
