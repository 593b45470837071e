"""Requests as proxies, probes and odd clients send them: HEAD, a slash at the end, bodies that never end; /docs."""

import re
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from serve.config import Limits, ServeConfig
from tests.serve.http.endpoint import Endpoint, endpoint, pool

BODY = {"model": "embedded", "promptText": "a red circle"}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Waits for a body for half a second."""
    with endpoint(tmp_path_factory.mktemp("hasty"), limits=Limits(body_timeout_s=0.5)) as running:
        running.note(pool("shapes"))
        yield running


def client_of(running: Endpoint) -> httpx.Client:
    return httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {running.secret}"})


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/page/page.js",
        "/v1/tasks",
        "/v1/organization",
    ],
)
def test_what_answers_get_answers_head_alike_without_a_body(hasty: Endpoint, path: str) -> None:
    with client_of(hasty) as client:
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == got.headers["content-length"]
        assert client.get(path).status_code == 200, "the connection is as good as before"
        assert client.head("/v1/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f").status_code == 404


def test_head_of_what_only_takes_posts_and_of_streams_is_not_there(hasty: Endpoint) -> None:
    with client_of(hasty) as client:
        assert client.head("/v1/text_to_video").status_code == 405
        assert client.head("/v1/events").status_code == 405


@pytest.mark.parametrize("path", ["/v1/tasks/", "/healthz/", "/readyz/", "/v1/organization//"])
def test_a_slash_at_the_end_changes_nothing_whoever_ends_tls(hasty: Endpoint, path: str) -> None:
    with client_of(hasty) as client:
        answer = client.get(path, headers={"X-Forwarded-Proto": "https", "Host": "api.example"})
        assert (answer.status_code, "location" in answer.headers) == (200, False)


def test_a_post_with_a_slash_at_the_end_is_no_redirect(hasty: Endpoint) -> None:
    with client_of(hasty) as client:
        assert client.post("/v1/text_to_video/", json=BODY).status_code == 200
        assert client.post("/v1/batches/", json={"tasks": [BODY]}).status_code == 200


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", ["/v1/text_to_video", "/v1/batches", "/v1/estimates", "/v1/routers"])
def test_a_body_that_never_ends_is_answered_and_the_connection_closed(hasty: Endpoint, framing: str, path: str) -> None:
    url = httpx.URL(hasty.url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as raw:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hasty.secret}\r\n{framing}\r\n\r\n"
        raw.sendall(head.encode() + (b'{"a":' if "Length" in framing else b'5\r\n{"a":\r\n'))
        began = time.monotonic()
        got = b""
        while chunk := raw.recv(65536):  # until it is closed
            got += chunk
        assert got.startswith(b"HTTP/1.1 408 ")
        assert b"did not come in time" in got
        assert time.monotonic() - began < 8


def test_the_documents_need_nothing_from_elsewhere(hasty: Endpoint) -> None:
    with client_of(hasty) as client:
        page = client.get("/docs")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["content-security-policy"]
        addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(addresses) >= 4
        for address in addresses:
            assert address.startswith("/"), address
            assert client.get(address).status_code == 200
        assert b"SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").content
        assert client.get("/docs/nothing.js").status_code == 404


@pytest.mark.parametrize(
    ("host", "origin"),
    [("::1", "http://[::1]:8000"), ("127.0.0.1", "http://127.0.0.1:8000"), ("fe80::1", "http://[fe80::1]:8000")],
)
def test_an_address_becomes_a_url_that_opens(host: str, origin: str) -> None:
    assert ServeConfig(host=host).origin == origin


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_every_address_of_the_machine_becomes_one_that_it_has(host: str) -> None:
    name = httpx.URL(ServeConfig(host=host, port=1).origin).host
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        socket.create_connection((name, listener.getsockname()[1]), timeout=5).close()
