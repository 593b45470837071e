"""Texts are encoded once: their embeddings are kept, in memory up to a bound, and for large encoders in a store that
all processes of a run share.

A pipeline encodes prompts and negative prompts in methods of its own (`_get_t5_prompt_embeds` …; AnimateDiff and SDXL
in `encode_prompt` itself). While a model renders, a stand-in for these methods encodes **text by text**, kept or not:

- so clips are equal bit for bit with and without the cache: what is kept is what would be computed;
- so a text's embeddings do not depend on its batch mates (over 3 rows, sums run in another order than over 1; and Mochi
  blanks every text of a batch whose last one is empty).

What a pipeline does with embeddings (masks, pooled ones, joining negative and positive) stays its own. A call whose
arguments are more than texts and plain values (HunyuanVideo's image to video shows its encoder the image), or whose
results are not one row a text (texts padded to the longest of their batch, Kandinsky's packed ones), goes to the
pipeline's own method as it is.
"""

import hashlib
import inspect
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeGuard

from cachetools import LRUCache

from models.model import PromptCounts
from schemas.catalog import Variant
from schemas.errors import RushesError

log = logging.getLogger(__name__)

MEMORY_BYTES = 256 << 20
"""Of the host's memory, for one loaded model: more than a hundred texts of a T5 XXL."""
LARGE_PARAMETERS = 1_000_000_000
"""Encoders from this size on are slower than fetching what they said."""

_TEXTS = ("prompt", "prompt_2", "prompt_3", "negative_prompt", "negative_prompt_2", "negative_prompt_3")
_ENCODES = re.compile(r"_get_(\w+_)?prompt_embeds")
_LAYOUT = "layout"


@dataclass(frozen=True)
class Row:
    """What a method returned for one text: tensors (1, …) in the host's memory, and the device of each; None where it
    returned None. `single` where it returned a tensor and no tuple."""

    values: tuple[Any, ...] = field(repr=False)
    devices: tuple[str, ...]
    single: bool

    @property
    def row_bytes(self) -> int:
        return sum(int(value.nbytes) for value in self.values if value is not None)


class EmbeddingStore(Protocol):
    """Where processes leave embeddings for each other. Errors of the store are the store's to raise; they cost an
    encoding and nothing else."""

    def get(self, key: str) -> bytes | None:
        """What was put under the key, 64 hexadecimal digits; None where nothing was."""
        ...

    def put(self, key: str, data: bytes) -> None: ...


