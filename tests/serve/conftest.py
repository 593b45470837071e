"""A real task store and a real folder for objects, of a test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.store.contract import Store
from serve.store.engine import open_store as open_tasks
from storage.objects import ObjectStore
from storage.store import open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_tasks(f"sqlite:///{tmp_path / 'tasks.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "out"))
