"""What a trace's features say of its tasks' seconds, learnt from those that are done."""

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pytest

from cluster.cost.service_times import CostKey, ServiceTimes
from cluster.simulation.trace import Trace, trace_from
from cluster.simulation.trace_prior import TracePrior


def tasks(variants: list[str], power: dict[str, float], tasks_each: int = 300, seed: int = 0) -> Trace:
    """Tasks whose seconds are a level per variant times their size, to the power of the variant's; scatter 2 %."""
    random = np.random.default_rng(seed)
    drawn = [variants[i] for i in random.integers(0, len(variants), tasks_each * len(variants))]
    size = random.choice([1.0, 2.0, 4.0, 8.0], len(drawn))
    level = np.array([1.0 + variants.index(name) for name in drawn])
    exec_s = level * size ** np.array([power.get(name, 1.0) for name in drawn])
    exec_s *= np.exp(random.normal(0, 0.02, len(drawn)))
    table = pa.table({"arrival_s": np.arange(len(drawn)) * 1.0, "variant": drawn, "exec_s": exec_s, "size": size})
    return trace_from(table, "here")


def key(prior: TracePrior, trace: Trace, task: int, accelerator: str = "") -> CostKey:
    return CostKey(trace.names[trace.variant[task]], accelerator, prior.configurations[task])


def taught(trace: Trace, seen: Iterable[int], slow: Callable[[int], float] = lambda task: 1.0) -> ServiceTimes:
    prior = TracePrior(trace)
    times = ServiceTimes(prior)
    for task in seen:
        times.observe(key(prior, trace, task), float(trace.exec_s[task]) * slow(task))
    return times


def off(times: ServiceTimes, trace: Trace, some: Iterable[int]) -> float:
    """The largest relative error of predictions of these tasks."""
    prior = TracePrior(trace)
    return max(abs(times.predict(key(prior, trace, task)).median_s / trace.exec_s[task] - 1) for task in some)


def test_a_variant_that_was_seen_at_one_size_is_predicted_at_others_by_what_all_have_in_common() -> None:
    trace = tasks(["a", "b", "rare"], {})
    rare = trace.variant == trace.names.index("rare")
    small_rare = np.flatnonzero(rare & (trace.features["size"] == 1.0))[:4]
    times = taught(trace, [*np.flatnonzero(~rare).tolist(), *small_rare.tolist()])
    assert off(times, trace, np.flatnonzero(rare & (trace.features["size"] == 8.0)).tolist()) < 0.15


def test_a_variant_that_goes_its_own_way_is_predicted_by_its_own_tasks() -> None:
    trace = tasks(["a", "b", "odd"], {"odd": 2.0})
    assert off(taught(trace, range(len(trace) - 50)), trace, range(len(trace) - 50, len(trace))) < 0.15


def test_a_cold_start_that_took_a_hundred_times_as_long_does_not_bend_predictions() -> None:
    trace = tasks(["a"], {})
    times = taught(trace, range(200), lambda task: 100.0 if task % 20 == 7 else 1.0)
    assert off(times, trace, range(200, len(trace))) < 0.15


def test_tasks_without_features_are_predicted_by_the_level_of_their_variant() -> None:
    trace = tasks(["a", "b"], {"a": 0.0, "b": 0.0})
    bare = Trace(**{**trace.__dict__, "features": {}})
    prior = TracePrior(bare)
    assert prior.seconds(key(prior, bare, 0)) == pytest.approx(10.0)
    assert off(taught(bare, range(100)), bare, range(100, len(bare))) < 0.15


def test_accelerators_differ_by_their_speed_and_fallbacks_by_their_factor() -> None:
    trace = tasks(["a", "b"], {})
    prior = TracePrior(trace, factors=[1.0, 0.5], speeds={"fast": 4.0})
    for task in range(200):
        prior.observe(key(prior, trace, task), float(trace.exec_s[task]))
    own = key(prior, trace, int(np.flatnonzero(trace.variant == 0)[0]))
    assert prior.seconds(own._replace(accelerator="fast")) == pytest.approx(prior.seconds(own) / 4)
    assert prior.seconds(own._replace(variant="b")) == pytest.approx(prior.seconds(own) / 2)


def test_what_was_rendered_by_a_fallback_teaches_what_the_task_itself_would_have_taken() -> None:
    trace = tasks(["a", "b"], {})
    one, other = (TracePrior(trace, factors=[1.0, 0.5], speeds={"fast": 4.0}) for _ in range(2))
    for task in range(50):
        own, seconds = key(one, trace, task), float(trace.exec_s[task])
        one.observe(own, seconds)
        factor = 1.0 if own.variant == "b" else 0.5
        other.observe(own._replace(variant="b", accelerator="fast"), seconds * factor / 4)
    probe = key(one, trace, 60)
    assert one.seconds(probe) == pytest.approx(other.seconds(probe))


def test_tasks_with_the_same_features_share_a_configuration() -> None:
    trace = tasks(["a", "b"], {})
    found = TracePrior(trace).configurations
    assert len(set(found)) == 2 * 4
    for task, first in enumerate(found):
        assert trace.variant[task] == trace.variant[first]
        assert trace.features["size"][task] == trace.features["size"][first]


def test_a_variant_that_the_trace_does_not_know_is_nobody() -> None:
    prior = TracePrior(tasks(["a"], {}))
    assert prior.identity("a") is not None
    assert prior.identity("b") is None
