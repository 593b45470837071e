"""Where the actors of a run leave embeddings of texts for each other, for `models/`, which may not know a store."""

from schemas.errors import ObjectMissingError
from storage import keys
from storage.store import ObjectStore


class StoredEmbeddings:
    """The `EmbeddingStore` of `models.prompt_cache` over the run's own store. What is there is never written again."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get(self, key: str) -> bytes | None:
        try:
            return self._store.get(keys.embeddings(key))
        except ObjectMissingError:
            return None

    def put(self, key: str, data: bytes) -> None:
        self._store.put(keys.embeddings(key), data, if_absent=True)
