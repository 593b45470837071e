"""`inputs/`: checked media, stored once however often they are sent, and removed when nobody reads them any more."""

from pathlib import Path

from serve.store.contract import Store
from storage import keys
from storage.objects import ObjectStore


def keep(objects: ObjectStore, key: str, file: Path, content_type: str, keep_s: float, now: float) -> None:
    """Store an input. One that is there and no longer young is written again, so that it counts as young. Blocking."""
    if objects.put(key, file, content_type, if_absent=True):
        return
    found = objects.head(key)
    if found is None or now - found.modified.timestamp() > keep_s / 2:
        objects.put(key, file, content_type)


def sweep(store: Store, objects: ObjectStore, keep_s: float, now: float) -> int:
    """Remove inputs that are older than `keep_s` and that no unfinished task names; how many. Blocking.

    What somebody sends again is made young first (`keep`), and its task is stored long before it is old again. The
    manifests of bulk runs name inputs too: while one goes on, nothing is removed.
    """
    old = [info.key for info in objects.list(keys.INPUTS) if now - info.modified.timestamp() > keep_s]
    if not old or store.batches.unfinished_runs():
        return 0
    # By name, which is the content's: addresses may be spelled in several ways.
    used = {_name(uri) for uri in store.tasks.media_in_use()}
    removed = 0
    for key in (key for key in old if _name(key) not in used):
        found = objects.head(key)  # written again since it was listed?
        if found is not None and now - found.modified.timestamp() > keep_s:
            objects.delete([key])
            removed += 1
    return removed


def _name(path: str) -> str:
    return path.rpartition("/")[2]
