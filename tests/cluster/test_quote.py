import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cost import Cost
from cluster.quote import HOUSE, Busy, Held, Overheads, Quote, Spent, fleet_usd, quote, settle

COST = Cost(load_s=30, fixed_s=1, steps_s=8, decode_s=1, encode_s=2, batch=1)


def test_a_quote_is_load_share_execution_retries_and_idle_times_price() -> None:
    got = quote(COST, 3600.0, Overheads(tasks_per_load=10, retry_rate=0.2, idle_share=0.5))
    assert (got.load_usd, got.execution_usd, got.retries_usd) == (3.0, 10.0, 2.5)
    assert got.idle_usd == pytest.approx(15.5)
    assert got.usd == pytest.approx(31.0) == got.gpu_s


def test_quotes_add_up_and_a_batch_is_shared_by_its_tasks() -> None:
    four = Cost(load_s=0, fixed_s=1, steps_s=8, decode_s=1, encode_s=2, batch=4)
    one = quote(four, 3600.0)
    assert one.usd == 2.5
    assert sum([one] * 4, Quote()) == quote(four, 3600.0, tasks=4)


def test_impossible_overheads_are_refused() -> None:
    with pytest.raises(ValueError, match="idle_share"):
        Overheads(idle_share=1.0)


def test_a_load_is_paid_by_the_tasks_it_served_and_idling_by_those_who_held_the_replica() -> None:
    held = [Held("a", 3600.0, 0, 100)]
    busy = [
        Busy("a", Spent.LOAD, 0, 30),
        Busy("a", Spent.EXECUTION, 30, 40, ("t1",)),
        Busy("a", Spent.RETRY, 40, 45, ("t2",)),
        Busy("a", Spent.EXECUTION, 45, 60, ("t2",)),
    ]
    first, second = settle(held, busy)
    assert first.load_usd == pytest.approx(10)
    assert second.load_usd == pytest.approx(20)
    assert (first.execution_usd, second.execution_usd, second.retries_usd) == (10, 15, 5)
    assert first.idle_usd + second.idle_usd == pytest.approx(40)


def test_a_replica_that_nobody_used_is_paid_by_all_and_an_empty_period_by_the_house() -> None:
    held = [Held("a", 3600.0, 0, 10), Held("b", 3600.0, 0, 10)]
    (bill,) = settle(held, [Busy("a", Spent.EXECUTION, 0, 10, ("t",))])
    assert bill.idle_usd == pytest.approx(10)
    (house,) = settle(held, [])
    assert (house.task, house.usd) == (HOUSE, 20)


def test_spans_that_overlap_are_refused() -> None:
    spans = [Busy("a", Spent.EXECUTION, 0, 6, ("t",)), Busy("a", Spent.EXECUTION, 5, 8, ("u",))]
    with pytest.raises(ValueError, match="overlaps"):
        settle([Held("a", 1.0, 0, 10)], spans)


@st.composite
def periods(draw: st.DrawFn) -> tuple[list[Held], list[Busy]]:
    held, busy = [], []
    for number in range(draw(st.integers(1, 5))):
        name, at_s = f"r{number}", 0.0
        for _ in range(draw(st.integers(0, 8))):
            start_s = at_s + draw(st.floats(0, 20))
            at_s = start_s + draw(st.floats(0, 50))
            tasks = tuple(f"t{k}" for k in draw(st.sets(st.integers(0, 9), min_size=1, max_size=3)))
            spent = draw(st.sampled_from(Spent))
            busy.append(Busy(name, spent, start_s, at_s, () if spent is Spent.LOAD else tasks))
        held.append(Held(name, draw(st.floats(0.1, 12)), 0.0, at_s + draw(st.floats(0, 100))))
    return held, busy


@given(periods())
def test_the_bills_add_up_to_what_the_fleet_cost(period: tuple[list[Held], list[Busy]]) -> None:
    held, busy = period
    bills = settle(held, busy)
    assert math.fsum(bill.usd for bill in bills) == pytest.approx(fleet_usd(held), rel=1e-9, abs=1e-9)
    assert all(bill.usd >= -1e-9 for bill in bills)
