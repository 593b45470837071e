"""What a replica holds: which models are resident, and what making one resident takes."""

import math
from dataclasses import dataclass
from typing import Protocol, Self


class Memory(Protocol):
    """The models of one replica."""

    def load_s(self, variant: int) -> float:
        """Seconds before a task of `variant` could run; infinite when it never can."""
        ...

    def use(self, variant: int) -> float:
        """Make `variant` resident, evicting others as need be; returns `load_s`."""
        ...

    def copy(self) -> Self:
        """A memory to plan with."""
        ...


@dataclass
class FixedMemory:
    """A replica that was started with one model and keeps it."""

    variant: int

    def load_s(self, variant: int) -> float:
        return 0.0 if variant == self.variant else math.inf

    def use(self, variant: int) -> float:
        return self.load_s(variant)

    def copy(self) -> "FixedMemory":
        return self
