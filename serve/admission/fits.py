"""What each served variant would render of a request: its shape made the nearest one that the variant has."""

import math
from collections.abc import Hashable
from fractions import Fraction
from operator import attrgetter

from schemas.catalog import Catalog
from schemas.clip import ClipFormat
from schemas.errors import InvalidRequestError, Issue
from schemas.finish import FitMode
from schemas.request import SETTINGS_FIELDS, Request
from schemas.resolve import resolve
from schemas.task import Group

_MOST = 4096
_NEAR = 0.1  # of a side, a proportion or half a duration: not worth another variant
_SETTINGS = attrgetter(*(name for name in SETTINGS_FIELDS if name != "variant"))

Fit = tuple[dict[str, Group], dict[str, tuple[Issue, ...]]]
"""Groups by variant, and for the variants that cannot render it why not."""


class Fits:
    """Remembered by settings: many requests have the same."""

    def __init__(self, served: Catalog, fit_sizes: FitMode | None = None, loras: tuple[str, ...] = ()) -> None:
        """With `fit_sizes`, clips are brought to a size that a variant lacks. `loras`: where requests may bring LoRAs
        from."""
        self._served, self._fit_sizes, self._loras = served, fit_sizes, loras
        self._known: dict[Hashable, Fit] = {}

    def of(self, request: Request, clip_format: ClipFormat) -> Fit:
        key = (_SETTINGS(request), request.input_specs, request.told.turns_s, clip_format)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            found = self._known[key] = self._fit(request, clip_format)
        return found

    def _fit(self, request: Request, clip_format: ClipFormat) -> Fit:
        settings, inputs = request.settings, request.input_specs
        groups: dict[str, Group] = {}
        issues: dict[str, tuple[Issue, ...]] = {}
        for name in self._served.variants:
            try:
                groups[name] = resolve(
                    settings.model_copy(update={"variant": name}),
                    self._served,
                    inputs=inputs,
                    turns_s=request.told.turns_s,
                    rank=lambda variant, group: 0.0,
                    snap=True,
                    clip_format=clip_format,
                    fit_sizes=self._fit_sizes,
                    loras=self._loras,
                )
            except InvalidRequestError as error:
                issues[name] = error.issues
        return groups, issues


def is_near(request: Request, group: Group) -> bool:
    """Whether `group` comes to what was asked for, but for what nobody would notice."""
    size, seconds, shape = request.size, request.duration_s, group.clip_shape
    off = [0.0]
    if isinstance(size, Fraction):
        off.append(math.log(shape.width / shape.height / float(size)))
    elif size is not None:
        off += [math.log(shape.width / size[0]), math.log(shape.height / size[1])]
    if seconds is not None:
        off.append(math.log(group.frames / group.fps / seconds) / 2)
    return max(map(abs, off)) <= _NEAR
