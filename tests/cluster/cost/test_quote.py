import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cost.model import Cost
from cluster.cost.quote import Charge, charge, quote


def test_a_quote_is_a_tasks_share_of_the_call_times_the_price_of_the_replica() -> None:
    four = Cost(load_s=30, fixed_s=1, steps_s=8, decode_s=1, encode_s=2, batch=4)
    assert quote(four, 3600.0, gpus=2) == Charge(gpu_s=5.0, usd=2.5)


def test_what_runs_on_cpus_counts_as_one() -> None:
    assert charge(10, 360.0, gpus=0) == Charge(gpu_s=10.0, usd=1.0)


@given(st.lists(st.floats(0, 1e5), min_size=1), st.sampled_from([0, 0.5, 1, 8]), st.floats(0, 100))
def test_the_bills_of_a_replica_add_up_to_the_time_it_was_busy(held_s: list[float], gpus: float, price: float) -> None:
    bills = [charge(one_s, price, gpus=gpus) for one_s in held_s]
    whole = charge(sum(held_s), price, gpus=gpus)
    assert sum(bill.usd for bill in bills) == pytest.approx(whole.usd)
    assert sum(bill.gpu_s for bill in bills) == pytest.approx(whole.gpu_s)
