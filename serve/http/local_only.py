"""What an endpoint without keys takes: requests of its own machine that no other site's page could have sent.

A browser lets any page send requests to a loopback address, and a domain that resolves anew to one (DNS rebinding)
even read the answers. So the Host must be this machine's, an Origin the endpoint's own, and a body JSON, which no form
sends.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

from serve.config import ServeConfig

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_UPLOADS = "/uploads/"  # multipart, by a signature that no other site's page can read


class LocalOnly:
    """The rule for one endpoint. `public_origin` is its own as well, where it is set."""

    def __init__(self, config: ServeConfig) -> None:
        self._is_open = config.auth
        self._public = (urlsplit(config.public_origin or "").netloc or "").lower()

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """(status, reason) where a request is not taken. None for everything on an endpoint with keys."""
        if self._is_open:
            return None
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value.decode("latin-1").strip())
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            shown = hosts[0][:100] if hosts else "missing"
            return 403, f"without keys only this machine is answered: Host must be a loopback address, not {shown!r}"
        for origin in headers.get(b"origin", []):
            if not self._is_same(origin, hosts[0]):
                return 403, f"without keys no other site is answered: Origin {origin[:100]!r} is not this endpoint's"
        site = headers.get(b"sec-fetch-site", ["none"])[0]
        is_navigation = headers.get(b"sec-fetch-mode", [""])[0] == "navigate" and scope["method"] in _READING
        if site in ("cross-site", "same-site") and not is_navigation:
            return 403, "without keys no other site is answered"
        return self._wrong_body(scope, headers)

    def _wrong_body(self, scope: Scope, headers: dict[bytes, list[str]]) -> tuple[int, str] | None:
        if scope["method"] not in _WITH_BODY or scope["path"].startswith(_UPLOADS):
            return None
        is_empty = b"transfer-encoding" not in headers and headers.get(b"content-length", ["0"])[0] == "0"
        kind = headers.get(b"content-type", [""])[0].partition(";")[0].strip().lower()
        if kind == "application/json" or kind.endswith("+json") or (is_empty and not kind):
            return None
        return 415, f"without keys a body must say that it is application/json, not {kind[:100] or 'nothing'!r}"

    def _is_ours(self, host: str) -> bool:
        return _is_loopback(host) or (bool(self._public) and host.lower() == self._public)

    def _is_same(self, origin: str, host: str) -> bool:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https"):
            return False
        return parts.netloc.lower() in (host.lower(), self._public) and self._is_ours(parts.netloc)


def _is_loopback(host: str) -> bool:
    """Of a Host header: with or without its port."""
    try:
        name = urlsplit(f"//{host}").hostname
        if name == "localhost":
            return True
        return name is not None and ip_address(name).is_loopback
    except ValueError:
        return False
