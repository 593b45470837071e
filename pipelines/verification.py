"""Files and runs held against their credentials and records: what `rushes verify` calls."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
from PIL import Image

from actors.decoder import first_pictures
from schemas.clip import Status
from schemas.errors import ConfigError, MediaError, ObjectMissingError
from storage import keys
from storage.address import FolderAddress, StoreAddress, parse_address
from storage.latest import fingerprint_ranges
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store
from storage.uris import locate
from trust.verification import FileReport, Recorded, Verdict, inspect

_THREADS = 8  # a download is all waiting
_AT_ONCE = 256
_ROWS_A_RANGE = 50_000
_PICTURES = 48  # of a file, where a watermark is looked for
_COLUMNS = ("fingerprint", "status", "variant", "uri", "sha256", "unsigned_sha256")


@dataclass(frozen=True)
class _Asked:
    """A clip to look at."""

    key: str
    recorded: Recorded | None


def verify(
    target: str,
    trust_anchors: str | None = None,
    on_file: Callable[[FileReport], None] = lambda report: None,
    watermark: bool | None = None,
) -> Counter[Verdict]:
    """Look at a file, at every clip that a run recorded, or at every clip of an endpoint; `on_file` is told of each,
    in no order. How many there are of each verdict. A `watermark` is looked for in a file, and in the clips of a folder
    where that is asked for: they have to be decoded.

    Raises ConfigError where the target is none of them.
    """
    counts: Counter[Verdict] = Counter()
    for report in _reports(target, trust_anchors, watermark):
        counts[report.verdict] += 1
        on_file(report)
    if not counts:
        raise ConfigError(f"{target}: neither a file, nor a folder that `rushes render` or `rushes serve` wrote to")
    return counts


def _reports(target: str, trust_anchors: str | None, watermark: bool | None) -> Iterator[FileReport]:
    address = parse_address(target)
    if (found := _file(target, address)) is not None:
        store, key = found
        yield _report(store, trust_anchors, watermark is not False, _Asked(key, None), target)
        return
    if isinstance(address, FolderAddress) and not address.folder.is_dir():
        raise ConfigError(f"{target}: no such file or folder")
    store = open_store(target)
    asked = _asked(store)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as threads:
        while together := list(islice(asked, _AT_ONCE)):
            yield from threads.map(partial(_report, store, trust_anchors, bool(watermark)), together)


def _file(target: str, address: StoreAddress) -> tuple[ObjectStore, str] | None:
    """Where the target lies, if it is one file."""
    if isinstance(address, FolderAddress):
        return locate(target) if address.folder.is_file() else None
    store, key = locate(target)
    return (store, key) if key and store.head(key) is not None else None


def _asked(store: ObjectStore) -> Iterator[_Asked]:
    """Clips that the ledger has, whether their run has ended or was killed; then those of an endpoint."""
    ledger = Ledger(store)
    parts = max(1, -(-ledger.count() // _ROWS_A_RANGE))
    for least, below in fingerprint_ranges(parts):
        yield from _recorded(ledger.load(least, below))
    for info in store.list(keys.TASKS):
        if info.key.rpartition("/")[2].startswith("clip."):
            yield _Asked(info.key, None)


def _recorded(records: pa.Table) -> Iterator[_Asked]:
    for row in records.select(_COLUMNS).to_pylist():
        if row["status"] == Status.SUCCEEDED.value and row["uri"]:
            told = Recorded(row["fingerprint"], row["sha256"], row["unsigned_sha256"])
            # By its name and not by its address: a folder that was copied elsewhere is looked at where it is.
            yield _Asked(keys.clip(row["variant"], row["fingerprint"], row["uri"].rpartition(".")[2]), told)


def _report(
    store: ObjectStore, trust_anchors: str | None, watermark: bool, asked: _Asked, shown: str | None = None
) -> FileReport:
    where = shown or asked.key
    with tempfile.TemporaryDirectory(prefix="rushes-verify-") as folder:
        path = Path(folder, asked.key.rpartition("/")[2])
        try:
            store.download(asked.key, path)
        except ObjectMissingError:
            return FileReport(where, Verdict.MISSING, reasons=("recorded, and not there",))
        return inspect(path, where, asked.recorded, trust_anchors, _pictures if watermark else None)


def _pictures(path: Path) -> list[Image.Image]:
    """The first pictures of a file of whatever kind; none where it is no picture or video."""
    try:
        return first_pictures(path, _PICTURES)
    except MediaError:
        return []
