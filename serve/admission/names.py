"""What clients call variants, and which of them this endpoint serves."""

from dataclasses import dataclass

from schemas.catalog import Catalog, Variant
from schemas.errors import ConfigError, InvalidRequestError, Issue
from schemas.footage import footage_variant
from schemas.inputs import InputSpec
from schemas.request import Mode, Settings
from schemas.resolve import able_variants
from serve.config import ServeConfig
from serve.tasks import Constraints
from serve.wire.base import closest


@dataclass(frozen=True)
class NameIssue(Issue):
    """A name that nobody knows. `suggestion`: what was probably meant."""

    suggestion: str | None = None


class Names:
    """The whole catalog's names, and the served part of it."""

    def __init__(self, config: ServeConfig, catalog: Catalog) -> None:
        self.catalog = with_footage(config, catalog)
        self.served = served_catalog(config, catalog)

    def able(self, mode: Mode, inputs: tuple[InputSpec, ...] = ()) -> tuple[str, ...]:
        """The served variants that do `mode` with such inputs."""
        return able_variants(self.served, mode, inputs)

    def named(self, settings: Settings, mode: Mode) -> str | None:
        """The name of the variant that was asked for; None for auto. It may be one that only its fallbacks are served
        of. Raises InvalidRequestError."""
        if settings.variant == "auto":
            return None
        variant = self.catalog.find(settings.variant)
        if variant is None:
            raise InvalidRequestError((self._unknown("variant", settings.variant, self.served.names),))
        if self.served.find(variant.name) is None and not any(map(self.served.find, variant.fallbacks)):
            able = ("auto", *self.able(mode))
            raise InvalidRequestError((Issue("variant", f"{settings.variant} is not served here", "not_served", able),))
        return variant.name

    def fallbacks(self, named: str | None) -> tuple[str, ...] | None:
        """What the whole catalog gives in the place of a named variant that is not served; None: its own will do."""
        if named is None or self.served.find(named) is not None:
            return None
        return self.catalog[named].fallbacks

    def in_constraints(self, constraints: Constraints) -> Constraints:
        """Aliases in the lists replaced by names. Raises InvalidRequestError for names that nobody knows."""
        if constraints.allow is None and not constraints.deny:
            return constraints
        allow = None if constraints.allow is None else self.listed("allow", constraints.allow)
        return constraints.model_copy(update={"allow": allow, "deny": self.listed("deny", constraints.deny)})

    def listed(self, path: str, given: tuple[str, ...]) -> tuple[str, ...]:
        """The names of a list of names and aliases, each once. Raises InvalidRequestError at `path`."""
        found: list[str] = []
        for name in given:
            variant = self.catalog.find(name)
            if variant is None:
                raise InvalidRequestError((self._unknown(path, name, self.catalog.names[1:]),))
            found.append(variant.name)
        return tuple(dict.fromkeys(found))

    def with_able(self, issues: tuple[Issue, ...], mode: Mode, inputs: tuple[InputSpec, ...] = ()) -> tuple[Issue, ...]:
        """An issue of the mode becomes one of the variant, with those that would do."""
        able = self.able(mode, inputs)
        return tuple(
            Issue("variant", issue.message + ("" if able else "; no model served here does"), "mode", able)
            if issue.path == "mode"
            else issue
            for issue in issues
        )

    def _unknown(self, path: str, name: str, names: tuple[str, ...]) -> Issue:
        """The closest name comes first: that is the suggestion."""
        near = closest(name, names)
        choices = tuple(dict.fromkeys((*((near,) if near else ()), *names)))
        return NameIssue(path, f"unknown model {name[:100]!r}", "unknown_model", choices, near)


def served_catalog(config: ServeConfig, catalog: Catalog) -> Catalog:
    """The part of the catalog that this endpoint serves. Raises ConfigError for a variant that is not in it."""
    catalog = with_footage(config, catalog)
    for name in config.pools.variants:
        if catalog.find(name) is None:
            raise ConfigError(f"pools.variants: unknown variant {name!r}; available: {', '.join(catalog.names[1:])}")
    names = dict.fromkeys(catalog[name].name for name in config.pools.variants)
    kept: dict[str, Variant] = {}
    for name in names:
        variant = catalog[name]
        fallbacks = tuple(other for other in variant.fallbacks if catalog[other].name in names)
        kept[name] = variant.model_copy(update={"fallbacks": fallbacks})
    return catalog.with_variants(kept)


def with_footage(config: ServeConfig, catalog: Catalog) -> Catalog:
    """The catalog with the variant for videos that only something is to be done to, where the pools name it."""
    entry = footage_variant()
    names = {entry.name, *entry.aliases}
    if names.isdisjoint(config.pools.variants) or any(catalog.find(name) is not None for name in names):
        return catalog
    return catalog.with_variants({**catalog.variants, entry.name: entry})
