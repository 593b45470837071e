"""Where media of a bulk run may come from."""

import base64
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from actors.media_source import MediaSource
from schemas.config import read_config
from schemas.errors import MediaError, MediaUnavailableError

DATA = "data:image/png;base64," + base64.b64encode(b"pixels").decode()


def test_without_a_rule_files_and_data_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"pixels")
    source = MediaSource(read_config({}))
    assert source(str(path)) == source(path.as_uri()) == source(DATA) == b"pixels"


@pytest.mark.parametrize(
    "uri", ["a.png", "file:///a.png", "s3://bucket/a.png", "https://example.com/a.png", "FILE:///a"]
)
def test_a_run_of_a_stranger_reads_only_what_its_rows_bring_along(uri: str) -> None:
    source = MediaSource(read_config({"RUSHES_MEDIA_SCHEMES": "data"}))
    assert source(DATA) == b"pixels"
    with pytest.raises(MediaError, match="may only be given as data"):
        source(uri)


class _Server(BaseHTTPRequestHandler):
    """Answers by the path: `/good…`, `/cut` (the connection ends in mid-body), `/busy…` (503 at first), `/none`."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        if self.path.startswith("/good") or (self.path.startswith("/busy") and self.asked[self.path] > 1):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"pixels")
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"pix")
        else:
            self.send_error(503 if self.path.startswith("/busy") else 404)

    def log_message(self, *told: object) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


@pytest.mark.parametrize("path", ["/good", "/good one.png", "/good-é.png", "/good%20two.png", "/busy"])
def test_what_a_server_has_is_read_however_its_address_is_written(server: str, path: str) -> None:
    assert MediaSource(read_config({}))(server + path) == b"pixels"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("{server}/none", MediaError),
        ("{server}/cut", MediaUnavailableError),
        ("https://127.0.0.1:1/a b.png", MediaUnavailableError),
        ("https://127.0.0.1:1/é.png", MediaUnavailableError),
        ("https://[bad", MediaError),
        ("https://127.0.0.1:999999/a.png", MediaError),
        ("https://127.0.0.1:port/a.png", MediaError),
        ("https://", MediaError),
        ("https://a\x00b/c.png", MediaError),
    ],
)
def test_an_address_that_leads_nowhere_is_told_as_media(server: str, address: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        MediaSource(read_config({}))(address.format(server=server))


def test_more_than_is_allowed_is_refused_while_it_comes(server: str) -> None:
    with pytest.raises(MediaError, match="more than 3 bytes"):
        MediaSource(read_config({"RUSHES_MEDIA_MAX_BYTES": "3"}))(server + "/good")
