"""Brokers to try."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.catalog import parse_catalog
from serve.admission.names import served_catalog
from serve.config import Pools, ServeConfig
from serve.store.contract import Store
from serve.store.engine import open_store
from tests.serve.dispatch.endpoint import CATALOG, Endpoint


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    opened: list[Store] = []

    def made(**config: object) -> Endpoint:
        store = open_store(f"sqlite:///{tmp_path / 'tasks.sqlite'}")
        opened.append(store)
        pools = Pools(variants=("small", "swift"), max_replicas={"small": 2, "swift": 2})
        settings = ServeConfig.model_validate({"out": str(tmp_path), "pools": pools} | config)
        return Endpoint(store, settings, served_catalog(settings, parse_catalog(CATALOG, "test.toml")))

    yield made
    for store in opened:
        store.close()


@pytest.fixture
def endpoint(make: Callable[..., Endpoint]) -> Endpoint:
    return make()
