"""What is handed out: every batch once, in pieces of about the same work. And why a run ends."""

import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.monitor import Snapshot
from cluster.guard import handled
from pipelines import render
from pipelines.plan_stage import Span
from pipelines.progress import RunStoppedError
from pipelines.render import cut_spans, waves
from pipelines.run_plan import PoolSpans

SPANS = st.lists(
    st.builds(
        lambda number, count, seconds: Span(f"part-{number}", 0, count, 4, seconds),
        st.integers(0, 3),
        st.integers(1, 3000),
        st.floats(1e-4, 600.0),
    ),
    min_size=1,
    max_size=6,
)


@given(SPANS, st.integers(1, 50))
def test_every_batch_is_handed_out_once(spans: list[Span], actors: int) -> None:
    items = cut_spans(spans, actors)
    handed = sorted((item["part"], row) for item in items for row in range(item["start"], item["stop"]))
    assert handed == sorted((span.part, row) for span in spans for row in range(span.start, span.stop))
    assert all(item["tasks"] == 4 * (item["stop"] - item["start"]) for item in items)


@given(SPANS, st.integers(1, 50))
def test_there_are_never_many_more_items_than_can_be_scheduled_for_little(spans: list[Span], actors: int) -> None:
    assert len(cut_spans(spans, actors)) <= 2 * 4096 + len(spans)


def test_long_batches_go_one_by_one_so_that_nobody_waits_for_the_last() -> None:
    items = cut_spans([Span("part", 0, 20, 1, 90.0)], actors=4)
    assert len(items) == 20


def test_short_batches_go_together() -> None:
    items = cut_spans([Span("part", 0, 64, 4, 0.01)], actors=1)
    assert len(items) == 1


def test_no_more_tasks_are_rendered_at_once_than_may_be() -> None:
    def pool(name: str, actors: int, batch_size: int) -> PoolSpans:
        return PoolSpans(name, None, actors, (Span("part", 0, 20, batch_size, 1.0),))

    pools = [pool("a", 8, 2), pool("b", 2, 1), pool("c", 1, 4)]
    assert waves(pools, None) == [pools]
    for most in (4, 5, 6, 9, 30):
        found = waves(pools, most)
        assert [one.variant for wave in found for one in wave] == ["a", "b", "c"]
        for wave in found:
            assert sum(one.actors * one.spans[0].batch_size for one in wave) <= most
    assert len(waves(pools, 30)) == 1


def test_a_run_that_is_ended_for_a_reason_tells_it_wherever_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_look", lambda monitor: Snapshot((), "the store refuses", 0))
    state = render._Watched()
    ending = pytest.raises(RunStoppedError, match="the store refuses")
    with handled(signal.default_int_handler), ending, render._telling_why(state), render._watch(None, state, print):
        try:
            raise ValueError("of the same cause")
        except ValueError:
            while True:  # what is done about it takes a moment
                threading.Event().wait(0.01)


def test_a_run_that_somebody_interrupts_has_no_reason_to_tell() -> None:
    with pytest.raises(KeyboardInterrupt), render._telling_why(render._Watched()):
        raise KeyboardInterrupt
