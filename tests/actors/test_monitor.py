"""The monitor's books: who is charged when a process dies."""

from actors.monitor import RunMonitor


def loaded(monitor: RunMonitor, actor: str = "a1", variant: str = "small") -> RunMonitor:
    monitor.loading(actor, variant)
    monitor.loaded(actor)
    return monitor


def test_what_was_rendering_is_charged_and_what_was_publishing_is_not() -> None:
    monitor = loaded(RunMonitor())
    monitor.begin("a1", "first", ("x", "y"))
    monitor.rendered("a1", "first")
    monitor.begin("a1", "second", ("z",))
    loaded(monitor)
    assert monitor.kills(("x", "y")) == (0, 0)
    assert monitor.kills(("z",)) == (1,)


def test_what_was_publishing_is_charged_when_nothing_was_rendering() -> None:
    monitor = loaded(RunMonitor())
    monitor.begin("a1", "first", ("x",))
    monitor.rendered("a1", "first")
    loaded(monitor)
    assert monitor.kills(("x",)) == (1,)


def test_what_had_ended_is_not_charged() -> None:
    monitor = loaded(RunMonitor())
    monitor.begin("a1", "first", ("x",))
    monitor.end("a1", "first", 0.5)
    loaded(monitor)
    assert monitor.kills(("x",)) == (0,)


def test_another_actors_death_charges_nobody_here() -> None:
    monitor = loaded(loaded(RunMonitor()), "a2")
    monitor.begin("a1", "first", ("x",))
    loaded(monitor, "a2")
    assert monitor.snapshot().actors_lost == 1
    assert monitor.kills(("x",)) == (0,)


def test_a_process_that_dies_twice_while_loading_ends_the_run() -> None:
    monitor = RunMonitor()
    for _ in range(2):
        monitor.loading("a1", "small")
    assert monitor.snapshot().stop_reason is None
    monitor.loading("a1", "small")
    assert "'small': its process died 2 times while loading" in str(monitor.snapshot().stop_reason)


def test_a_variant_that_cannot_be_loaded_ends_the_run_only_when_no_other_is_left() -> None:
    monitor = RunMonitor(variants=2)
    assert monitor.cannot_load("small", "no weights")
    assert monitor.cannot_load("small", "no weights"), "another actor of the same"
    assert monitor.snapshot().stop_reason is None
    assert not monitor.cannot_load("swift", "no class")
    assert monitor.snapshot().stop_reason == "no class"


def test_a_slice_knows_how_often_it_was_handed_out() -> None:
    monitor = RunMonitor()
    assert [monitor.open_slice("p:0"), monitor.open_slice("p:0"), monitor.open_slice("p:5")] == [1, 2, 1]


def test_the_first_reason_to_stop_stands() -> None:
    monitor = RunMonitor()
    monitor.stop("the store refuses")
    monitor.stop("something that followed from it")
    assert monitor.snapshot().stop_reason == "the store refuses"
