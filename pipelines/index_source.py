"""What all planners of a run share: the index of what is done and there, and the contents of variants.

It is read once, from the ledger and the listing of the run's store; by an actor, so that every planner can ask it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.index import FingerprintIndex
from pipelines.variant_content import VariantContents
from schemas.catalog import Catalog
from storage.done_tasks import done_tasks, stored_clips
from storage.ledger import Ledger
from storage.store import open_store

_MANY_LOOSE = 20_000


@dataclass(frozen=True)
class IndexSource:
    """The run's store, None for none, and the catalog. `by_keys` allows to believe the names of loose records where
    there are many. `refused_by`: what moderation of this digest has refused is done with."""

    out: str | None
    retry_quarantined: bool
    catalog: Catalog
    cache: Path
    with_sha256: bool = False
    by_keys: bool = False
    refused_by: str = ""

    def read(self) -> FingerprintIndex:
        """The index of what is done and there."""
        if self.out is None:
            return FingerprintIndex()
        store = open_store(self.out)
        ledger = Ledger(store)
        done = done_tasks(
            ledger,
            with_quarantined=not self.retry_quarantined,
            with_sha256=self.with_sha256,
            refused_by=self.refused_by,
            by_keys=self.by_keys and ledger.loose_count(_MANY_LOOSE) >= _MANY_LOOSE,
        )
        return FingerprintIndex(done, stored_clips(store, self.catalog.variants))


class LocalIndex:
    """The index and the contents, in this process."""

    def __init__(self, source: IndexSource) -> None:
        self._index = source.read()
        self._contents = VariantContents(source.catalog.variants, source.cache, source.catalog.finishers)
        self.claim, self.recorded = self._index.claim, self._index.recorded
        self.sha256, self.revoke = self._index.sha256, self._index.revoke
        self.content = self._contents.content

    def ask(self, name: str, *arguments: Any) -> Any:
        """Any of the methods by its name: how the actor is asked."""
        return getattr(self, name)(*arguments)

    def stop(self) -> None:
        """Nothing to stop."""


class RemoteIndex:
    """As `LocalIndex`, held by a Ray actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._content: dict[str, str] = {}

    @classmethod
    def started(cls, source: IndexSource) -> "RemoteIndex":
        """Start the actor, which reads the source by itself."""
        import ray

        return cls(ray.remote(num_cpus=0)(LocalIndex).remote(source))

    def claim(self, chunk: int, fingerprints: Any) -> Any:
        return self._ask("claim", chunk, fingerprints)

    def recorded(self, fingerprints: Any) -> Any:
        return self._ask("recorded", fingerprints)

    def sha256(self, fingerprints: Any) -> list[str]:
        return list(self._ask("sha256", fingerprints))

    def revoke(self, chunk: int, fingerprints: Any) -> None:
        self._ask("revoke", chunk, fingerprints)

    def content(self, variant: str) -> str:
        if variant not in self._content:
            self._content[variant] = str(self._ask("content", variant))
        return self._content[variant]

    def stop(self) -> None:
        import ray

        ray.kill(self._handle)

    def _ask(self, name: str, *arguments: Any) -> Any:
        import ray

        return ray.get(self._handle.ask.remote(name, *arguments))
