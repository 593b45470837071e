"""What a variant's weights are, beyond what they are called: part of every fingerprint.

A catalog names places. What lies there may be replaced: a folder trained on, a bucket written over, a branch of the hub
moved on. So a fingerprint takes the contents, looked up once a plan and only of variants that rows use.
"""

import hashlib
import importlib.metadata
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from models.weights import EMBEDDED, folder_and_file, is_local, local_path
from schemas.catalog import Variant
from schemas.errors import RushesError
from schemas.finish import FLOOR, Finisher
from storage.file_digests import FileDigests
from storage.store import open_store

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_TIMEOUT_S = 5.0
_FINISHER, _LORA, _EXTRACTOR = "finisher:", "lora:", "extractor:"  # no variant is called so


class VariantContents:
    """Digests of the contents of a catalog's variants."""

    def __init__(self, variants: Mapping[str, Variant], cache: Path, finishers: Mapping[str, Finisher] = FLOOR) -> None:
        self._variants, self._finishers = variants, finishers
        self._digests = FileDigests(cache)
        self._known: dict[str, str] = {}

    def content(self, variant: str) -> str:
        """16 hexadecimal digits over the files of a variant and the version of the library that runs it.

        What cannot be looked up counts by its name: whether it loads is for whoever loads it to say.
        """
        found = self._known.get(variant)
        if found is None and variant.startswith(_FINISHER):
            by = self._finishers[variant.removeprefix(_FINISHER)]
            told = self._of(by.weights or "", None)
            # A pipeline of diffusers is code of the library as well.
            told = f"{_diffusers_version()}\n{told}" if by.method == "latent" else told
            found = self._known[variant] = hashlib.sha256(told.encode()).hexdigest()[:16]
        if found is None and variant.startswith(_LORA):
            content = self._of(variant.removeprefix(_LORA), None)
            found = self._known[variant] = hashlib.sha256(content.encode()).hexdigest()[:16]
        if found is None and variant.startswith(_EXTRACTOR):
            revision, _, weights = variant.removeprefix(_EXTRACTOR).partition(":")
            content = f"{_transformers_version()}\n{self._of(weights, revision or None)}"
            found = self._known[variant] = hashlib.sha256(content.encode()).hexdigest()[:16]
        if found is None:
            entry = self._variants[variant]
            sources = [(entry.weights, entry.revision)]
            sources += [(entry.motion_adapter, None)] if entry.motion_adapter else []
            if entry.controlnet is not None and entry.controlnet.source is not None:
                sources.append((entry.controlnet.source, entry.controlnet.revision))
            sources += [(_holding(entry.speed.gguf), None)] if entry.speed.gguf else []
            if entry.ip_adapter is not None:
                sources.append((entry.ip_adapter.source, entry.ip_adapter.revision))
            sources += [(lora.source, lora.revision) for lora in entry.loras]
            if entry.motion_loras is not None:
                sources += [(lora.source, lora.revision) for lora in entry.motion_loras.by_direction.values()]
            parts = [_diffusers_version(), *(self._of(source, revision) for source, revision in sources)]
            found = self._known[variant] = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        return found

    def _of(self, source: str, revision: str | None) -> str:
        if source.startswith("embedded:"):
            return self._folder(EMBEDDED / source.removeprefix("embedded:"), source)
        if "://" in source:
            with suppress(RushesError):
                listed = sorted((info.key, info.size_bytes, info.etag) for info in open_store(source).list())
                return hashlib.sha256(repr(listed).encode()).hexdigest()
            return source
        path = local_path(source)
        if is_local(source):
            return self._folder(path, source)
        return f"{source}@{_hub_commit(source, revision)}"

    def _folder(self, path: Path, name: str) -> str:
        with suppress(OSError):
            if path.is_file():
                return self._digests.sha256(path)
            files = sorted(file for file in path.rglob("*") if file.is_file())
            if files:
                told = "\n".join(f"{file.relative_to(path).as_posix()} {self._digests.sha256(file)}" for file in files)
                return hashlib.sha256(told.encode()).hexdigest()
        return name


def _holding(file: str) -> str:
    """The source to look at for one file: itself where it is of this machine, else what it lies in."""
    return file if is_local(file) else folder_and_file(file)[0]


def finisher_content(name: str) -> str:
    """What `content` is asked of a finisher by."""
    return f"{_FINISHER}{name}"


def lora_content(source: str) -> str:
    """What `content` is asked of a LoRA by."""
    return f"{_LORA}{source}"


def extractor_content(weights: str, revision: str | None) -> str:
    """What `content` is asked of an extractor by."""
    return f"{_EXTRACTOR}{revision or ''}:{weights}"


def mixed(variant_digest: str, content: str) -> str:
    """A variant's digest together with that of its contents."""
    return hashlib.sha256(f"{variant_digest}{content}".encode()).hexdigest()[:16]


def _diffusers_version() -> str:
    return _version("diffusers")


def _transformers_version() -> str:
    return _version("transformers")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _hub_commit(repository: str, revision: str | None) -> str:
    """The commit that a branch or tag of the hub stands for; as this machine's cache knows it when the hub is out of
    reach; the name itself when nobody knows."""
    wanted = revision or "main"
    if _COMMIT.fullmatch(wanted):
        return wanted
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        # Whatever goes wrong there (no network, no such repository, no token), what is cached is used.
        with suppress(Exception):
            commit = HfApi().model_info(repository, revision=wanted, timeout=_HUB_TIMEOUT_S).sha
            if commit:
                return commit
    folder = f"models--{repository.replace('/', '--')}"
    with suppress(OSError):
        return Path(constants.HF_HUB_CACHE, folder, "refs", wanted).read_text().strip()
    return wanted
