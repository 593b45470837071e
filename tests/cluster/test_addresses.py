"""Which cluster is meant, and what is said where it cannot be joined; nobody is waited for."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import addresses
from cluster.addresses import Meant, meant
from schemas.errors import ConfigError


@pytest.fixture
def nobody_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A machine on which no raylet runs, whatever does on the real one."""
    monkeypatch.setattr(addresses, "_running_here", set)
    return {"RAY_TMPDIR": str(tmp_path)}


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def note(environment: dict[str, str], address: str) -> None:
    folder = Path(environment["RAY_TMPDIR"], "ray")
    folder.mkdir(exist_ok=True)
    (folder / "ray_current_cluster").write_text(address)


def nobody_listens() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", [None, "local"])
def test_without_an_address_a_cluster_is_started_whatever_lies_about(
    nobody_here: dict[str, str], address: str | None
) -> None:
    note(nobody_here, nobody_listens())
    assert meant(address, nobody_here) == Meant(None)


def test_auto_does_not_wait_for_a_cluster_that_has_ended(nobody_here: dict[str, str]) -> None:
    dead = nobody_listens()
    note(nobody_here, dead)
    with pytest.raises(ConfigError, match=rf"--address auto: no Ray cluster runs on this machine \(.*{dead} has ended"):
        meant("auto", nobody_here)
    note(nobody_here, "no address at all")
    with pytest.raises(ConfigError, match="`ray start --head` starts one"):
        meant("auto", nobody_here)


def test_auto_joins_the_one_that_answers(nobody_here: dict[str, str], listening: str) -> None:
    note(nobody_here, listening)
    assert meant("auto", nobody_here) == Meant(listening, "--address", here=True)


def test_auto_prefers_what_runs_to_what_was_noted(
    nobody_here: dict[str, str], listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(nobody_here, nobody_listens())
    monkeypatch.setattr(addresses, "_running_here", lambda: {listening})
    assert meant("auto", nobody_here).address == listening


def test_several_clusters_are_named(nobody_here: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        found = {f"127.0.0.1:{server.getsockname()[1]}" for server in (one, two)}
        monkeypatch.setattr(addresses, "_running_here", lambda: found)
        with pytest.raises(ConfigError, match=f"available: {', '.join(sorted(found))}"):
            meant("auto", nobody_here)


@pytest.mark.parametrize("address", [None, "auto"])
def test_ray_address_counts_where_no_other_is_named_and_is_told(listening: str, address: str | None) -> None:
    found = meant(address, {"RAY_ADDRESS": listening})
    assert (found.address, found.said) == (listening, f"joining the Ray cluster at {listening} (RAY_ADDRESS)")
    assert meant("local", {"RAY_ADDRESS": listening}) == Meant(None)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://10.0.0.1:10001", "Ray Client is not supported; run the command on a node"),
        ("http://10.0.0.1:8265", "not an address; available: auto, local, HOST:PORT"),
        ("head", "not an address"),
        ("head:ray", "not an address"),
        ("head:99999", "not an address"),
        (":6379", "not an address"),
        ("no-such-host.invalid:6379", "no Ray cluster answers there: "),
        ("a port of nobody", "no Ray cluster answers there: Connection refused"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_at_once(address: str, said: str) -> None:
    if address == "a port of nobody":  # found now: by the time that a port found when tests are collected is tried,
        address = nobody_listens()  # somebody may have it
    with pytest.raises(ConfigError, match=said) as told:
        meant(address, {})
    assert str(told.value).startswith(f"--address {address}: ")
    with pytest.raises(ConfigError, match=f"RAY_ADDRESS {address}: "):
        meant(None, {"RAY_ADDRESS": address})
