"""Large batches of the endpoint, as bulk runs: the `rushes render` command in a process of its own.

A process, because a run drives Ray Data for hours and must survive the ingress that started it; the command, because
it is resumable as it stands: started again, it goes on. What a run says (`run.json`, its results) is its progress.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from schemas.clip import Status
from schemas.errors import ConfigError, RushesError
from serve.bulk import BulkOptions, BulkProgress


class CommandRuns:
    """The `BulkRunner` of `rushes serve`. Travels to the ingress by its arguments."""

    def __init__(self, out: str, catalog: str | None) -> None:
        self._out, self._catalog = out, catalog
        self._runs: dict[str, subprocess.Popen[str]] = {}
        self._ended: dict[str, BulkProgress] = {}

    def __reduce__(self) -> tuple[type["CommandRuns"], tuple[str, str | None]]:
        return CommandRuns, (self._out, self._catalog)

    def start(self, batch_id: str, manifest_uri: str, out_uri: str, options: BulkOptions) -> None:
        """Quote it, then begin. A run that is going already is left alone."""
        if batch_id in self._runs and self._runs[batch_id].poll() is None:
            return
        flags = ["--variant", options.variant, *(["--catalog", self._catalog] if self._catalog else [])]
        flags += ["--snap"] if options.snap else []
        if options.max_usd is not None:
            usd = self._quote_usd(manifest_uri, flags)
            if usd > options.max_usd:
                text = f"the run is quoted at ${usd:.2f}, more than the limit of ${options.max_usd:.2f}"
                self._ended[batch_id] = BulkProgress(Status.FAILED, quote_usd=usd, failure=text)
                return
        command = [sys.executable, "-m", "rushes.cli", "render", manifest_uri, "--out", out_uri, "--yes", "--json"]
        self._ended.pop(batch_id, None)
        self._runs[batch_id] = process = subprocess.Popen(
            [*command, "--address", "auto", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        threading.Thread(target=self._wait, args=(batch_id, process), daemon=True).start()

    def cancel(self, batch_id: str) -> None:
        """As Ctrl-C: clips that are stored stay."""
        process = self._runs.get(batch_id)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)

    def progress(self, batch_id: str) -> BulkProgress | None:
        """What is known of a run that this process started."""
        if batch_id in self._ended:
            return self._ended[batch_id]
        return BulkProgress(Status.RUNNING) if batch_id in self._runs else None

    def _quote_usd(self, manifest_uri: str, flags: list[str]) -> float:
        command = [sys.executable, "-m", "rushes.cli", "estimate", manifest_uri, "--json", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            return float(json.loads(done.stdout)["usd"])
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{manifest_uri}: {done.stderr.strip()[-300:] or 'cannot be read'}") from error

    def _wait(self, batch_id: str, process: "subprocess.Popen[str]") -> None:
        stdout, stderr = process.communicate()
        try:
            self._ended[batch_id] = _read(stdout, stderr, process.returncode)
        except RushesError as error:
            self._ended[batch_id] = BulkProgress(Status.FAILED, failure=str(error))


def _read(stdout: str, stderr: str, code: int) -> BulkProgress:
    """The command's own summary."""
    try:
        summary = json.loads(stdout)
    except ValueError:
        cancelled = code in (130, -signal.SIGINT)
        return BulkProgress(Status.CANCELLED if cancelled else Status.FAILED, failure=stderr.strip()[-300:])
    counts = {name: int(summary.get(name, 0)) for name in ("succeeded", "failed", "rejected", "skipped")}
    return BulkProgress(
        Status.SUCCEEDED if code in (0, 3) else Status.FAILED,
        total=int(summary.get("rows", sum(counts.values()))),
        counts=counts,
        billed_usd=float(summary.get("billed_usd", 0.0)),
    )
