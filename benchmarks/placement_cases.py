"""Problems for `benchmarks.placement`: runs as they are, small ones for an exact program, and hard ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cluster.placement.plan import BulkGroup, BulkPool, BulkVariant


@dataclass(frozen=True)
class Case:
    """One problem."""

    groups: tuple[BulkGroup, ...]
    variants: tuple[BulkVariant, ...]
    pools: tuple[BulkPool, ...]


POOLS = (
    BulkPool("h100", "H100", 12, 80),
    BulkPool("a100", "A100-40G", 14, 40),
    BulkPool("l40s", "L40S", 16, 48),
    BulkPool("l4", "L4", 18, 24),
)
SPEED = {"H100": 2.8, "A100-40G": 1.0, "L40S": 0.95, "L4": 0.3}
VRAM_GIB = (8, 12, 16, 20, 22, 36, 44, 70)
GROUPS_A_VARIANT = 5


def draw(seed: int, tasks: int = 10_000) -> Case:
    """A run: 40 groups, counts by a Zipf law over variants and shapes, seconds lognormal by variant and shape."""
    rng = np.random.default_rng(seed)
    variants, groups, weights = [], [], []
    popularity = rng.permutation(1.0 / np.arange(1, len(VRAM_GIB) + 1))
    for v, vram_gib in enumerate(VRAM_GIB):
        # A load reads the weights from the store: 1 GiB/s and some start-up, slower hosts under smaller GPUs.
        load_s = {a: (10 + vram_gib) * rng.uniform(0.8, 1.2) * (1.5 if a == "L4" else 1.0) for a in SPEED}
        variants.append(BulkVariant(f"v{v}", vram_gib, load_s))
        base_s = 4.0 * vram_gib**0.6 * rng.lognormal(0, 0.3)
        # How well a variant likes a type differs: memory-bound ones gain less from the fast one.
        speed = {a: s * rng.lognormal(0, 0.2) for a, s in SPEED.items()}
        for shape in range(GROUPS_A_VARIANT):
            reference_s = base_s * rng.lognormal(0, 0.7)
            task_s = {a: reference_s / s * rng.lognormal(0, 0.05) for a, s in speed.items()}
            groups.append((f"v{v}/{shape}", f"v{v}", task_s))
            weights.append(popularity[v] / (1 + shape))
    counts = 1 + rng.multinomial(tasks - len(groups), np.array(weights) / sum(weights))
    made = tuple(BulkGroup(n, v, int(c), s) for (n, v, s), c in zip(groups, counts, strict=True))
    return Case(made, tuple(variants), POOLS)


def draw_small(seed: int) -> Case:
    """Four GPUs of two types, three variants, five groups, about two dozen tasks."""
    rng = np.random.default_rng(seed)
    pools = (BulkPool("big", "H100", 2, 80), BulkPool("small", "L4", 2, 24))
    variants = tuple(
        BulkVariant(f"v{v}", (16, 20, 60)[v], {"H100": rng.uniform(5, 40), "L4": rng.uniform(5, 60)}) for v in range(3)
    )
    groups = []
    for g in range(5):
        seconds = rng.lognormal(3, 0.6)
        task_s = {"H100": seconds, "L4": seconds * rng.uniform(1.5, 5)}
        groups.append(BulkGroup(f"g{g}", f"v{g % 3}", int(rng.integers(2, 9)), task_s))
    return Case(tuple(groups), variants, pools)


@dataclass(frozen=True)
class Hard:
    """Settings of a problem that is meant to hurt: `pools` pools of `gpus` GPUs of `types` accelerators in turn, and
    `tasks` tasks (counts heavy-tailed) of `variants` variants with `groups` groups each."""

    name: str
    types: int
    variants: int = 8
    groups: int = 5
    tasks: int = 100_000
    pools: int = 200
    gpus: int = 1
    fits: float = 1.0  # chance that a variant fits a type
    own_type: bool = False  # a variant fits one type only
    alike: bool = False  # all tasks and loads take equally long
    giant: bool = False  # one more group: a single task as long as all others take


HARD = (
    Hard("equal pools, few tasks", types=1, tasks=300),
    Hard("four types, few tasks", types=4, tasks=300),
    Hard("four types, fewer tasks than GPUs", types=4, tasks=60),
    Hard("pools all different, few tasks", types=200, tasks=300),
    Hard("pools all different, some tasks", types=200, tasks=2000),
    Hard("pools all different", types=200),
    Hard("pools all different, few tasks of many groups", types=200, variants=140, tasks=700),
    Hard("pools all different, 200 variants", types=200, variants=200),
    Hard("four types, 200 variants", types=4, variants=200),
    Hard("four types, 20,000 groups", types=4, variants=200, groups=100),
    Hard("mixed fits", types=200, variants=40, groups=3, tasks=20_000, fits=0.3),
    Hard("variants that fit one pool", types=200, variants=400, groups=3, own_type=True),
    Hard("all tasks alike, one group", types=200, variants=1, groups=1, alike=True),
    Hard("all tasks alike, forty groups", types=200, alike=True),
    Hard("one giant task", types=200, giant=True),
    Hard("pools of fifty", types=4, variants=20, gpus=50),
)


def draw_hard(hard: Hard, seed: int) -> Case:
    """Seconds and speeds lognormal, counts by a Pareto law."""
    rng = np.random.default_rng([seed, len(hard.name)])
    types = [f"type-{k}" for k in range(hard.types)]
    pools = tuple(BulkPool(f"pool-{k}", types[k % hard.types], hard.gpus, 80) for k in range(hard.pools))
    speed = dict.fromkeys(types, 1.0) if hard.alike else {name: float(rng.lognormal(0, 0.5)) for name in types}
    variants, seconds = [], []
    for v, where in enumerate(_where(hard, types, rng)):
        loads = {name: 30.0 if hard.alike else 30 * float(rng.uniform(0.5, 1.5)) for name in where}
        variants.append(BulkVariant(f"v{v}", 8, loads))
        for _ in range(hard.groups):
            own_s = 20.0 if hard.alike else 20 * float(rng.lognormal(0, 0.8))
            spread = 0.0 if hard.alike else 0.2
            seconds.append((v, {name: own_s / speed[name] * float(rng.lognormal(0, spread)) for name in where}))
    weights = rng.pareto(1.2, len(seconds)) + 0.1
    counts = rng.multinomial(hard.tasks, weights / weights.sum())
    groups = [
        BulkGroup(f"g{g}", f"v{v}", int(count), task_s)
        for g, ((v, task_s), count) in enumerate(zip(seconds, counts, strict=True))
    ]
    if hard.giant:
        work_s = sum(group.tasks * min(group.task_s.values()) for group in groups)
        whole_s = max(1.0, work_s / (hard.pools * hard.gpus))
        groups.append(BulkGroup("giant", "v0", 1, {name: whole_s / speed[name] for name in variants[0].load_s}))
    return Case(tuple(groups), tuple(variants), pools)


def _where(hard: Hard, types: list[str], rng: np.random.Generator) -> Iterator[list[str]]:
    """The types that each variant fits: at least one."""
    for v in range(hard.variants):
        if hard.own_type:
            yield [types[v % len(types)]]
        else:
            some = [name for name in types if rng.random() < hard.fits]
            yield some or [types[int(rng.integers(len(types)))]]
