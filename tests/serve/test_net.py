"""Which addresses are called, and by which connection."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from serve.errors import AddressError
from serve.net import Deadline, Outbound, is_public, parse_target
from tests.serve.strangers import DOMAIN, Stranger, drip, hang, ok, raw, status

REFUSED_URLS = (
    # not HTTPS
    "http://example.com/a.png",
    "ftp://example.com/a.png",
    "file:///etc/passwd",
    "gopher://example.com/",
    "//example.com/a.png",
    "example.com/a.png",
    "javascript:alert(1)",
    "data:text/plain,x",
    "",
    # an address in the place of a domain, in every notation
    "https://127.0.0.1/",
    "https://8.8.8.8/",
    "https://127.1/",
    "https://0/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.0.0.1./",
    "https://169.254.169.254/latest/meta-data/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fd00:ec2::254]/",
    "https://[2606:4700:4700::1111]/",
    "https://1.2.3.4.0x5/",
    # names that mean this machine or this house
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://a.localhost/",
    "https://metadata.google.internal/",
    "https://printer.local/",
    "https://router.home.arpa/",
    "https://intranet/",
    # a name and a password
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://example.com@127.0.0.1/",
    "https://127.0.0.1@example.com/",
    "https://@example.com/",
    # ports
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:6379/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://example.com:port/",
    # what parsers disagree on
    "https://example.com\\@127.0.0.1/",
    "https:\\\\127.0.0.1/",
    "https://example.com /",
    " https://example.com/",
    "https://example.com/\r\nHost: a",
    "https://exa\tmple.com/",
    "https://exa\x00mple.com/",
    "https://①②⑦.⓪.⓪.①/",
    "https://ｌocalhost/",
    "https://127。0。0。1/",
    "https:///a.png",
    "https://?a",
    "https://#a",
    "https://.../",
    "https://exam_ple..com/",
    "https://-example.com/",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 127 + "com/",
    "https://example.com/" + "a" * 2048,
)
PRIVATE_ADDRESSES = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # Alibaba's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # Azure's host
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",  # Oracle's metadata
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",  # Teredo
    "2001:0:0a00:1::",
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2002:a00:1::1",
    "2002:c0a8:101::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # Amazon's metadata
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
    "",
)
PUBLIC_ADDRESSES = (
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "168.63.129.17",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",  # how an IPv6-only machine reaches it
    "2002:808:808::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
)
SOON = Deadline(total_s=5.0, read_s=2.0)


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_url_is_refused_before_anybody_is_asked(url: str) -> None:
    with pytest.raises(AddressError):
        parse_target(url)


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_no_resolver_and_no_network_hears_of_a_refused_url(url: str) -> None:
    def nobody(host: str, port: int) -> Sequence[str]:
        raise AssertionError(f"{host} was resolved")

    with pytest.raises(AddressError):
        _get(Outbound(resolver=nobody), url)


@pytest.mark.parametrize(
    ("url", "host", "authority", "path"),
    [
        ("https://example.com", "example.com", "example.com", "/"),
        ("https://EXAMPLE.com:443/A?b=c#d", "example.com", "example.com", "/A?b=c"),
        ("HTTPS://a-b.xn--bcher-kva.example:8443/%20", "a-b.xn--bcher-kva.example", None, "/%20"),
        ("https://example.com./a", "example.com", "example.com", "/a"),
        ("https://1.2.3.4.example.com/", "1.2.3.4.example.com", "1.2.3.4.example.com", "/"),
        ("https://my_bucket.s3.amazonaws.com/a@b", "my_bucket.s3.amazonaws.com", "my_bucket.s3.amazonaws.com", "/a@b"),
        ("https://127.0.0.1.nip.io/", "127.0.0.1.nip.io", "127.0.0.1.nip.io", "/"),  # its address is what tells
    ],
)
def test_a_good_url_is_taken_apart(url: str, host: str, authority: str | None, path: str) -> None:
    target = parse_target(url)
    assert (target.host, target.authority, target.path) == (host, authority or f"{host}:8443", path)


def test_a_laboratory_may_call_itself() -> None:
    for url in ("http://127.0.0.1:8000/a", "https://localhost:1/", "http://[::1]:9/"):
        parse_target(url, allow_private=True)
    with pytest.raises(AddressError):
        parse_target("file:///etc/passwd", allow_private=True)


@pytest.mark.parametrize("address", PRIVATE_ADDRESSES)
def test_an_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_an_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE_ADDRESSES)
def test_a_domain_with_a_private_address_is_not_called(address: str) -> None:
    network = _Recorded()
    outbound = Outbound(resolver=lambda host, port: [address], transport=network.transport)
    with pytest.raises(AddressError, match="does not have a public address"):
        _get(outbound, "https://innocent.example/")
    assert network.called == []


def test_one_private_address_among_public_ones_is_one_too_many() -> None:
    network = _Recorded()
    outbound = Outbound(resolver=lambda host, port: ["8.8.8.8", "10.0.0.1"], transport=network.transport)
    with pytest.raises(AddressError):
        _get(outbound, "https://innocent.example/")
    assert network.called == []


def test_a_name_that_changes_its_mind_is_called_where_it_was_checked() -> None:
    """Rebinding: public when it is checked, private when it would be asked again."""
    with Stranger() as inside:
        asked: list[str] = []

        def rebinding(host: str, port: int) -> Sequence[str]:
            asked.append(host)
            return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

        network = _Recorded()
        answer = _get(Outbound(resolver=rebinding, transport=network.transport), "https://rebind.example/a?b=1")
        assert answer == (200, b"here")
        # Resolved once; the connection has the address, TLS and Host the name.
        assert asked == ["rebind.example"]
        assert network.called == [("93.184.216.34", 443, "rebind.example", "rebind.example", "/a?b=1")]
        # The second call is checked anew, and refused.
        with pytest.raises(AddressError):
            _get(Outbound(resolver=rebinding, transport=network.transport), "https://rebind.example/")
        assert inside.connections == 0
        assert len(network.called) == 1


def test_a_redirect_is_an_answer_and_not_followed() -> None:
    with Stranger() as inside, Stranger() as server:
        server.answers(status(302, f"Location: {inside.url('/secret')}"))
        assert _get(server.outbound(), server.url())[0] == 302
        assert (server.connections, inside.connections) == (1, 0)


def test_the_certificate_must_be_the_domain_s() -> None:
    with Stranger() as server, pytest.raises(httpx.ConnectError):
        _get(server.outbound(), f"https://other.test:{server.port}/")
    with Stranger() as server, pytest.raises(httpx.ConnectError):
        _get(server.outbound(trust=None), server.url())  # signed by nobody that the public trusts


def test_the_request_names_the_domain_and_asks_for_plain_bytes() -> None:
    with Stranger() as server:
        server.answers(ok(b"hello", "text/plain"))
        assert _get(server.outbound(), server.url("/a?b=c")) == (200, b"hello")
        visit = server.visits[0]
        assert (visit.method, visit.path) == ("GET", "/a?b=c")
        assert visit.headers["host"] == f"{DOMAIN}:{server.port}"
        assert visit.headers["accept-encoding"] == "identity"
        assert not {"cookie", "authorization", "referer"} & visit.headers.keys()


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stranger() as proxy, Stranger() as server:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        server.answers(ok(b"hello", "text/plain"))
        assert _get(server.outbound(), server.url()) == (200, b"hello")
        assert proxy.connections == 0


@pytest.mark.parametrize("script", [hang(), drip("text/plain", 0.05)], ids=["hangs", "drips"])
def test_one_deadline_holds_for_the_whole_exchange(script) -> None:  # type: ignore[no-untyped-def]
    with Stranger() as server:
        server.answers(script)
        with pytest.raises(TimeoutError):
            _get(server.outbound(), server.url(), Deadline(total_s=0.6, read_s=5.0))


def test_a_silence_is_shorter_than_the_deadline() -> None:
    with Stranger() as server:
        server.answers(hang())
        with pytest.raises(TimeoutError, match="no byte for 0.3 s"):
            _get(server.outbound(), server.url(), Deadline(total_s=30.0, read_s=0.3))


def test_a_resolver_that_hangs_is_not_waited_for() -> None:
    import threading

    over = threading.Event()

    def hanging(host: str, port: int) -> Sequence[str]:
        over.wait(10)
        return []

    with pytest.raises(TimeoutError):
        _get(Outbound(resolver=hanging), "https://slow.example/", Deadline(total_s=0.3))
    over.set()


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0\1\2\3", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000, b"HTTP/1.1 200 OK\r\n"],
    ids=["nothing", "noise", "another protocol", "a header without end", "half a head"],
)
def test_what_is_not_http_is_an_error_of_transport(answer: bytes) -> None:
    with Stranger() as server:
        server.answers(raw(answer))
        with pytest.raises(httpx.TransportError):
            _get(server.outbound(), server.url())


def test_the_next_address_is_tried_when_one_does_not_listen() -> None:
    with Stranger() as server:
        server.answers(ok(b"hello", "text/plain"))
        outbound = server.outbound(resolver=lambda host, port: ["127.0.0.2", "127.0.0.1"])
        assert _get(outbound, server.url()) == (200, b"hello")


def _get(outbound: Outbound, url: str, deadline: Deadline = SOON) -> tuple[int, bytes]:
    async def call() -> tuple[int, bytes]:
        async with outbound.call("GET", url, deadline) as answer:
            return answer.status, await answer.head(1 << 20)

    return asyncio.run(call())


class _Recorded:
    """A network that keeps who was called: (address, port, TLS name, Host, path)."""

    def __init__(self) -> None:
        self.called: list[tuple[str, int | None, str, str, str]] = []

    def transport(self) -> httpx.AsyncBaseTransport:
        def answer(request: httpx.Request) -> httpx.Response:
            url = request.url
            name = request.extensions["sni_hostname"]
            self.called.append((url.host, url.port or 443, name, request.headers["host"], url.raw_path.decode()))
            return httpx.Response(200, stream=httpx.ByteStream(b"here"))

        return httpx.MockTransport(answer)
