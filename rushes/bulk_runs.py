"""Large batches of the endpoint, as bulk runs: the `rushes` commands in processes of their own.

A process, because a run drives Ray Data for hours and must survive the ingress that started it; the command, because
it is resumable as it stands: started again, it goes on. First `rushes estimate` says how many rows there are and what
they cost, then `rushes render` renders them; its ledger tells how far it is.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.clip import Status
from schemas.errors import RushesError
from serve.bulk import BulkOptions, BulkProgress
from storage import keys
from storage.store import open_store

_LOOK_S = 10.0  # between two looks into a run's ledger
_TOLD_CHARS = 300


@dataclass
class _Run:
    out_uri: str
    progress: BulkProgress
    process: "subprocess.Popen[str] | None" = None
    cancelled: bool = False
    looked_at: float = 0.0


class CommandRuns:
    """The `BulkRunner` of `rushes serve`. Travels to the ingress by its arguments; its runs stay where they are."""

    def __init__(self, out: str, catalog: str | None) -> None:
        self._out, self._catalog = out, catalog
        self._runs: dict[str, _Run] = {}

    def __reduce__(self) -> tuple[type["CommandRuns"], tuple[str, str | None]]:
        return CommandRuns, (self._out, self._catalog)

    def start(self, batch_id: str, manifest_uri: str, out_uri: str, options: BulkOptions) -> None:
        """Begin, in the background. A run that is going already is left alone."""
        known = self._runs.get(batch_id)
        if known is not None and known.progress.status is Status.RUNNING:
            return
        run = self._runs[batch_id] = _Run(out_uri, BulkProgress(Status.RUNNING))
        threading.Thread(target=self._drive, args=(run, manifest_uri, options), daemon=True).start()

    def cancel(self, batch_id: str) -> None:
        """As Ctrl-C: clips that are stored stay."""
        run = self._runs.get(batch_id)
        if run is not None:
            run.cancelled = True
            if run.process is not None and run.process.poll() is None:
                os.killpg(run.process.pid, signal.SIGINT)

    def progress(self, batch_id: str) -> BulkProgress | None:
        """What is known of a run that this process started."""
        run = self._runs.get(batch_id)
        if run is None:
            return None
        if run.progress.status is Status.RUNNING and run.progress.total and time.monotonic() > run.looked_at + _LOOK_S:
            run.looked_at = time.monotonic()
            try:
                done = sum(1 for _ in open_store(run.out_uri).list(keys.RECORDS))
            except RushesError:
                return run.progress
            done = min(done, run.progress.total)
            counts = {"succeeded": done, "waiting": run.progress.total - done}
            run.progress = replace(run.progress, counts=counts)
        return run.progress

    # -- in a thread of its own ----------------------------------------------------------------------------------

    def _drive(self, run: _Run, manifest_uri: str, options: BulkOptions) -> None:
        flags = ["--variant", options.variant, "--json", *(["--snap"] if options.snap else [])]
        flags += ["--catalog", self._catalog] if self._catalog else []
        try:
            code, stdout, stderr = self._command(run, ["estimate", manifest_uri, *flags], options)
            quote = json.loads(stdout) if code in (0, 3) else None
            if quote is None:
                run.progress = _failed(run, stderr)
                return
            total, usd = int(quote["rows"]), float(quote["usd"])
            run.progress = replace(run.progress, total=total, quote_usd=usd, counts={"waiting": total})
            if options.max_usd is not None and usd > options.max_usd:
                text = f"the run is quoted at ${usd:.2f}, more than the limit of ${options.max_usd:.2f}"
                run.progress = replace(run.progress, status=Status.FAILED, failure=text)
                return
            command = ["render", manifest_uri, "--out", run.out_uri, "--yes", "--address", "auto", *flags]
            code, stdout, stderr = self._command(run, command, options)
            run.progress = _ended(run, json.loads(stdout)) if code in (0, 3) else _failed(run, stderr)
        except (OSError, ValueError, KeyError) as error:
            run.progress = _failed(run, f"{type(error).__name__} while it was driven")

    def _command(self, run: _Run, words: list[str], options: BulkOptions) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of one `rushes` command, which the server's Ctrl-C does not reach."""
        environment = dict(os.environ)
        if not options.trusted:
            # What this endpoint can read, and whom it can reach, is not the client's to name.
            environment["RUSHES_MEDIA_SCHEMES"] = "data"
        run.process = subprocess.Popen(
            [sys.executable, "-m", "rushes.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).resolve().parent.parent,
            env=environment,
        )
        if run.cancelled:
            os.killpg(run.process.pid, signal.SIGINT)
        stdout, stderr = run.process.communicate()
        return run.process.returncode, stdout, stderr


def _failed(run: _Run, stderr: str) -> BulkProgress:
    if run.cancelled:
        return replace(run.progress, status=Status.CANCELLED)
    return replace(run.progress, status=Status.FAILED, failure=stderr.strip()[-_TOLD_CHARS:])


def _ended(run: _Run, summary: dict[str, object]) -> BulkProgress:
    """By the command's own summary."""
    counts = {name: int(str(summary[name])) for name in ("succeeded", "failed", "rejected")}
    billed_usd = float(str(summary["billed_usd"]))
    return replace(run.progress, status=Status.SUCCEEDED, counts=counts, billed_usd=billed_usd)
