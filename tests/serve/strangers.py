"""Servers of strangers: real HTTPS on loopback, whose certificate and bad manners are scripted.

with Stranger() as server:
    server.answers(ok(b"...", "image/png"), hang())
    outbound = server.outbound()
    outbound.call("GET", server.url("/a.png"), ...)
"""

import contextlib
import datetime
import functools
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serve.net import Outbound

DOMAIN = "media.stranger.test"

Script = Callable[["Visit"], None]


@dataclass
class Visit:
    """One connection: what was asked, and a way to answer it byte by byte."""

    connection: ssl.SSLSocket
    over: threading.Event  # the server is closing
    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def send(self, data: bytes) -> bool:
        """False when nobody listens any more."""
        try:
            self.connection.sendall(data)
        except OSError:
            return False
        return True

    def head(self, status: int, *headers: str) -> None:
        self.send("\r\n".join((f"HTTP/1.1 {status} Scripted", *headers, "", "")).encode())


def ok(body: bytes, content_type: str | None, *headers: str, length: int | None = None) -> Script:
    """200 with a body; `length` lies about it."""

    def script(visit: Visit) -> None:
        said = [f"Content-Type: {content_type}"] if content_type else []
        visit.head(200, *said, f"Content-Length: {len(body) if length is None else length}", *headers)
        visit.send(body)

    return script


def status(code: int, *headers: str) -> Script:
    return lambda visit: visit.head(code, "Content-Length: 0", *headers)


def hang() -> Script:
    """Takes the request and says nothing."""
    return lambda visit: visit.over.wait(30) and None


def drip(content_type: str, every_s: float) -> Script:
    """A byte now and then, for ever: each wait is short, the whole has no end."""

    def script(visit: Visit) -> None:
        visit.head(200, f"Content-Type: {content_type}", "Content-Length: 90000")
        while not visit.over.wait(every_s) and visit.send(b"x"):
            pass

    return script


def endless(content_type: str, chunk: bytes = b"\0" * 65536) -> Script:
    """No length, no end, as fast as it goes."""

    def script(visit: Visit) -> None:
        visit.head(200, f"Content-Type: {content_type}", "Transfer-Encoding: chunked")
        while not visit.over.is_set() and visit.send(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"):
            pass

    return script


def raw(data: bytes) -> Script:
    return lambda visit: visit.send(data) and None


class Stranger:
    """An HTTPS server whose connections take the scripts in turn; the last one stays."""

    def __init__(self, domain: str = DOMAIN) -> None:
        self.domain, self.visits = domain, list[Visit]()
        self.connections = 0
        self._scripts: list[Script] = [status(404)]
        self._over = threading.Event()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(_certificate(domain))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def answers(self, *scripts: Script) -> "Stranger":
        self._scripts = list(scripts)
        return self

    def url(self, path: str = "/") -> str:
        return f"https://{self.domain}:{self.port}{path}"

    def outbound(self, **given: object) -> Outbound:
        """What calls this server: its certificate is trusted, its name resolves to loopback."""
        settings: dict[str, object] = {"allow_private": True, "resolver": loopback, "trust": self.trust} | given
        return Outbound(**settings)  # type: ignore[arg-type]

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(_certificate(self.domain)))

    def close(self) -> None:
        self._over.set()
        self._listening.close()

    def __enter__(self) -> "Stranger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        # ValueError: who went away before the request was whole.
        with contextlib.suppress(OSError, ValueError), self._tls.wrap_socket(plain, server_side=True) as connection:
            visit = Visit(connection, self._over)
            _read(visit)
            self.visits.append(visit)
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            script(visit)


def loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def _read(visit: Visit) -> None:
    with visit.connection.makefile("rb") as file:
        visit.method, visit.path, _ = file.readline().decode().split(" ", 2)
        while line := file.readline().decode().strip():
            name, _, value = line.partition(":")
            visit.headers[name.lower()] = value.strip()
        visit.body = file.read(int(visit.headers.get("content-length", 0)))


@functools.cache
def _certificate(domain: str) -> Path:
    """Key and certificate of a domain in one PEM file, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    plain = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = Path(tempfile.mkdtemp(prefix="rushes-tls-")) / "both.pem"
    path.write_bytes(plain + made.public_bytes(form))
    return path
