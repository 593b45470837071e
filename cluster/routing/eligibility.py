"""The filters that do not depend on the moment: which variants could render a task at all, and why not the others."""

from collections.abc import Callable
from typing import NamedTuple

from cluster.routing.decision_trace import Dropped, Filter, FilterStep
from cluster.routing.terms import PoolView, Terms
from schemas.catalog import Variant
from schemas.request import MAX_PROMPT_CHARS


class Eligible(NamedTuple):
    """What is left after the static filters: their account, and the pools of the survivors."""

    steps: tuple[FilterStep, ...]
    pools: tuple[tuple[int, PoolView], ...]  # with the variant's rank
    named: bool


def filtered(terms: Terms, pools: tuple[PoolView, ...]) -> Eligible:
    """The static filters, in order. Survivors are in the order of preference."""
    variants = {pool.variant.name: pool.variant for pool in pools}
    named = terms.variant != "auto"
    order, unknown = _order(terms, variants)
    steps: list[FilterStep] = []

    def keep(name: Filter, tests: Callable[[Variant], str | None], extra: tuple[Dropped, ...] = ()) -> None:
        nonlocal order
        verdicts = [(variant, tests(variants[variant])) for variant in order]
        order = tuple(variant for variant, why in verdicts if why is None)
        dropped = tuple(Dropped(variant, why) for variant, why in verdicts if why is not None)
        steps.append(FilterStep(name, order, dropped + extra))

    fits = {pool.name: _misfit(pool) for pool in pools}
    keep(Filter.CAPABILITY, lambda variant: _incapable(variant, terms, pools, fits), unknown)
    keep(Filter.SHAPE, lambda variant: _wrong_shape(variant, terms))
    keep(Filter.PROMPT_LENGTH, lambda _: _too_long(terms))
    keep(Filter.INPUT_SUPPORT, lambda variant: _unsupported(variant, terms))
    keep(Filter.ALLOW_DENY, lambda variant: _not_allowed(variant, terms))
    keep(
        Filter.QUALITY,
        lambda variant: (
            None if variant.quality >= terms.min_quality else f"quality {variant.quality:g} < {terms.min_quality:g}"
        ),
    )
    rank = {variant: place for place, variant in enumerate(order)}
    # The place in the original chain says whether it is a fallback, also when the first choice was filtered out.
    chain, _ = _order(terms, variants)
    rank = {variant: chain.index(variant) for variant in rank}
    if named and unknown:
        rank = {variant: place + 1 for variant, place in rank.items()}
    fit = [(rank[pool.variant.name], pool) for pool in pools if pool.variant.name in rank and fits[pool.name] is None]
    survivors = tuple(sorted(fit, key=lambda entry: (entry[0], entry[1].name)))
    return Eligible(tuple(steps), survivors, named)


def _order(terms: Terms, variants: dict[str, Variant]) -> tuple[tuple[str, ...], tuple[Dropped, ...]]:
    """The variants to consider, first choice first, and a named one that no pool knows."""
    if terms.variant == "auto":
        return tuple(sorted(name for name, variant in variants.items() if variant.auto)), ()
    by_name = {name: variant.name for variant in variants.values() for name in (*variant.aliases, variant.name)}
    first = by_name.get(terms.variant)
    unknown = () if first else (Dropped(terms.variant, "no pool can hold it"),)
    chain = [first] if first else []
    if terms.fall_back:
        more = terms.fallbacks if terms.fallbacks is not None else (variants[first].fallbacks if first else ())
        chain += [by_name[name] for name in more if name in by_name]
    return tuple(dict.fromkeys(chain)), unknown


def _misfit(pool: PoolView) -> str | None:
    needs = pool.variant.needs
    if needs.accelerator_type and needs.accelerator_type != pool.accelerator:
        return f"needs {needs.accelerator_type}, {pool.name} has {pool.accelerator}"
    if pool.vram_gib and needs.vram_gib > pool.vram_gib:
        return f"needs {needs.vram_gib:g} GiB, {pool.name} has {pool.vram_gib:g}"
    return None


def _incapable(variant: Variant, terms: Terms, pools: tuple[PoolView, ...], fits: dict[str, str | None]) -> str | None:
    if terms.mode not in variant.modes:
        return f"does not do {terms.mode.value}"
    misfits = [fits[pool.name] for pool in pools if pool.variant.name == variant.name]
    return None if None in misfits else (misfits[0] if misfits else "has no pool")


def _wrong_shape(variant: Variant, terms: Terms) -> str | None:
    if terms.steps is not None and terms.steps < variant.min_steps:
        return f"needs at least {variant.min_steps} steps"
    issues = variant.shape.issues(terms.shape) if terms.shape else ()
    return "; ".join(map(str, issues)) or None


def _too_long(terms: Terms) -> str | None:
    if terms.prompt_chars <= MAX_PROMPT_CHARS:
        return None
    return f"the prompt has {terms.prompt_chars} characters, {MAX_PROMPT_CHARS} are the most"


def _unsupported(variant: Variant, terms: Terms) -> str | None:
    missing = [role.value for role in terms.roles if role not in variant.roles(terms.mode)]
    if missing:
        return f"takes no {' and no '.join(missing)}"
    absent = [role.value for role in variant.needed(terms.mode) if role not in terms.roles]
    return f"needs a {' and a '.join(absent)}" if absent else None


def _not_allowed(variant: Variant, terms: Terms) -> str | None:
    if variant.name in terms.deny:
        return "denied"
    if terms.allow is not None and variant.name not in terms.allow:
        return "not on the allow list"
    return None
