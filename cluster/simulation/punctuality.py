"""Who was served, by when, and as what: the shares that a run is judged by, over all tasks or some."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.simulation.trace import Floats, Ints

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Punctuality:
    """Shares of all tasks that were asked for, but `admitted_late_share`, which is of those that were admitted."""

    tasks: int
    on_time_share: float  # done by the deadline, as whatever variant
    as_asked_share: float  # done by the deadline, as the variant that was asked for
    downgraded_share: float  # done as another variant, on time or not
    quality_goodput: float  # on time, weighted by the quality rendered over the quality asked for
    refused_share: float
    admitted_late_share: float  # done too late, or never


@dataclass(frozen=True)
class Fates:
    """What became of each task, in arrays."""

    on_time: Flags
    refused: Flags
    downgraded: Flags
    worth: Floats  # quality rendered over quality asked for, at most 1: a better one was not asked for

    def of(self, some: Flags | Ints | slice = slice(None)) -> Punctuality:
        """The shares of some of the tasks."""
        on_time, refused, downgraded = self.on_time[some], self.refused[some], self.downgraded[some]
        tasks = len(on_time)
        if not tasks:
            return Punctuality(0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0)
        admitted = int((~refused).sum())
        return Punctuality(
            tasks=tasks,
            on_time_share=float(on_time.mean()),
            as_asked_share=float((on_time & ~downgraded).mean()),
            downgraded_share=float(downgraded.mean()),
            quality_goodput=float((on_time * self.worth[some]).mean()),
            refused_share=float(refused.mean()),
            admitted_late_share=float((~on_time & ~refused).sum()) / admitted if admitted else 0.0,
        )


def worth(asked: Ints, rendered: Ints, quality: tuple[float, ...]) -> Floats:
    """Of each task; of one that was never rendered (−1) it says nothing."""
    by_number = np.array(quality)
    asked_for = by_number[asked]
    return np.where(asked_for > 0, np.minimum(1.0, by_number[rendered] / np.where(asked_for > 0, asked_for, 1.0)), 1.0)
