"""What is served, how it fares, and whether this process can take work."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.clip import Status
from schemas.conditions import implied_mode
from schemas.errors import StorageUnavailableError
from schemas.inputs import Role
from schemas.shape import Shape
from serve.config import Pools
from serve.dispatch.fleet import NOTE, FleetReport
from serve.errors import StoreUnavailableError
from serve.http.fleet import Counted
from serve.observability.metrics import DispatchMetrics
from serve.store.contract import Counts
from tests.serve.http.endpoint import Endpoint, OwnIntake, catalog_with, endpoint, pool
from tests.serve.http_own.conftest import PRICES, client_of, eventually, fresh


def test_variants_are_those_served_with_what_they_take(client: httpx.Client, served: Endpoint) -> None:
    found = {one["name"]: one for one in client.get("/v1/variants").json()["variants"]}
    assert set(found) == set(PRICES)
    shapes = found["shapes"]
    assert "embedded" in shapes["aliases"]
    assert "image_to_video" in shapes["modes"]
    assert (shapes["measured"], shapes["priceUsdPerHour"]) == (True, 3.6)
    assert shapes["default"]["ratio"] in shapes["ratios"]
    assert shapes["default"]["duration"] in shapes["durations"]


def test_each_size_and_length_offered_is_taken_as_it_is(client: httpx.Client, served: Endpoint) -> None:
    for variant in client.get("/v1/variants").json()["variants"]:
        for ratio in variant["ratios"]:
            for duration in variant["durations"]:
                body = {"model": variant["name"], "promptText": "x", "ratio": ratio, "duration": duration}
                said = client.post("/v1/estimates", json=body).json()
                made = said["rendered"]
                assert f"{made['width']}:{made['height']}" == ratio
                assert made["durationSeconds"] == pytest.approx(duration, abs=0.001)
                rule = served.context.catalog[variant["name"]].shape
                assert not rule.issues(Shape(width=made["width"], height=made["height"], frames=made["frames"]))


def test_no_example_of_the_shipped_catalog_is_refused(tmp_path: Path) -> None:
    catalog = catalog_with()
    with_examples = [variant for variant in catalog.variants.values() if variant.examples]
    pools = Pools(variants=tuple(variant.name for variant in with_examples))
    with endpoint(tmp_path, catalog, OwnIntake(), pools=pools) as running, client_of(running) as http:
        running.note(*(pool(variant.name) for variant in with_examples))
        told = {one["name"]: one["examples"] for one in http.get("/v1/variants").json()["variants"]}
        for variant in with_examples:
            assert [one["title"] for one in told[variant.name]] == [one.title for one in variant.examples]
            for example in told[variant.name]:
                body = {"model": variant.name, **example["request"]}
                said = http.post("/v1/estimates", json=body).json()
                assert (said.get("routed"), said.get("variant")) == (True, variant.name), (example["title"], said)
                assert f"{said['rendered']['width']}:{said['rendered']['height']}" == example["request"].get(
                    "ratio", f"{variant.shape.default().width}:{variant.shape.default().height}"
                )
                # Its media are looked at as well.
                answer = http.post(f"/v1/{_kind(example['request'])}", json=body)
                assert answer.status_code == 200, (example["title"], answer.text)


def _kind(request: dict[str, Any]) -> str:
    """Which create takes it."""
    return implied_mode(Role(one["role"]) for one in request.get("inputs", [])).value


def test_pools_show_load_health_and_the_queue(client: httpx.Client, served: Endpoint) -> None:
    task = client.post("/v1/text_to_video", json={"model": "shapes", "promptText": "x"}).json()
    served.note(
        pool("shapes", busy=1, queued=4, backlog_s=12.0),
        pool("tiny-random", healthy=False, replicas=0, failures=2, last_failure="x" * 999),
        draining=True,
    )
    report = client.get("/v1/pools").json()
    by_name = {one["name"]: one for one in report["pools"]}
    assert by_name["shapes/cpu"]["busy"] == 1
    assert by_name["shapes/cpu"]["startsInSeconds"] == pytest.approx(12, abs=1)
    assert by_name["tiny-random/cpu"]["startsInSeconds"] is None
    assert len(by_name["tiny-random/cpu"]["lastFailure"]) == 300
    # The count may be a second old.
    eventually(lambda: client.get("/v1/pools").json()["queue"]["pending"] == 1)
    assert (report["draining"], report["stale"]) == (True, False)
    served.finish(task["id"])
    fresh(served)


def test_many_who_ask_are_one_count() -> None:
    asked = []

    def count() -> Counts:
        asked.append(1)
        return Counts({Status.PENDING: len(asked)})

    counted = Counted(count)
    with ThreadPoolExecutor(8) as pool_of_threads:
        found = list(pool_of_threads.map(lambda _: counted.counts(), range(50)))
    assert len(asked) == 1
    assert {one.by_status[Status.PENDING] for one in found} == {1}


def test_the_process_lives_without_a_key(served: Endpoint) -> None:
    assert httpx.get(f"{served.url}/healthz").json() == {"status": "ok"}


def test_ready_means_a_store_a_dispatcher_and_no_drain(client: httpx.Client, served: Endpoint) -> None:
    ready = httpx.get(f"{served.url}/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    served.note(draining=True)
    draining = httpx.get(f"{served.url}/readyz")
    assert (draining.status_code, draining.json()["checks"]["draining"]) == (503, "yes")
    late = FleetReport(at=served.context.now() - 60)
    served.store.notes.write(NOTE, late.model_dump(mode="json"))
    silent = httpx.get(f"{served.url}/readyz")
    assert silent.status_code == 503
    assert "silent for 6" in silent.json()["checks"]["dispatcher"]
    fresh(served)


@pytest.mark.parametrize("error", [StoreUnavailableError("locked"), StorageUnavailableError("away")])
def test_a_store_that_does_not_answer_is_not_ready(
    served: Endpoint, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def away(name: str) -> None:
        raise error

    monkeypatch.setattr(type(served.store.notes), "read", lambda self, name: away(name))
    answer = httpx.get(f"{served.url}/readyz")
    assert (answer.status_code, answer.json()["checks"]["store"]) == (503, "does not answer")
    assert str(error) not in answer.text


class Dispatcher:
    """Gives its figures as the real one does: to be awaited."""

    def __init__(self) -> None:
        self.metrics = DispatchMetrics()
        self.dead = False

    async def __call__(self) -> bytes:
        if self.dead:
            raise ConnectionError("the dispatcher is away")
        return self.metrics.text()


@pytest.fixture
def dispatcher(served: Endpoint) -> Iterator[Dispatcher]:
    served.app.state.dispatch_metrics = found = Dispatcher()
    yield found
    del served.app.state.dispatch_metrics


def families(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {
        family.name: [(sample.labels, sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(text)
    }


def test_metrics_are_the_ingress_s_and_the_dispatcher_s(
    client: httpx.Client, served: Endpoint, dispatcher: Dispatcher
) -> None:
    dispatcher.metrics.queued({"shapes": 3})
    client.get("/v1/tasks/nobody")
    answer = httpx.get(f"{served.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = families(answer.text)
    assert found["rushes_queue_tasks"] == [({"variant": "shapes"}, 3.0)]
    assert found["rushes_dispatcher_up"][0][1] == 1
    routes = {labels["route"]: labels for labels, _ in found["rushes_http_requests"]}
    assert routes["/v1/tasks/{task_id}"]["status"] == "404"
    assert not [route for route in routes if "nobody" in route]


def test_a_scrape_works_while_the_dispatcher_is_away(
    served: Endpoint, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher.dead = True
    with caplog.at_level(logging.WARNING):
        found = families(httpx.get(f"{served.url}/metrics").text)
    assert found["rushes_dispatcher_up"][0][1] == 0
    assert "rushes_queue_tasks" not in found


def test_a_request_for_no_route_makes_no_series_of_its_own(served: Endpoint) -> None:
    for number in range(30):
        httpx.get(f"{served.url}/no/such/{number}")
    routes = {
        labels["route"] for labels, _ in families(httpx.get(f"{served.url}/metrics").text)["rushes_http_requests"]
    }
    assert not [route for route in routes if "such" in route]


def test_the_page_is_there_without_a_key_and_loads_nothing_from_elsewhere(served: Endpoint) -> None:
    answer = httpx.get(served.url)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert served.url in policy.partition("media-src")[2].partition(";")[0]
    assert answer.headers["x-content-type-options"] == "nosniff"
    for name in ("page.js", "page.css", "wire.js", "words.js", "icon.svg"):
        assert httpx.get(f"{served.url}/page/{name}").status_code == 200
        assert f"/page/{name}" in answer.text or name in ("wire.js", "words.js")
    folder = Path(__file__).resolve().parents[3] / "serve" / "page"
    for file in folder.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2fconfig.py", "%2e%2e/config.py", "__init__.py", "page.js%00", "page.js/"]
)
def test_the_page_has_no_other_files(served: Endpoint, name: str) -> None:
    answer = httpx.get(f"{served.url}/page/{name}")
    assert answer.status_code in (404, 307)
    assert "FrozenInstance" not in answer.text


def test_an_endpoint_without_keys_needs_none(tmp_path: Path) -> None:
    with endpoint(tmp_path, auth=False) as open_one:
        fresh(open_one)
        assert httpx.get(f"{open_one.url}/v1/variants").status_code == 200
        assert json.loads(httpx.get(f"{open_one.url}/v1/tasks").text)["tasks"] == []
