"""A real Postgres for tests: a private server on a Unix socket, in a folder of its own, gone with the session.

    with PostgresServer() as server:
        store = open_store(server.fresh_url())

Postgres refuses to run as root: started by root, it runs as the machine's `postgres` or, without one, as `nobody`.
"""

import atexit
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/usr/local/pgsql/bin",
)


def find_postgres() -> Path | None:
    """The folder with `initdb` and `postgres`: of the one on the PATH, of `pg_config`, or where packages put it."""
    found = [
        Path(program).resolve().parent for program in (shutil.which("initdb"), shutil.which("postgres")) if program
    ]
    if shutil.which("pg_config"):
        told = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        found.append(Path(told))
    for pattern in _FOLDERS:
        found += map(Path, sorted(glob.glob(pattern), reverse=True))
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


class PostgresServer:
    """One server process. `kill()` then `start()` is what clients see as an outage."""

    def __init__(self) -> None:
        folder = find_postgres()
        if folder is None:
            raise RuntimeError("no `initdb` and `postgres`: install a Postgres server")
        self._bin = folder
        # Short: a socket's path must fit in about a hundred bytes.
        self._root = Path(tempfile.mkdtemp(prefix="rushes-pg-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(self._root, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._run("initdb", "--pgdata", str(self._root / "data"), "--username=rushes", "--auth=trust", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql://rushes@/postgres?host={self._root}"

    def fresh_url(self) -> str:
        """An empty schema of its own: as good as an empty database, and quicker."""
        name = f"s{uuid.uuid4().hex}"
        self.sql(f"CREATE SCHEMA {name}")
        return f"{self.url}&options=-csearch_path%3D{name}"

    def sql(self, statement: str) -> None:
        able = "options='-c default_transaction_read_only=off'"  # whatever a test made of the others
        with psycopg.connect(f"host={self._root} user=rushes dbname=postgres {able}", autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def takes_writes(self, does: bool, timeout_s: float = 30.0) -> None:
        """Sessions are read-only, from now on or no more, unless they say otherwise."""
        self.sql(f"ALTER SYSTEM SET default_transaction_read_only = {'off' if does else 'on'}")
        self.sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:  # the server reads its settings when it comes to it
            with psycopg.connect(f"host={self._root} user=rushes dbname=postgres", autocommit=True) as connection:
                found = connection.execute("SHOW default_transaction_read_only").fetchone()
            if found == ("off" if does else "on",):
                return
            time.sleep(0.02)
        raise RuntimeError("postgres does not read its settings")

    def start(self, timeout_s: float = 30.0) -> "PostgresServer":
        """Start the process and wait until it answers."""
        atexit.register(self.stop)
        log = self._root / "postgres.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    str(self._bin / "postgres"),
                    "-D",
                    str(self._root / "data"),
                    "-k",
                    str(self._root),
                    "-c",
                    "listen_addresses=",
                    "-c",
                    "fsync=off",  # For speed: processes die in these tests, machines do not.
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                start_new_session=True,
                **self._as,
            )
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.sql("SELECT 1")
                return self
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"postgres does not answer: {error}\n{log.read_text()[-2000:]}") from error
                time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, with all its sessions; data stays, and is recovered at the next start."""
        if self._process is not None:
            # Not SIGKILL: its children would live on and keep the next one from starting. QUIT is its "immediate".
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=30)
            self._process = None

    def stop(self) -> None:
        """End the process and delete its data. Idempotent."""
        atexit.unregister(self.stop)
        self.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> "PostgresServer":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self._root,
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr or done.stdout}")


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("no user `postgres` or `nobody` to run a Postgres server as")
