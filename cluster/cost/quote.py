"""What holding accelerators costs: one product for quotes (before) and bills (after), so that they may be compared.

Quoted are the seconds for which a call is predicted to hold them, billed those for which it did.
"""

from dataclasses import dataclass

from cluster.cost.model import Cost


@dataclass(frozen=True, slots=True)
class Charge:
    """`usd` for `gpu_s`, the seconds of all accelerators together."""

    gpu_s: float
    usd: float


def charge(held_s: float, price_usd_per_hour: float, *, gpus: float = 1.0) -> Charge:
    """For one actor or replica of `gpus` accelerators (0: it runs on CPUs and counts as one), held for `held_s`. The
    price is of all that it holds."""
    return Charge(held_s * (gpus or 1.0), held_s * price_usd_per_hour / 3600)


def quote(cost: Cost, price_usd_per_hour: float, *, gpus: float = 1.0) -> Charge:
    """For one task of a model call that costs `cost`: its share of the call. Loads are billed to whom they serve and
    are not known beforehand."""
    return charge(cost.per_clip_s, price_usd_per_hour, gpus=gpus)
