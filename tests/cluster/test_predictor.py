"""Service times of a trace's tasks, learnt from those that are done."""

import numpy as np
import pyarrow as pa
import pytest

from cluster.predictor import Predictor
from cluster.trace import Trace, trace_from


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


def off(predictor: Predictor, trace: Trace, some: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> float:
    """The largest relative error of predictions of these tasks."""
    return float(max(abs(predictor.seconds(int(task)) / trace.exec_s[task] - 1) for task in some))


def test_a_variant_that_was_seen_at_one_size_is_predicted_at_others_by_what_all_have_in_common() -> None:
    trace = tasks(["a", "b", "rare"], {})
    rare = trace.variant == trace.names.index("rare")
    predictor = Predictor(trace)
    small_rare = np.flatnonzero(rare & (trace.features["size"] == 1.0))[:4]
    for task in [*np.flatnonzero(~rare), *small_rare]:
        predictor.observe(int(task), float(trace.exec_s[task]))
    assert off(predictor, trace, np.flatnonzero(rare & (trace.features["size"] == 8.0))) < 0.15


def test_a_variant_that_goes_its_own_way_is_predicted_by_its_own_tasks() -> None:
    trace = tasks(["a", "b", "odd"], {"odd": 2.0})
    predictor = Predictor(trace)
    for task in range(len(trace) - 50):
        predictor.observe(task, float(trace.exec_s[task]))
    assert off(predictor, trace, np.arange(len(trace) - 50, len(trace))) < 0.15


def test_a_cold_start_that_took_a_hundred_times_as_long_does_not_bend_predictions() -> None:
    trace = tasks(["a"], {})
    predictor = Predictor(trace)
    for task in range(200):
        predictor.observe(task, float(trace.exec_s[task]) * (100.0 if task % 20 == 7 else 1.0))
    assert off(predictor, trace, np.arange(200, len(trace))) < 0.15


def test_tasks_without_features_are_predicted_by_the_level_of_their_variant() -> None:
    trace = tasks(["a", "b"], {"a": 0.0, "b": 0.0})
    bare = Trace(**{**trace.__dict__, "features": {}})
    predictor = Predictor(bare)
    assert predictor.seconds(0) == pytest.approx(10.0)
    for task in range(100):
        predictor.observe(task, float(bare.exec_s[task]))
    assert off(predictor, bare, np.arange(100, len(bare))) < 0.15
