"""A proxy before a real S3 server that fails on script: what an outage looks like from the client's side.

with FaultyProxy(server.port) as proxy:
    proxy.script(Fault(status=503), Fault(status=503))     # the next two requests; then all pass
    proxy.script(Fault(lose_answer=True), method="PUT")    # done by the server, but the client never hears
"""

import http.client
import threading
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass(frozen=True)
class Fault:
    """What befalls one request. `status` answers without asking the server; `code` is S3's word for it."""

    status: int = 500
    code: str = "InternalError"
    lose_answer: bool = False  # the server does it, then the connection breaks
    cut_body_at: int | None = None  # the answer's body ends after so many bytes
    hang_until: threading.Event | None = None  # no answer before that


class FaultyProxy:
    """Forwards to `127.0.0.1:port`, except for the requests that a scripted fault befalls. Counts requests."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._faults: deque[tuple[str | None, Fault]] = deque()
        self._lock = threading.Lock()
        self.requests: list[str] = []  # "METHOD /path" in order of arrival
        self.headers: list[dict[str, str]] = []  # of each, names in small letters
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def script(self, *faults: Fault, method: str | None = None) -> None:
        """These faults befall the next requests (of that method), one each, in order."""
        with self._lock:
            self._faults.extend((method, fault) for fault in faults)

    def pending(self) -> int:
        """How many scripted faults have not happened yet."""
        return len(self._faults)

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _next_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append(f"{method} {path.partition('?')[0]}")
            for i, (wanted, fault) in enumerate(self._faults):
                if wanted in (None, method):
                    del self._faults[i]
                    return fault
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                proxy.headers.append({name.lower(): value for name, value in self.headers.items()})
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy._next_fault(self.command, self.path)
                if fault is not None and fault.hang_until is not None:
                    fault.hang_until.wait()
                    self._drop()
                elif fault is None or fault.lose_answer or fault.cut_body_at is not None:
                    self._forward(body, fault)
                else:
                    text = f"<Error><Code>{fault.code}</Code><Message>scripted</Message></Error>".encode()
                    self._answer(fault.status, {"Content-Type": "application/xml"}, text)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any

            def _forward(self, body: bytes, fault: Fault | None) -> None:
                connection = http.client.HTTPConnection("127.0.0.1", proxy._target, timeout=20)
                try:
                    # The Host header stays as signed: the server checks the signature against it.
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    data = answer.read()
                    kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP}
                except OSError:
                    self._drop()  # The server is down: so are we.
                    return
                finally:
                    connection.close()
                if fault is not None and fault.lose_answer:
                    self._drop()
                    return
                cut = None if fault is None else fault.cut_body_at
                self._answer(answer.status, kept, data, cut)

            def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: int | None = None) -> None:
                self.send_response_only(status)
                head = self.command == "HEAD"
                length = headers.get("Content-Length", "0") if head else str(len(data))
                for name, value in headers.items():
                    if name.lower() != "content-length":
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if not head:
                    self.wfile.write(data[:cut])
                if cut is not None:
                    self._drop()

            def _drop(self) -> None:
                self.close_connection = True
                self.wfile.flush()
                self.connection.shutdown(2)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
