"""Calls to addresses that strangers name: which URLs are called at all, and by which address.

HTTPS, a domain, a public address. The domain is resolved once, every answer must be public, and the connection goes to
the very address that was checked (TLS still asks for the domain), so a name that resolves anew to something private
finds nobody asking. No redirect is followed, no proxy is used, nothing is decompressed, and one deadline holds for the
whole exchange, however slowly it drips.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

import httpx

from serve.errors import AddressError

MAX_URL_CHARS = 2048
PORTS = (443, 8443)

Resolver = Callable[[str, int], Sequence[str]]

_USER_AGENT = "rushes"
_MOST_ADDRESSES = 3  # tried one after the other while none accepts a connection
_PLAIN = re.compile(r"[!-~]+")  # printable ASCII without space
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_HOME_NAMES = frozenset({"localhost", "localdomain", "local", "internal", "home.arpa"})

# Python's `is_global` lags behind IANA's registries and knows no cloud; these are refused whatever it says.
_NOT_PUBLIC_V4 = tuple(
    ip_network(net)
    for net in (
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service is 192.0.0.192
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # Azure's host, from inside any of its machines
    )
)
_NOT_PUBLIC_V6 = tuple(
    ip_network(net)
    for net in ("2001::/23", "2001:db8::/32", "3fff::/20")  # Teredo and other protocols; documentation, twice
)
_GLOBAL_V6 = ip_network("2000::/3")  # all that IANA has given out for hosts
_NAT64 = ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ip_network("2002::/16")

# Not asyncio's own pool: it is joined when a loop ends, and a resolver may hang for long.
_RESOLVING = ThreadPoolExecutor(max_workers=16, thread_name_prefix="resolve")


def is_public(address: str) -> bool:
    """Whether an IP address is one that the whole internet may call. IPv4 inside IPv6 counts as that IPv4."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv4Address):
        return _is_public_v4(ip)
    if ip.scope_id is not None:
        return False
    if ip.ipv4_mapped is not None:
        return _is_public_v4(ip.ipv4_mapped)
    if ip in _NAT64:
        return _is_public_v4(IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip in _SIX_TO_FOUR:
        return _is_public_v4(IPv4Address((int(ip) >> 80) & 0xFFFFFFFF))
    return _is_public_v6(ip)


def _is_public_v4(ip: IPv4Address) -> bool:
    return (
        ip.is_global
        and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
        and not any(ip in net for net in _NOT_PUBLIC_V4)
    )


def _is_public_v6(ip: IPv6Address) -> bool:
    return ip in _GLOBAL_V6 and ip.is_global and not ip.is_multicast and not any(ip in net for net in _NOT_PUBLIC_V6)


@dataclass(frozen=True)
class Target:
    """A URL that may be called, once its domain's addresses were found public."""

    scheme: str
    host: str
    port: int
    path: str  # with its query

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        default = 443 if self.scheme == "https" else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"

    def at(self, address: str) -> str:
        """The URL with an address in the place of the domain."""
        return f"{self.scheme}://{f'[{address}]' if ':' in address else address}:{self.port}{self.path}"


def parse_target(url: str, *, allow_private: bool = False) -> Target:
    """What can be told of a URL without asking anybody. Raises AddressError, which says what is wrong with it.

    `allow_private` (tests, laboratories) also takes http, addresses in the place of domains, and any port.
    """
    if len(url) > MAX_URL_CHARS:
        raise AddressError(f"a URL may have {MAX_URL_CHARS} characters, this one has {len(url)}")
    if _PLAIN.fullmatch(url) is None or "\\" in url:
        raise AddressError("a URL is printable ASCII without spaces or backslashes: percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressError(f"not a URL: {error}") from error
    schemes = ("https", "http") if allow_private else ("https",)
    if parts.scheme not in schemes:
        raise AddressError(f"only https:// is called, not {parts.scheme or 'a URL without a scheme'}")
    if "@" in parts.netloc:
        raise AddressError("a URL may not hold a user name or password")
    host = _host(parts, allow_private)
    port = port if port is not None else (443 if parts.scheme == "https" else 80)
    if not allow_private and port not in PORTS:
        raise AddressError(f"port {port} is not called; available: {', '.join(map(str, PORTS))}")
    query = f"?{parts.query}" if parts.query else ""
    return Target(parts.scheme, host, port, (parts.path or "/") + query)


def _host(parts: SplitResult, allow_private: bool) -> str:
    host = (parts.hostname or "").removesuffix(".")
    if not host:
        raise AddressError("a URL needs a domain")
    labels = host.split(".")
    literal = "[" in parts.netloc or _NUMBER.fullmatch(labels[-1]) is not None
    if literal and allow_private:
        return host
    if literal:
        raise AddressError("a URL needs a domain, not an IP address")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressError(f"{host!r} is not a domain")
    at_home = any(host == name or host.endswith(f".{name}") for name in _HOME_NAMES)
    if not allow_private and (len(labels) < 2 or at_home):
        raise AddressError(f"{host!r} is not a public domain")
    return host


def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of a domain, as the system's resolver has them. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True)
class Deadline:
    """`total_s` for everything from the resolver to the last byte, `read_s` for any single wait."""

    total_s: float
    read_s: float = 10.0


class Outbound:
    """Calls URLs of strangers. `resolver`, `trust` and `transport` (its network) are given by tests.

    One connection a call: nothing is reused that was checked for another.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolver: Resolver = resolve,
        trust: ssl.SSLContext | None = None,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
    ) -> None:
        self._allow_private, self._resolver = allow_private, resolver
        self._transport = transport or (
            lambda: httpx.AsyncHTTPTransport(verify=trust or _public_trust(), trust_env=False, http2=False, retries=0)
        )

    @asynccontextmanager
    async def call(
        self, method: str, url: str, deadline: Deadline, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> AsyncIterator["Answer"]:
        """The answer's head, its body still to be read; whatever its status is.

        Raises AddressError for a URL that is not called, TimeoutError past the deadline, and httpx.TransportError or
        OSError where nobody answers, or not in HTTP.
        """
        target = parse_target(url, allow_private=self._allow_private)
        async with asyncio.timeout(deadline.total_s):
            addresses = await self._addresses(target)
            transport = self._transport()
            try:
                response = await self._send(transport, method, target, addresses, deadline, headers or {}, body)
                try:
                    yield Answer(response)
                finally:
                    await response.aclose()
            except httpx.TimeoutException as error:
                raise TimeoutError(f"{target.host}: no byte for {deadline.read_s:g} s") from error
            finally:
                with suppress(httpx.TransportError, OSError):
                    await transport.aclose()

    async def _addresses(self, target: Target) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(_RESOLVING, self._resolver, target.host, target.port)
        addresses = tuple(dict.fromkeys(found))
        if not addresses:
            raise OSError(f"{target.host}: no address")
        # One private address among public ones is no accident.
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise AddressError(f"{target.host} does not have a public address")
        return addresses[:_MOST_ADDRESSES]

    async def _send(
        self,
        transport: httpx.AsyncBaseTransport,
        method: str,
        target: Target,
        addresses: Sequence[str],
        deadline: Deadline,
        headers: Mapping[str, str],
        body: bytes,
    ) -> httpx.Response:
        own = {"Host": target.authority, "User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        wait_s = min(deadline.read_s, deadline.total_s)
        refused: Exception = OSError(f"{target.host}: no address")
        for address in addresses:
            request = httpx.Request(
                method,
                target.at(address),
                headers={**own, **headers},
                content=body or None,
                extensions={"timeout": httpx.Timeout(wait_s).as_dict(), "sni_hostname": target.host},
            )
            try:
                # The transport itself, not a client: no redirects, cookies, environment or decoding, and no log.
                return await transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                refused = error
        raise refused


class Answer:
    """Status and headers, and a body that is read as far as its reader likes."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status_code

    def header(self, name: str) -> str | None:
        return self._response.headers.get(name)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they were sent, not decoded."""
        stream = self._response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        async for chunk in stream:
            yield chunk

    async def head(self, most_bytes: int) -> bytes:
        """The beginning of the body; the rest is not read."""
        got = bytearray()
        async for chunk in self.chunks():
            got += chunk
            if len(got) >= most_bytes:
                break
        return bytes(got[:most_bytes])


@lru_cache(maxsize=1)
def _public_trust() -> ssl.SSLContext:
    # Loading the certificate authorities takes tens of milliseconds.
    return httpx.create_ssl_context()
