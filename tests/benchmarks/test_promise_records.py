"""Promises against what came: the figures, without an endpoint."""

from dataclasses import replace

import pytest

from benchmarks.promise_records import PromiseRecord, Scatter, claims, judge, scatter, took_by_kind

IDLE = Scatter(calls=20, p50=0.05, p90=0.1)


def record(number: int, *, took_s: float = 10.0, estimate_s: float = 10.0, bound_s: float = 12.0) -> PromiseRecord:
    created_at = 1000.0 + number
    return PromiseRecord(
        kind="clip",
        tenant="a",
        phase=number % 2,
        created_at=created_at,
        eta_at=created_at + estimate_s,
        eta_p90_at=created_at + bound_s,
        wait_s=float(number),  # each meets more load than the one before
        quoted_gpu_s=2.0,
        finished_at=created_at + took_s,
        succeeded=True,
        billed_gpu_s=2.5,
    )


def verdicts(records: list[PromiseRecord]) -> dict[str, bool]:
    return {claim.what: claim.met for claim in claims(judge(records), IDLE)}


def test_promises_kept_nine_times_in_ten_in_every_quartile_meet_every_goal() -> None:
    records = [record(i, took_s=12.5 if i % 10 == 5 else 10.3) for i in range(400)]
    found = judge(records)
    assert (found.tasks, found.failed, found.unfinished) == (400, 0, 0)
    assert found.coverage == pytest.approx(0.9)
    assert found.coverage_by_quartile == pytest.approx((0.9,) * 4)
    assert found.load_by_quartile == pytest.approx((24.75, 74.75, 124.75, 174.75))
    assert found.error_p50 == pytest.approx(0.3 / 10.3)
    assert found.bias > 0, "tasks take longer than estimated"
    assert found.bound_over_estimate == pytest.approx(1.2)
    assert found.quote_p50 == pytest.approx(0.2)
    assert found.worst_quartile_by_luck < 0.9
    assert all(verdicts(records).values())


def test_misses_that_gather_where_load_is_high_are_seen_though_the_whole_is_covered() -> None:
    records = [record(i, took_s=13.0 if i >= 360 else 10.0) for i in range(400)]
    assert judge(records).coverage == pytest.approx(0.9)
    assert judge(records).coverage_by_quartile == pytest.approx((1.0, 1.0, 1.0, 0.6))
    assert not verdicts(records)["worst quartile by load"]


def test_estimates_that_are_half_of_what_comes_meet_no_goal() -> None:
    wrong = [record(i, took_s=20.0, estimate_s=10.0, bound_s=16.0) for i in range(100)]
    assert judge(wrong).error_p50 == pytest.approx(0.5)
    assert not any(verdicts(wrong).values())


def test_bounds_so_wide_that_all_are_kept_miss_coverage_too() -> None:
    wide = verdicts([record(i, bound_s=30.0) for i in range(100)])
    assert not wide["coverage of the 90 % bound"]
    assert not wide["bound/estimate"]
    assert wide["estimate error p90"]


def test_a_task_that_never_ended_missed_its_bound_and_one_that_failed_is_not_judged() -> None:
    lost = replace(record(0), finished_at=None, succeeded=False)
    failed = replace(record(1), succeeded=False)
    found = judge([lost, failed, record(2), record(3)])
    assert (found.tasks, found.failed, found.unfinished) == (3, 1, 1)
    assert found.coverage == pytest.approx(2 / 3)
    assert found.error_p90 == 0.0
    with pytest.raises(ValueError, match="none of 2 tasks succeeded"):
        judge([lost, failed])


def test_phases_are_told_apart() -> None:
    records = [record(i, took_s=13.0 if i % 2 else 10.0) for i in range(40)]
    assert judge(records).coverage_by_phase == pytest.approx((1.0, 0.0))


def test_the_scatter_of_repetitions_is_about_the_median_of_each_kind() -> None:
    records = [record(i, took_s=took_s) for i, took_s in enumerate((9.0, 10.0, 12.0))]
    records.append(replace(record(3, took_s=50.0), kind="once"))
    found = scatter(took_by_kind(records))
    assert found.calls == 3, "a call that was made once says nothing"
    assert found.p50 == pytest.approx(0.1)
    assert found.p90 == pytest.approx(0.18)
    with pytest.raises(ValueError, match="no call was repeated"):
        scatter({"once": [1.0]})
