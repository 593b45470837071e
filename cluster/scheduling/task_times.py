"""What a task takes here: its call on an accelerator, and what follows until its clip is told of."""

from collections.abc import Sequence

from cluster.cost.model import Load
from cluster.cost.service_times import CostKey, Prediction, ServiceTimes
from cluster.scheduling.job import Call
from cluster.scheduling.pools import AcceleratorGroup

_AFTER_GAIN = 0.1


class TaskTimes:
    """Predictions of `times`, also for accelerators that are `predicted_as` another; learns from calls that ended."""

    def __init__(self, groups: Sequence[AcceleratorGroup], times: ServiceTimes) -> None:
        self._groups = {group.accelerator: group for group in groups}
        self.times = times
        self.after_s: dict[str, float] = {}
        """From the end of a call until its clips are stored and told, by variant, where it was seen."""

    def predict(self, variant: str, accelerator: str, call: Call, batch: int, tenant: str) -> Prediction:
        """The seconds of a call of so many tasks."""
        said, speed = self.reference(variant, accelerator, call, batch, tenant)
        return said if speed == 1.0 else Prediction(said.seconds / speed, said.median_s / speed, said.sigma)

    def reference(
        self, variant: str, accelerator: str, call: Call, batch: int, tenant: str
    ) -> tuple[Prediction, float]:
        """What is said of the accelerator by which this one is predicted, and how much faster this one is."""
        group = self._groups.get(accelerator)
        if group is None or group.predicted_as is None:
            return self.times.predict(CostKey(variant, accelerator, call.configuration, batch), tenant), 1.0
        key = CostKey(variant, group.predicted_as, call.configuration, batch)
        return self.times.predict(key, tenant), group.speed

    def alone(self, variant: str, accelerator: str, call: Call, tenant: str) -> tuple[float, float]:
        """(Seconds of a task that shares its call with none, until its clip is told of; the sigma of its call.)"""
        said = self.predict(variant, accelerator, call, 1, tenant)
        return said.seconds + self.after_s.get(variant, call.after_s), said.sigma

    def observe(
        self,
        variant: str,
        accelerator: str,
        call: Call,
        batch: int,
        tenant: str,
        render_s: float,
        after_s: float | None,
    ) -> None:
        """A call took `render_s`, and so much after it until it was told, where that is known."""
        group = self._groups.get(accelerator)
        if group is not None and group.predicted_as is not None:
            accelerator, render_s = group.predicted_as, render_s * group.speed
        self.times.observe(CostKey(variant, accelerator, call.configuration, batch), render_s, tenant)
        if after_s is not None:
            known_s = self.after_s.setdefault(variant, after_s)
            # One that was told late, because nobody answered, says nothing of the others.
            self.after_s[variant] = known_s + _AFTER_GAIN * (min(after_s, 4 * known_s + 1.0) - known_s)

    def observe_load(self, variant: str, accelerator: str, load_s: float) -> None:
        """A worker loaded its model cold in so many seconds."""
        self.times.observe_load(variant, accelerator, Load.COLD, load_s)
