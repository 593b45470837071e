"""How two processes share the tests: in parts, which are not torn."""

import functools
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

RAY = "ray"


class ByPart(LoadScopeScheduling):
    """A part is run by one process; they are given out as they are collected."""

    def _split_scope(self, nodeid: str) -> str:
        return part_of(nodeid.partition("::")[0])

    def remove_node(self, node: WorkerController) -> str | None:
        """A process has ended: what it had still to run is run by another one. Not the test that it ended in, which is
        returned, reported as failed, and would end the next one too; nor the parts that it had done, which xdist 3.8
        gives to another one that has nothing to answer then, and waits for ever for more."""
        units = self.assigned_work.pop(node)
        ended_in = next((name for unit in units.values() for name, done in unit.items() if not done), None)
        left = {}
        for part, unit in units.items():
            if undone := {name: False for name, done in unit.items() if not done and name != ended_in}:
                left[part] = undone
        self.workqueue = OrderedDict({**left, **self.workqueue})
        for other in self.assigned_work:
            self._reschedule(other)
        return ended_in

    def _reschedule(self, node: WorkerController) -> None:
        """A process begins a test when it knows the next one, or that there is none: one that gets a single test, as
        an ended one may have left it, would wait for ever (xdist 3.8 asks again only when a test is done). One that has
        not said yet what it collected gets its share then."""
        if node not in self.registered_collections:
            return
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)


def in_turn(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The longest parts come first, those with a Ray of their own not before others are with the shared one, and what
    fills gaps at last."""
    parts: dict[str, list[pytest.Item]] = {RAY: []}
    for item in items:
        parts.setdefault(part_of(item.nodeid.partition("::")[0]), []).append(item)

    def turn(part: str) -> int:
        has = {name for item in parts[part] for name in ("ray", "slow") if item.get_closest_marker(name)}
        return 0 if part == RAY else 2 if "ray" in has else 1 if "slow" in has else 3

    return [item for part in sorted(parts, key=turn) for item in parts[part]]


@functools.cache
def part_of(file: str) -> str:
    """All files that use the shared Ray are one part, so that there is one; any other file is one, since its fixtures
    are its module's. The process that gives the parts out knows tests by their names: hence a look into the file."""
    return RAY if "ray_cluster" in Path(__file__).parents[1].joinpath(file).read_text() else file