@dataclass
class PromptCache:
    """Of one loaded model. `identity` says what decides its embeddings beside texts: weights, adapters, precision,
    device, library versions. With `memory_bytes` 0 and no `store` nothing is kept."""

    identity: str
    memory_bytes: int = MEMORY_BYTES
    store: EmbeddingStore | None = field(default=None, repr=False)
    large_parameters: int = LARGE_PARAMETERS
    _kept: LRUCache[str, Row] = field(init=False, repr=False)
    _unsuitable: set[str] = field(default_factory=set, init=False, repr=False)
    _counts: PromptCounts = field(default_factory=PromptCounts, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._kept = LRUCache(self.memory_bytes, getsizeof=lambda row: row.row_bytes)

    @property
    def counts(self) -> PromptCounts:
        """So far. May be asked from any thread."""
        with self._lock:
            return self._counts

    @contextmanager
    def attached(self, pipe: Any, adapters: str = "") -> Iterator[None]:
        """Inside, `pipe` encodes through the cache. One pipe at a time. `adapters` are what acts on its text encoders
        beside what `identity` says."""
        names = methods_of(type(pipe))
        shares = self.store is not None and _parameters(pipe) >= self.large_parameters
        for name in names:
            told = f"{type(pipe).__name__}.{name}{adapters}"
            setattr(pipe, name, self._stand_in(getattr(pipe, name), told, pipe, shares))
        try:
            yield
        finally:
            for name in names:
                delattr(pipe, name)

    def _stand_in(self, method: Callable[..., Any], name: str, pipe: Any, shares: bool) -> Callable[..., Any]:
        signature = inspect.signature(method)
        is_named = all(
            p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL for p in signature.parameters.values()
        )

        def encode(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            texts = {key: given[key] for key in _TEXTS if given.get(key) is not None}
            columns = {key: [value] if isinstance(value, str) else value for key, value in texts.items()}
            plain = _plain({key: value for key, value in given.items() if key not in texts}, pipe)
            if not is_named or plain is None or name in self._unsuitable or not _are_lists(columns):
                return method(*args, **kwargs)
            rows = []
            for one in zip(*columns.values(), strict=True):
                alone = {key: [text] for key, text in zip(columns, one, strict=True)}
                # A text that came bare goes on bare: SANA-WM takes no lists.
                told = {key: text if isinstance(texts[key], str) else [text] for key, (text,) in alone.items()}
                rows.append(self._row(partial(method, **{**given, **told}), (name, plain, alone), shares))
            if not _fit(rows):
                self._unsuitable.add(name)
                return method(*args, **kwargs)
            return _joined(rows)

        return encode

    def _row(self, encode: Callable[[], Any], what: tuple[str, str, Mapping[str, Any]], shares: bool) -> Row | None:
        """What the method says of one text, on the device where it would say it; None where that is not one row."""
        key = hashlib.sha256(json.dumps([self.identity, *what], sort_keys=True).encode()).hexdigest()
        kept = self._kept.get(key)
        if kept is not None:
            self._count(from_memory=1)
            return kept
        if shares and (fetched := self._fetched(key)) is not None:
            self._count(from_store=1)
            self._keep(key, fetched)
            return fetched
        row = _as_row(encode())
        if row is None:
            return None
        self._count(encoded=1)
        self._keep(key, row)
        if shares:
            self._leave(key, row)
        return row

    def _keep(self, key: str, row: Row) -> None:
        if row.row_bytes <= self._kept.maxsize:
            # In the host's memory: the accelerator's is the denoiser's.
            self._kept[key] = row

    def _fetched(self, key: str) -> Row | None:
        assert self.store is not None
        try:
            data = self.store.get(key)
            return None if data is None else _read(data)
        except (RushesError, OSError, ValueError) as error:
            log.warning("embeddings %s could not be fetched: %s", key[:12], error)
            return None

    def _leave(self, key: str, row: Row) -> None:
        assert self.store is not None
        try:
            self.store.put(key, _written(row))
        except (RushesError, OSError) as error:
            log.warning("embeddings %s could not be left for others: %s", key[:12], error)

    def _count(self, encoded: int = 0, from_memory: int = 0, from_store: int = 0) -> None:
        with self._lock:
            now = self._counts
            self._counts = PromptCounts(
                now.encoded + encoded, now.from_memory + from_memory, now.from_store + from_store
            )


def prompt_cache(
    variant: Variant,
    revision: str,
    device: str,
    *,
    memory_bytes: int = MEMORY_BYTES,
    store: EmbeddingStore | None = None,
) -> PromptCache:
    """The cache of a variant, loaded onto a device. Embeddings are kept apart by whatever decides their bits."""
    import diffusers
    import torch
    import transformers

    kind = torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"
    versions = (torch.__version__, transformers.__version__, diffusers.__version__)
    return PromptCache("|".join((variant.digest, revision, kind, *versions)), memory_bytes, store)


def methods_of(pipeline: type) -> tuple[str, ...]:
    """The methods of a pipeline's class in which texts become embeddings, by name; none where there is none that is
    known."""
    found = tuple(sorted(name for name in dir(pipeline) if _ENCODES.fullmatch(name)))
    whole = getattr(pipeline, "encode_prompt", None)
    if not found and whole is not None and "prompt" in inspect.signature(whole).parameters:
        return ("encode_prompt",)
    return found


def _are_lists(columns: Mapping[str, Any]) -> bool:
    """Whether there are texts, as many of each kind."""
    return bool(columns) and all(
        isinstance(column, list)
        and len(column) == len(next(iter(columns.values())))
        and all(isinstance(t, str) for t in column)
        for column in columns.values()
    )


def _plain(given: Mapping[str, Any], pipe: Any) -> str | None:
    """Arguments as JSON; None where one is neither a plain value nor a part of the pipeline."""
    import torch

    parts = {id(part): name for name, part in pipe.components.items() if part is not None}

    def told(value: Any) -> Any:
        if isinstance(value, torch.dtype | torch.device):
            return str(value)
        if id(value) in parts:
            return f"<{parts[id(value)]}>"
        raise TypeError(type(value).__name__)

    try:
        return json.dumps(given, sort_keys=True, default=told)
    except (TypeError, ValueError):
        return None


def _as_row(result: Any) -> Row | None:
    """None for what is not one row of tensors."""
    import torch

    values = result if isinstance(result, tuple | list) else (result,)
    if not all(
        value is None or (isinstance(value, torch.Tensor) and value.dim() and len(value) == 1) for value in values
    ):
        return None
    devices = tuple("" if value is None else str(value.device) for value in values)
    # Copies: what a pipeline returned may be a part of something larger, or written to later.
    held = tuple(None if value is None else value.detach().to("cpu", copy=True).contiguous() for value in values)
    return Row(held, devices, isinstance(result, torch.Tensor))


def _fit(rows: Sequence[Row | None]) -> TypeGuard[Sequence[Row]]:
    """Whether the rows make one result."""
    shapes = {None if row is None else tuple(v is not None and (v.shape, v.dtype) for v in row.values) for row in rows}
    return len(shapes) == 1 and None not in shapes


def _joined(rows: Sequence[Row]) -> Any:
    """What the method would return for all of them."""
    import torch

    first = rows[0]
    joined = tuple(
        None if value is None else torch.cat([row.values[at] for row in rows]).to(first.devices[at])
        for at, value in enumerate(first.values)
    )
    return joined[0] if first.single else joined


def _written(row: Row) -> bytes:
    import torch
    from safetensors.torch import save

    tensors = {f"{at}@{row.devices[at]}": value for at, value in enumerate(row.values) if value is not None}
    return save({**tensors, _LAYOUT: torch.tensor([len(row.values), int(row.single)])})


def _read(data: bytes) -> Row:
    """Raises ValueError for what `_written` did not write."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        count, single = tensors.pop(_LAYOUT).tolist()
        values: list[Any] = [None] * count
        devices = [""] * count
        for name, value in tensors.items():
            at, _, device = name.partition("@")
            values[int(at)], devices[int(at)] = value, device
        return Row(tuple(values), tuple(devices), bool(single))
    except (SafetensorError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no embeddings: {error}") from error


def _parameters(pipe: Any) -> int:
    """Of its text encoders."""
    encoders = [part for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None]
    return sum(parameter.numel() for encoder in encoders for parameter in encoder.parameters())
