"""What is handed out: every batch once, in pieces of about the same work."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.plan_stage import Span
from pipelines.render import cut_spans

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
