"""What model calls took, kept in the store: quotes and batch sizes follow it, here and in every ingress."""

from cluster.calibration import CalibrationState, Calibrator
from cluster.fit import Measured
from schemas.catalog import Catalog
from schemas.clip import Status
from serve.fleet import CALIBRATION
from serve.messages import Results
from serve.metrics import DispatchMetrics
from serve.store.contract import NoteStore


class Learnt:
    """One calibrator, and the note that outlives it."""

    def __init__(self, served: Catalog, notes: NoteStore, metrics: DispatchMetrics) -> None:
        note = notes.read(CALIBRATION)
        known = CalibrationState.model_validate(note) if note else None
        self.calibrator = Calibrator(served.variants.values(), known)
        self._notes, self._metrics = notes, metrics

    def observe(self, results: Results, accelerator: str) -> None:
        """Calls of which everything came out; others took what they took for reasons of their own."""
        whole = all(e.outcome is not None and e.outcome.status is Status.SUCCEEDED for e in results.ended)
        if not (whole and results.ended and results.render_s > 0):
            return
        group, size = results.group, len(results.ended)
        call = Measured(group.shape, group.steps, group.guidance, size, results.render_s)
        self.calibrator.observe(group.variant, accelerator, call)
        pool = f"{group.variant}/{accelerator}"
        self._metrics.rendered(group.variant, group.shape, results.render_s, size, pool=pool)

    def keep(self) -> None:
        """For the next dispatcher, and for those who quote."""
        self._notes.write(CALIBRATION, self.calibrator.state.model_dump(mode="json"))
