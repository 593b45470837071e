"""Whatever the OpenAPI document allows, and much that it does not, is answered without a 5xx."""

from pathlib import Path

import pytest

from tests.serve.http.schema_fuzz import QUICK, fuzz, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_nothing_breaks_it(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        report = fuzz(running, QUICK)
    assert not report.broken, "\n".join(report.broken[:10])
    assert report.requests >= QUICK * 0.7
    assert {"POST /v1/text_to_video", "POST /v1/generate/video", "PATCH /v1/routers/{router_id}"} <= report.operations
