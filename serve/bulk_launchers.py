"""Where the processes of bulk runs start: as jobs of a Ray cluster, or beside the ingress on a machine of one's own."""

import logging
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import ray

from schemas.errors import first_line
from serve.errors import RunNotLaunchedError

log = logging.getLogger(__name__)

_MODULE = "rushes.bulk_run"  # by name: rooms below may not import it
_ROOT = Path(__file__).resolve().parent.parent


class JobLauncher:
    """Ray jobs: on the head, watched by Ray, seen in its dashboard. For `serve deploy`, Kubernetes, any cluster."""

    def launch(self, batch_id: str, attempt: str) -> None:
        words = ["env", f"PYTHONPATH={_ROOT}", "RAY_OVERRIDE_JOB_RUNTIME_ENV=1"]
        words += [sys.executable, "-m", _MODULE, batch_id, attempt]
        # Code that came with the application came as this; an image's is there already.
        carried = {name: uri for name, uri in ray.get_runtime_context().runtime_env.items() if name == "working_dir"}
        if carried:
            words = [word for word in words if not word.startswith("PYTHONPATH=")]
        try:
            self._client().submit_job(
                entrypoint=shlex.join(words),
                submission_id=_job_id(batch_id, attempt),
                runtime_env=carried or None,
                metadata={"rushes_batch": batch_id},
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise RunNotLaunchedError(f"Ray took no job: {first_line(error)}") from error

    def stop(self, batch_id: str, attempt: str) -> None:
        try:
            self._client().stop_job(_job_id(batch_id, attempt))
        except (RuntimeError, ValueError, OSError) as error:
            log.info("the job of batch %s was not stopped: %s", batch_id, first_line(error))

    def close(self) -> None:
        """Jobs are Ray's."""

    def _client(self):  # type: ignore[no-untyped-def]
        from ray.job_submission import JobSubmissionClient

        # The dashboard of the very cluster that this process is part of, whatever else runs on the machine.
        return JobSubmissionClient(ray.get_runtime_context().gcs_address)


class ProcessLauncher:
    """Processes on the ingress's own machine, for a cluster that `rushes serve` started there: it has no dashboard that
    takes jobs. They outlive an ingress that dies, and end with the cluster."""

    def __init__(self) -> None:
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __reduce__(self) -> tuple[type["ProcessLauncher"], tuple[()]]:
        return ProcessLauncher, ()

    def launch(self, batch_id: str, attempt: str) -> None:
        self._started = {name: process for name, process in self._started.items() if process.poll() is None}
        environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        try:
            self._started[attempt] = subprocess.Popen(
                [sys.executable, "-m", _MODULE, batch_id, attempt],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # the server's Ctrl-C is not its
                env=environment,
            )
        except OSError as error:
            raise RunNotLaunchedError(f"no process could be started: {error}") from error

    def stop(self, batch_id: str, attempt: str) -> None:  # noqa: ARG002 - the protocol's
        process = self._started.get(attempt)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)

    def close(self) -> None:
        for attempt in tuple(self._started):
            self.stop("", attempt)


def _job_id(batch_id: str, attempt: str) -> str:
    return f"rushes-batch-{batch_id}-{attempt}"
