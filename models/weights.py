"""Where a variant's weights come from, and how they reach this machine once.

| `weights` in the catalog | what it is |
| --- | --- |
| `embedded:NAME` | a folder that ships with Rushes, `models/embedded/NAME` |
| `s3://bucket/prefix` | a folder of an object store, copied once into the node's cache |
| an absolute path, or one that begins with `./`, `../`, `~` | a folder on this machine |
| `owner/name` | a repository of the hub, at `revision`; the hub's own client keeps and locks its cache |

Only safetensors are read, and no code that comes with weights ever runs.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from schemas.catalog import Variant
from schemas.config import read_config
from schemas.errors import RushesError, VariantLoadError

EMBEDDED = Path(__file__).parent / "embedded"
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# Contents of files up to this size decide a folder's revision; larger ones by size and both ends.
_HASHED_WHOLE_BYTES = 4 << 20
_TRANSFORMERS_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


@dataclass(frozen=True)
class RemoteFile:
    """One object under a prefix: its path relative to the prefix, and what changes when its content does."""

    path: str
    file_bytes: int
    etag: str


class WeightsStore(Protocol):
    """The part of an object store that weights need. This room may not import `storage/`, so callers bring one."""

    def listing(self, uri: str) -> tuple[RemoteFile, ...]:
        """Every object under the prefix `uri`. Raises a StorageError or a StorageUnavailableError."""
        ...

    def fetch(self, uri: str, file: RemoteFile, destination: Path) -> None:
        """Write one object of the prefix `uri` to `destination`, whose folder exists."""
        ...


@dataclass(frozen=True)
class Weights:
    """A folder of weights on this machine. `revision` is the hub's commit, the catalog's word, or a digest."""

    folder: Path
    revision: str


def find_weights(
    source: str,
    revision: str | None = None,
    *,
    cache: Path | None = None,
    store: WeightsStore | None = None,
    download: Callable[[str, str | None], str] | None = None,
) -> Weights:
    """Bring the weights named `source` onto this machine and say where they are.

    `download(hub_id, revision)` returns the folder of a hub snapshot; `store` is needed for `s3://` sources only.
    Raises VariantLoadError when they cannot be had or are not safe to read; errors of the store pass through.
    """
    if source.startswith("embedded:"):
        return _embedded(source.removeprefix("embedded:"))
    if "://" in source:
        if store is None:
            raise VariantLoadError(f"weights {source}: no object store was given to fetch them with")
        return _fetched(source, revision, cache or read_config().cache_dir, store)
    folder = local_path(source)
    if is_local(source):
        if not folder.is_dir():
            raise VariantLoadError(f"weights {source}: no such folder on this machine")
        check_safe(folder)
        return Weights(folder.resolve(), revision or folder_revision(folder))
    if not _HUB_ID.match(source):
        raise VariantLoadError(
            f"weights {source!r}: neither a folder nor a source; "
            "available: owner/name on the hub, /a/folder, s3://bucket/prefix, embedded:NAME"
        )
    if download is None:
        raise VariantLoadError(f"weights {source}: the hub is out of reach here")
    snapshot = Path(download(source, revision))
    check_safe(snapshot)
    # The hub's cache names a snapshot's folder after its commit.
    return Weights(snapshot, snapshot.name if re.fullmatch(r"[0-9a-f]{40}", snapshot.name) else revision or "")


def folder_and_file(source: str) -> tuple[str, str]:
    """Of one file: the source that it lies in, and its name there."""
    folder, _, file = source.rpartition("/")
    return folder, file


def is_local(source: str) -> bool:
    """Whether a source is a folder or file of this machine, by its name."""
    return source.startswith(("/", "./", "../", "~"))


def local_path(source: str) -> Path:
    """Of a local source; where nobody has the home folder that it names, a path that is not there."""
    try:
        return Path(source).expanduser()
    except RuntimeError:
        return Path(source)


def missing(variant: Variant) -> str | None:
    """Which folder or file of this machine a variant names that is not there; None where all are."""
    named = {"weights": variant.weights, "motion_adapter": variant.motion_adapter or ""}
    if variant.controlnet is not None:
        named["controlnet.source"] = variant.controlnet.source or ""
    named |= {"speed.gguf": variant.speed.gguf or ""}
    if variant.ip_adapter is not None:
        named["ip_adapter.source"] = variant.ip_adapter.source
    named |= {f"loras[{index}].source": lora.source for index, lora in enumerate(variant.loras)}
    if variant.motion_loras is not None:
        ways = variant.motion_loras.by_direction.items()
        named |= {f"motion_loras.{way}.source": lora.source for way, lora in ways}
    for field, source in named.items():
        if source.startswith("embedded:"):
            path = EMBEDDED / source.removeprefix("embedded:")
        elif is_local(source):
            path = local_path(source)
        else:
            continue
        if not path.exists():
            return f"{field}: {source}: not there"
    return None


def local_tokenizer(source: str, revision: str | None = None) -> Path | None:
    """The `tokenizer.json` of the weights' (first) text encoder, where it is on this machine; nothing is fetched."""
    if source.startswith("embedded:"):
        folder = EMBEDDED / source.removeprefix("embedded:")
    elif is_local(source):
        folder = local_path(source)
    elif _HUB_ID.match(source):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(source, "tokenizer/tokenizer.json", revision=revision)
        return Path(found) if isinstance(found, str) else None
    else:
        return None
    file = folder / "tokenizer" / "tokenizer.json"
    return file if file.is_file() else None


