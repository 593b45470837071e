"""An endpoint without keys answers its own machine, and no page of another site."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.config import ServeConfig
from serve.http.local_only import LocalOnly
from tests.serve.http.endpoint import Endpoint, endpoint

BODY = {"model": "embedded", "promptText": "a red circle"}


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with endpoint(tmp_path_factory.mktemp("open"), auth=False) as running:
        yield running


def post(running: Endpoint, headers: dict[str, str], content: bytes | None = None) -> httpx.Response:
    if content is not None:
        return httpx.post(f"{running.url}/v1/text_to_video", content=content, headers=headers)
    return httpx.post(f"{running.url}/v1/text_to_video", json=BODY, headers=headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"]
)
@pytest.mark.parametrize("path", ["/", "/v1/tasks", "/healthz", "/openapi.json"])
def test_a_host_that_is_not_this_machine_is_refused(open_to_all: Endpoint, host: str, path: str) -> None:
    port = httpx.URL(open_to_all.url).port
    answer = httpx.get(open_to_all.url + path, headers={"Host": host.format(port=port)})
    assert answer.status_code == 403
    assert "loopback" in answer.json()["error"]


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "LOCALHOST:{port}", "127.0.0.2"]
)
def test_any_name_of_this_machine_will_do(open_to_all: Endpoint, host: str) -> None:
    told = host.format(port=httpx.URL(open_to_all.url).port)
    assert httpx.get(f"{open_to_all.url}/v1/tasks", headers={"Host": told}).status_code == 200
    assert post(open_to_all, {"Host": told, "Origin": f"http://{told}"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://", "http://localhost"]
)
def test_a_page_of_another_site_can_do_nothing(open_to_all: Endpoint, origin: str) -> None:
    before = len(open_to_all.store.tasks.recent(100))
    for answer in (
        post(open_to_all, {"Origin": origin}),
        httpx.get(f"{open_to_all.url}/v1/tasks", headers={"Origin": origin}),
        httpx.delete(f"{open_to_all.url}/v1/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f", headers={"Origin": origin}),
        httpx.options(f"{open_to_all.url}/v1/text_to_video", headers={"Origin": origin}),
    ):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert len(open_to_all.store.tasks.recent(100)) == before


def test_what_a_browser_sends_for_another_site_is_refused_but_for_links(
    open_to_all: Endpoint,
) -> None:
    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert httpx.get(f"{open_to_all.url}/v1/tasks", headers=image).status_code == 403
    assert httpx.get(open_to_all.url, headers=link).status_code == 200
    assert post(open_to_all, link).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_what_a_form_can_send_is_refused(open_to_all: Endpoint, kind: str | None) -> None:
    answer = post(open_to_all, {"Content-Type": kind} if kind else {}, b'{"model": "embedded", "promptText": "x"}')
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]


def test_the_page_goes_on_working(open_to_all: Endpoint) -> None:
    """What a browser sends when the page asks its own endpoint."""
    own = {"Origin": open_to_all.url, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert (
        httpx.get(open_to_all.url, headers={"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}).status_code == 200
    )
    assert httpx.get(f"{open_to_all.url}/v1/variants", headers=own).status_code == 200
    assert post(open_to_all, own).status_code == 200
    assert httpx.post(f"{open_to_all.url}/v1/organization/usage", headers=own).status_code == 200


def test_with_keys_nothing_of_this_is_asked(tmp_path: Path) -> None:
    rule = LocalOnly(ServeConfig(out=str(tmp_path)))
    scope = {"type": "http", "method": "POST", "path": "/v1/text_to_video", "headers": [(b"host", b"api.example")]}
    assert rule.refusal(scope) is None


def test_the_public_origin_is_its_own_too(tmp_path: Path) -> None:
    rule = LocalOnly(ServeConfig(out=str(tmp_path), auth=False, public_origin="https://tunnel.example"))
    headers = [(b"host", b"tunnel.example"), (b"origin", b"https://tunnel.example")]
    assert rule.refusal({"type": "http", "method": "GET", "path": "/", "headers": headers}) is None
