"""What is counted comes out under its name; labels stay few; the dashboard and the docs name what there is."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.observability.metrics import DispatchMetrics, IngressMetrics

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = ROOT / "deploy" / "grafana" / "rushes.json"
OPERATIONS = ROOT / "docs" / "operations.md"
NAME = re.compile(r"\brushes_[a-z0-9_]+\b")


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def families() -> set[str]:
    """Every metric, as a query names it: counters with their _total."""
    names: set[str] = set()
    for metrics in (DispatchMetrics(), IngressMetrics()):
        for family in text_string_to_metric_families(metrics.text().decode()):
            if not family.name.endswith("_created"):
                names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names


def base(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


def test_a_task_from_acceptance_to_its_bill_is_counted() -> None:
    metrics = DispatchMetrics()
    metrics.queued({"embedded": 3, "turbo": 1})
    metrics.throttled(2)
    metrics.started("embedded", 0.4)
    metrics.rendered("embedded", "64x64x17", 1.5, 4, pool="embedded/cpu")
    metrics.finished("embedded", "SUCCEEDED")
    metrics.eta_error(2.0, 1.6, bound_s=2.5)
    metrics.eta_error(3.0, 1.6, bound_s=2.5)
    metrics.quote_error(0.02, 0.01)
    metrics.fell_back("overloaded")
    metrics.retried("StorageUnavailableError")
    metrics.replicas("embedded/cpu", up=2, starting=1, busy=1, backlog_s=9)
    metrics.webhooks({"waiting": 1, "delivered": 5, "given_up": 0})
    metrics.dead_letters(1)
    seen = samples(metrics.text())
    expected = {
        ("rushes_queue_tasks", (("variant", "embedded"),)): 3,
        ("rushes_throttled_tasks", ()): 2,
        ("rushes_wait_seconds_sum", (("variant", "embedded"),)): 0.4,
        ("rushes_render_seconds_sum", (("shape", "64x64x17"), ("variant", "embedded"))): 1.5,
        ("rushes_batch_tasks_sum", (("variant", "embedded"),)): 4,
        ("rushes_tasks_finished_total", (("status", "SUCCEEDED"), ("variant", "embedded"))): 1,
        ("rushes_eta_ratio_count", ()): 2,
        ("rushes_eta_bound_total", (("kept", "yes"),)): 1,
        ("rushes_eta_bound_total", (("kept", "no"),)): 1,
        ("rushes_quote_ratio_sum", ()): 2,
        ("rushes_fallbacks_total", (("reason", "overloaded"),)): 1,
        ("rushes_retries_total", (("cause", "StorageUnavailableError"),)): 1,
        ("rushes_accelerator_busy_seconds_total", (("pool", "embedded/cpu"),)): 1.5,
        ("rushes_accelerator_busy_share", (("pool", "embedded/cpu"),)): 0.5,
        ("rushes_replicas", (("pool", "embedded/cpu"), ("state", "starting"))): 1,
        ("rushes_backlog_seconds", (("pool", "embedded/cpu"),)): 9,
        ("rushes_webhooks", (("state", "waiting"),)): 1,
        ("rushes_dead_letters", ()): 1,
    }
    assert {name: seen.get(name) for name in expected} == expected


def test_a_variant_whose_queue_is_empty_shows_zero_and_a_pool_that_went_shows_nothing() -> None:
    metrics = DispatchMetrics()
    metrics.queued({"embedded": 3})
    metrics.queued({"turbo": 1})
    metrics.replicas("embedded/cpu", up=1)
    metrics.replicas("turbo/cpu", up=1)
    metrics.forget_pools({"turbo/cpu"})
    seen = samples(metrics.text())
    assert seen[("rushes_queue_tasks", (("variant", "embedded"),))] == 0
    pools = {dict(labels)["pool"] for name, labels in seen if name == "rushes_replicas"}
    assert pools == {"turbo/cpu"}


def test_labels_stay_few_whatever_comes() -> None:
    dispatch, ingress = DispatchMetrics(), IngressMetrics()
    for number in range(500):
        dispatch.fell_back(f"reason {number}")
        dispatch.retried(f"Error{number}")
        dispatch.rendered("embedded", f"{number}x64x17", 1, 1)
        ingress.answered(f"M{number}", f"/route/{number}", 200, 0.01)
        ingress.accepted(f"kind{number}")
    assert len(samples(dispatch.text())) < 1600
    assert len(samples(ingress.text())) < 1600
    assert samples(dispatch.text())[("rushes_fallbacks_total", (("reason", "other"),))] == 480


def test_an_ingress_counts_under_its_own_name() -> None:
    metrics = IngressMetrics("a1")
    metrics.accepted("text_to_video", 2)
    metrics.refused("invalid")
    metrics.answered("GET", "/v1/tasks/{id}", 404, 0.002)
    metrics.dispatcher_up(True)
    with metrics.stream():
        assert samples(metrics.text())[("rushes_event_streams", (("ingress", "a1"),))] == 1
    seen = samples(metrics.text())
    assert seen[("rushes_event_streams", (("ingress", "a1"),))] == 0
    assert seen[("rushes_accepted_tasks_total", (("ingress", "a1"), ("kind", "text_to_video")))] == 2
    labels = (("ingress", "a1"), ("method", "GET"), ("route", "/v1/tasks/{id}"), ("status", "404"))
    assert seen[("rushes_http_requests_total", labels)] == 1


def test_no_name_is_in_both_registries() -> None:
    both = [
        {family.name for family in text_string_to_metric_families(metrics.text().decode())}
        for metrics in (DispatchMetrics(), IngressMetrics())
    ]
    assert not both[0] & both[1]


def test_the_dashboard_draws_every_metric_and_no_other() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    drawn = {base(name) for query in queries for name in NAME.findall(query)}
    assert drawn == families()


@pytest.mark.parametrize("name", sorted(families()))
def test_the_operations_page_explains_every_metric(name: str) -> None:
    assert f"`{name}`" in OPERATIONS.read_text()


def test_the_operations_page_names_no_metric_that_is_not_there() -> None:
    named = {base(name) for name in re.findall(r"`(rushes_[a-z0-9_]+)`", OPERATIONS.read_text())}
    assert named <= families()
