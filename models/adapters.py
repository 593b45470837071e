"""LoRAs that requests bring, on a loaded model: a few are kept, those that were not used for the longest go.

An adapter that is kept but does not act changes no bit of what the model makes: layers sum what the active ones say.
Those of the variant's catalog entry always act, and are never let go of.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.weights import explain
from schemas.catalog import Adapter
from schemas.errors import RenderError, RushesError
from schemas.loras import MOST_KEPT, Lora

log = logging.getLogger(__name__)

MOST_BYTES = 2 << 30
_NONE: Mapping[str, float] = MappingProxyType({})
# A source in, (folder, file) of its safetensors out. Raises errors of ours.
Find = Callable[[str], tuple[Path, str]]


@dataclass(frozen=True)
class _Kept:
    name: str
    adapter_bytes: int
    on_text: bool  # it acts on a text encoder


class Adapters:
    """The LoRAs of one loaded model, whose pipelines share their components. Not thread-safe, as the model is not."""

    def __init__(
        self, own: Sequence[Adapter], find: Find, *, most: int = MOST_KEPT, most_bytes: int = MOST_BYTES
    ) -> None:
        """`own` are the variant's, which are loaded already as `lora0`, `lora1` … or by their names."""
        self._own = [(lora.name or f"lora{index}", lora.weight) for index, lora in enumerate(own)]
        self._find, self._most, self._most_bytes = find, most, most_bytes
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._numbers = 0

    @property
    def kept(self) -> tuple[str, ...]:
        """Sources, the least recently used first."""
        return tuple(source for source, _ in self._kept)

    @contextmanager
    def acting(self, pipe: Any, loras: Sequence[Lora], moving: Mapping[str, float] = _NONE) -> Iterator[str]:
        """Inside, these act beside the variant's own; `moving` are those of the variant that act only when they are
        called, by name with their weights. What comes out stands for those that change how texts are encoded; '' where
        none does.

        Raises RenderError for one that cannot be had or does not fit the model.
        """
        if not loras and not moving:
            yield ""
            return
        try:
            kept = [self._loaded(pipe, lora, loras) for lora in loras]
            on_text = [
                f"{lora.source}@{lora.digest}*{lora.weight}"
                for lora, one in zip(loras, kept, strict=True)
                if one.on_text
            ]
            acting = dict(self._own) | dict(moving)
            acting |= {one.name: lora.weight for lora, one in zip(loras, kept, strict=True)}
            pipe.enable_lora()
            pipe.set_adapters(list(acting), list(acting.values()))
            yield "+".join(on_text)
        finally:
            # Also after one that could not be loaded: letting go of its half may have woken another.
            self.rest(pipe)

    def rest(self, pipe: Any) -> None:
        """From now on only the variant's own act."""
        if self._own:
            pipe.set_adapters([name for name, _ in self._own], [weight for _, weight in self._own])
        else:
            pipe.disable_lora()

    def _loaded(self, pipe: Any, lora: Lora, others: Sequence[Lora]) -> _Kept:
        key = lora.source, lora.digest
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        if not hasattr(pipe, "load_lora_weights"):
            raise RenderError(f"loras: {type(pipe).__name__} takes none")
        self._numbers += 1
        name = f"brought{self._numbers}"
        try:
            folder, file = self._find(lora.source)
            size = (folder / file).stat().st_size
            self._make_room(pipe, size, {(one.source, one.digest) for one in others})
            pipe.load_lora_weights(str(folder), weight_name=file, adapter_name=name, use_safetensors=True)
            parts = {part for part, names in pipe.get_list_adapters().items() if name in names}
        except Exception as error:
            self._delete(pipe, name)
            said = str(error) if isinstance(error, RushesError) else explain(error)
            raise RenderError(f"LoRA {lora.source}: it cannot be loaded onto {type(pipe).__name__}: {said}") from error
        if not parts:
            raise RenderError(f"LoRA {lora.source}: it has nothing for {type(pipe).__name__}")
        kept = self._kept[key] = _Kept(name, size, any(part.startswith("text_encoder") for part in parts))
        return kept

    def _make_room(self, pipe: Any, adapter_bytes: int, wanted: set[tuple[str, str]]) -> None:
        for key in [key for key in self._kept if key not in wanted]:
            held = sum(one.adapter_bytes for one in self._kept.values())
            if len(self._kept) < self._most and held + adapter_bytes <= self._most_bytes:
                return
            self._delete(pipe, self._kept.pop(key).name)

    def _delete(self, pipe: Any, name: str) -> None:
        try:
            if any(name in names for names in pipe.get_list_adapters().values()):
                pipe.delete_adapters(name)
        except Exception as error:  # half of one that did not fit
            log.warning("adapter %s was not let go of: %s", name, error)
