"""Weights out of a real object store, by several processes at once."""

import multiprocessing
from pathlib import Path

from actors.weights import StoredWeights
from models.loader import load
from models.weights import RemoteFile, find_weights
from schemas.request import Mode
from storage.store import open_store
from tests.models.tiny_variants import tiny_variant
from training.tiny import build


class Marked(StoredWeights):
    """Leaves a mark for every object that is fetched, in whatever process."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def fetch(self, uri: str, file: RemoteFile, destination: Path) -> None:
        with (self.marks / file.path.replace("/", "_")).open("a") as mark:
            mark.write(".")
        super().fetch(uri, file, destination)


def look(uri: str, cache: Path, marks: Path) -> str:
    return str(find_weights(uri, cache=cache, store=Marked(marks)).folder)


def test_processes_of_one_node_fetch_each_object_once(tmp_path: Path) -> None:
    store = open_store((tmp_path / "models").as_uri())
    for k in range(8):
        store.put(f"part-{k}/model.safetensors", bytes(100_000))
    (tmp_path / "marks").mkdir()
    arguments = ((tmp_path / "models").as_uri(), tmp_path / "cache", tmp_path / "marks")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        folders = pool.starmap(look, [arguments] * 3)
    assert len(set(folders)) == 1
    assert [mark.read_text() for mark in (tmp_path / "marks").iterdir()] == ["."] * 8


def test_a_variant_loads_out_of_a_store(tmp_path: Path) -> None:
    folder = build("wan", tmp_path / "wan")
    model = load(
        tiny_variant("wan", folder, weights=folder.as_uri()),
        modes=[Mode.TEXT_TO_VIDEO],
        device="cpu",
        cache=tmp_path / "cache",
        store=StoredWeights(),
    )
    assert Path(model.pipes[Mode.TEXT_TO_VIDEO].name_or_path).is_relative_to(tmp_path / "cache")
