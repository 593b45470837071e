"""A fleet for the page's tests: it plays the dispatcher through the store, and renders real, small MP4s."""

import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from actors.encoder import encode
from schemas.clip import Clip, ClipFormat, Status, Timings
from serve.store.contract import Progress
from serve.tasks import Outcome, StoredTask
from tests.serve.http.endpoint import Endpoint, pool

STEPS = 8


def film(width: int = 192, height: int = 128, frames: int = 24) -> bytes:
    """A red circle that moves left over blue, as H.264."""
    y, x = np.mgrid[0:height, 0:width]
    pictures = np.empty((frames, height, width, 3), np.uint8)
    for number in range(frames):
        inside = (x - (width - 30 - number * 5)) ** 2 + (y - height / 2) ** 2 < 26**2
        pictures[number] = np.where(inside[..., None], (214, 58, 44), (38, 70, 160))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        encode(pictures, 8, ClipFormat.MP4, path)
        return path.read_bytes()


class Fleet:
    """One replica that takes whatever waits, step by step. A prompt with 'fail' in it fails; `go` lets it work."""

    def __init__(self, endpoint: Endpoint, step_s: float = 0.05) -> None:
        self.endpoint, self.step_s = endpoint, step_s
        self.go = threading.Event()
        self.halfway = threading.Event()  # a task waits at its middle while this is not set
        self.halfway.set()
        self.seen_cancelled: list[str] = []
        self._film = film()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._render, self._note)]

    def __enter__(self) -> "Fleet":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.go.set()
        self.halfway.set()
        for thread in self._threads:
            thread.join(10)

    def _note(self) -> None:
        while not self._over.is_set():
            counts = self.endpoint.store.tasks.counts().by_status
            queued, busy = counts[Status.PENDING], counts[Status.RUNNING]
            self.endpoint.note(
                pool("shapes", price_usd_per_hour=2.4, busy=min(1, busy), queued=queued, backlog_s=3.2 * queued),
                pool("shapes-turbo", price_usd_per_hour=2.4, replicas=0, load_s=6.0),
                pool("tiny-random", healthy=False, replicas=0, failures=3, last_failure="out of memory while loading"),
            )
            self._over.wait(0.3)

    def _render(self) -> None:
        while not self._over.is_set():
            waiting = self.endpoint.store.tasks.pending()
            if not waiting or not self.go.is_set():
                self._over.wait(0.05)
                continue
            self._one(waiting[0])

    def _one(self, task: StoredTask) -> None:
        tasks, now = self.endpoint.store.tasks, self.endpoint.context.now
        leases = tasks.lease([task.seq], "replica-1", task.offer.variant, now() + 60, now())
        if not leases:
            return
        epoch = leases[0].epoch
        for step in range(STEPS + 1):
            if step == STEPS // 2:
                while not self.halfway.wait(0.05) and not tasks.renew(
                    [Progress(task.id, epoch, step / STEPS, "rendering")], now() + 60
                ):
                    continue
            if tasks.renew([Progress(task.id, epoch, step / STEPS, "rendering")], now() + 60):
                self.seen_cancelled.append(task.id)
                tasks.finish(task.id, epoch, Outcome(status=Status.CANCELLED, variant=task.offer.variant), now())
                return
            time.sleep(self.step_s)
        tasks.finish(task.id, epoch, self._outcome(task), now())

    def _outcome(self, task: StoredTask) -> Outcome:
        variant = task.offer.variant
        if "fail" in task.request.prompt:
            text = "the model returned frames that are no clip"
            return Outcome(
                status=Status.FAILED, variant=variant, failure=text, failure_code="INTERNAL.BAD_OUTPUT.NAN", dead=True
            )
        objects = self.endpoint.context.objects
        key = f"clips/{variant}/{task.id}.mp4"
        objects.put(key, self._film, "video/mp4")
        clip = Clip(
            uri=objects.uri(key),
            sha256="0" * 64,
            clip_bytes=len(self._film),
            width=192,
            height=128,
            frames=24,
            fps=8,
        )
        return Outcome(
            status=Status.SUCCEEDED,
            variant=variant,
            clip=clip,
            timings=Timings(render_s=0.4),
            billed_usd=task.offer.usd,
            billed_gpu_s=task.offer.gpu_s,
        )