def check_safe(folder: Path) -> None:
    """Refuse folders that hold code, or a component whose weights are only pickles.

    Raises VariantLoadError naming the file.
    """
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix == ".py":
            raise VariantLoadError(f"weights {folder}: {inside} is code; weights that bring their own are not loaded")
        if path.suffix in _PICKLES and not any(path.parent.glob("*.safetensors")):
            raise VariantLoadError(
                f"weights {folder}: {inside} is a pickle, which can run code when it is read, "
                "and there are no safetensors beside it; convert it with diffusers' save_pretrained"
            )


def download_transformers(hub_id: str, revision: str | None) -> str:
    """A model of transformers from the hub with what prepares its inputs: safetensors, no code. Its folder."""
    from huggingface_hub import snapshot_download

    return str(snapshot_download(hub_id, revision=revision, allow_patterns=list(_TRANSFORMERS_FILES)))


def folder_revision(folder: Path) -> str:
    """16 hexadecimal digits over names and contents (of large files: the size, the first and the last MiB)."""
    hasher = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        hasher.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _HASHED_WHOLE_BYTES:
                hasher.update(file.read())
            else:
                hasher.update(file.read(1 << 20))
                file.seek(-(1 << 20), os.SEEK_END)
                hasher.update(file.read())
    return hasher.hexdigest()[:16]


def _embedded(name: str) -> Weights:
    available = sorted(path.name for path in EMBEDDED.iterdir() if path.is_dir()) if EMBEDDED.is_dir() else []
    if name not in available:
        raise VariantLoadError(f"no embedded model {name!r}; available: {', '.join(available) or 'none'}")
    return Weights(EMBEDDED / name, folder_revision(EMBEDDED / name))


def _fetched(uri: str, revision: str | None, cache: Path, store: WeightsStore) -> Weights:
    """Copy a prefix into the cache once: whoever holds the lock copies, the others find the finished folder.

    The folder is named after the listing, so new weights under an old address are new weights here, and the copy
    goes to a temporary folder that is renamed when complete, so a killed process leaves nothing half done.
    """
    from filelock import FileLock

    try:
        files = tuple(sorted(_wanted(uri, store.listing(uri)), key=lambda file: file.path))
    except ConnectionError as error:
        raise VariantLoadError(f"weights {uri}: cannot be listed: {error}") from error
    digest = hashlib.sha256("\n".join(f"{f.path} {f.file_bytes} {f.etag}" for f in files).encode()).hexdigest()[:16]
    place = hashlib.sha256(f"{uri}@{digest}".encode()).hexdigest()[:24]
    root = cache / "weights"
    target = root / place
    root.mkdir(parents=True, exist_ok=True)
    if not target.is_dir():
        with FileLock(root / f"{place}.lock"):
            # Whoever holds the lock is alone with this place: other parts of it were left by killed processes.
            for stale in root.glob(f"{place}.*.part"):
                shutil.rmtree(stale, ignore_errors=True)
            if not target.is_dir():
                _copy(uri, files, target, store)
    return Weights(target, revision or digest)


def _wanted(uri: str, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The files that may be read. Raises VariantLoadError when nothing is there, or it is not safe."""
    found = [file for file in files if not file.path.endswith("/")]
    if not found:
        raise VariantLoadError(f"weights {uri}: nothing is there")
    folders_with_safetensors = {Path(file.path).parent for file in found if file.path.endswith(".safetensors")}
    for file in found:
        path = Path(file.path)
        if path.is_absolute() or ".." in path.parts:
            raise VariantLoadError(f"weights {uri}: {file.path} lies outside the folder")
        if path.suffix == ".py":
            raise VariantLoadError(f"weights {uri}: {file.path} is code; weights that bring their own are not loaded")
        if path.suffix in _PICKLES and path.parent not in folders_with_safetensors:
            raise VariantLoadError(f"weights {uri}: {file.path} is a pickle and has no safetensors beside it")
    return [file for file in found if Path(file.path).suffix not in _PICKLES]


def _copy(uri: str, files: Iterable[RemoteFile], target: Path, store: WeightsStore) -> None:
    part = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".part", dir=target.parent))
    try:
        for file in files:
            destination = part / file.path
            destination.parent.mkdir(parents=True, exist_ok=True)
            store.fetch(uri, file, destination)
            copied = destination.stat().st_size
            if copied != file.file_bytes:
                raise VariantLoadError(f"weights {uri}: {file.path} has {copied} bytes, not {file.file_bytes}")
        part.rename(target)
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        raise VariantLoadError(f"weights {uri}: cannot be written to {target.parent}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def explain(error: BaseException) -> str:
    """An error of ours as it stands; a foreign one with its class, first line only."""
    if isinstance(error, RushesError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
