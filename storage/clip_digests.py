"""Whether stored clips still are what was recorded of them."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from schemas.errors import ObjectMissingError
from storage.store import ObjectStore

_READERS = 8
_BLOCK_BYTES = 1 << 20


def differing(store: ObjectStore, recorded: Mapping[str, str]) -> set[str]:
    """The keys whose objects have another SHA-256 than the one recorded (64 hexadecimal digits). One that is not there
    does not differ: listings tell of it."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="verify") as threads:
        found = threads.map(lambda key: _sha256(store, key), recorded)
        return {key for key, digest in zip(recorded, found, strict=True) if digest not in (None, recorded[key])}


def _sha256(store: ObjectStore, key: str) -> str | None:
    digest = hashlib.sha256()
    try:
        with closing(store.open(key)) as source:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
    except ObjectMissingError:
        return None
    return digest.hexdigest()
