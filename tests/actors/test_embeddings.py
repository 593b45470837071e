"""Embeddings that one actor leaves and another finds, over a real store."""

from pathlib import Path

from actors.embeddings import StoredEmbeddings
from storage import keys
from storage.store import open_store

KEY = "ab" * 32


def test_what_one_actor_leaves_another_finds_and_nobody_writes_again(tmp_path: Path) -> None:
    one, other = (StoredEmbeddings(open_store(str(tmp_path))) for _ in range(2))
    assert other.get(KEY) is None
    one.put(KEY, b"first")
    other.put(KEY, b"second")
    assert one.get(KEY) == other.get(KEY) == b"first"
    assert [info.key for info in open_store(str(tmp_path)).list()] == [keys.embeddings(KEY)]
    assert keys.embeddings(KEY) == f"embeddings/ab/{KEY}.safetensors"
