"""Whatever the OpenAPI document allows, and much that it does not, is answered without a 5xx."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tests.serve.http.endpoint import Endpoint, endpoint

pytestmark = pytest.mark.slow
EXAMPLES = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with endpoint(Path(tmp_path_factory.mktemp("schema"))) as running:
        yield running


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "not allowed"])
def test_nothing_breaks_it(server: Endpoint, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    headers = {"Authorization": f"Bearer {server.secret}"}
    asked: set[str] = set()
    broken: list[str] = []
    for found in document.get_all_operations():
        operation = found.ok()
        if operation.path.endswith("events") or operation.path == "/readyz":
            continue  # streams without an end; and here nobody dispatches, so it is not ready

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            answer = case.call(base_url=server.url, headers=headers, timeout=30)
            asked.add(case.operation.label)
            if answer.status_code >= 500 or (answer.status_code >= 400 and "error" not in answer.json()):
                broken.append(f"{case.operation.label} {case.body!r:.300} -> {answer.status_code} {answer.text:.300}")

        try:
            ask()
        except Exception as error:
            # Where nothing can be wrong, there is nothing to generate.
            if type(error).__name__ not in ("Unsatisfiable", "InvalidArgument"):
                raise
    assert not broken, "\n".join(broken[:10])
    assert {"POST /v1/text_to_video", "POST /v1/generate/video", "PATCH /v1/routers/{router_id}"} <= asked
