"""A run by its seed."""

from tests.simulation.faults import drawn
from tests.simulation.old_faults import OLD_FAULTS
from tests.simulation.world import LEASE_S, Result, World


def one_run(seed: int, old_fault: str | None = None) -> Result:
    """The history of a seed; `old_fault`: with a fault that was mended put back."""
    faults = drawn(seed, LEASE_S)
    if old_fault is None:
        return World(seed, faults).run()
    return World(seed, faults, driver_class=OLD_FAULTS[old_fault]).run()
