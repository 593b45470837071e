"""Tiny random pipelines, each built and loaded once for all tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.loaded import LoadedModel
from models.loader import load
from tests.models.tiny_variants import FAMILIES, tiny_variant
from training.tiny import build

TinyFolder = Callable[[str], Path]
TinyModel = Callable[[str], LoadedModel]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # More threads than idle cores make tiny matrices slower, and results are to be compared bit for bit.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> TinyFolder:
    """The folder of the tiny pipeline of a family, or of a builder that is no family of its own."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(family: str) -> Path:
        name = FAMILIES[family]["folder"] if family in FAMILIES else family
        place = root / name
        return place if place.exists() else build(name, place)

    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: TinyFolder) -> TinyModel:
    """A family's tiny pipeline, loaded for all its modes. Tests that change a model load their own."""
    models: dict[str, LoadedModel] = {}

    def model(family: str) -> LoadedModel:
        if family not in models:
            models[family] = load(tiny_variant(family, tiny_folder(family)), device="cpu")
        return models[family]

    return model
