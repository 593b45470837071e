"""A soak: processes of every kind are killed, over and over, while a bulk run renders and while an endpoint serves.

python -m tests.failures.soak            20 SIGKILLs of each kind; takes about an hour and a half
python -m tests.failures.soak --quick    one of each; some five minutes

At the end every row and every task has exactly one clip, the one that its record tells of: 0 lost, 0 doubled. Who dies
next is drawn from `--seed`. Whoever ends with its Ray is started again by the very same command, as people would.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx

from schemas.clip import Status
from storage import keys
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store
from storage.tables import read_table, table_to_records
from tests.failures import driver
from tests.failures.command import Command, over
from tests.failures.endpoint import Endpoint
from tests.failures.processes import alive, family_of, is_met_within, try_kill, wait_until
from tests.s3_server import S3Server

BULK = ("driver", "actor", "raylet", "gcs", "store")
ENDPOINT = ("driver", "replica", "dispatcher", "ingress", "raylet", "gcs", "store")
# What a process calls itself, on its command line.
_TITLES = {
    "actor": "ray::MapWorker",
    "replica": "ray::ServeReplica:rushes:Pool",
    "dispatcher": "ray::ServeReplica:rushes:Dispatcher",
    "ingress": "ray::ServeReplica:rushes:Ingress",
    "raylet": "/raylet",
    "gcs": "/gcs_server",
}
_ROWS_A_KILL, _TASKS_A_KILL = 40, 6
_QUIET_S, _LOOK_S = 120.0, 0.2
_AT_LEAST = 4  # done between two kills, so that each is of something that works
_SETTINGS = """
[queue]
lease_s = 4.0
heartbeat_s = 0.3
max_attempts = 1000

[pools]
variants = ["small"]
"""


def find(kind: str, root: int) -> int | None:
    """A process of a kind in the family of `root`; `driver` is the root itself."""
    if kind == "driver":
        return root
    for pid in family_of(root):
        with suppress(OSError):
            said = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            first = said[0].decode(errors="replace")
            if _TITLES[kind] in first and alive(pid):
                return pid
    return None


def strike(kind: str, root: int, store: S3Server) -> bool:
    """Kill one; False where there is none just now. The store comes back: no other process would start it again."""
    if kind == "store":
        store.kill()
        store.restart()
        return True
    pid = find(kind, root)
    if pid is None:
        return False
    family = family_of(root)
    try_kill(pid)
    if kind == "driver":  # nobody is left who would end them
        wait_until(lambda: not alive(pid), "the driver's end")
        is_met_within(lambda: not any(map(alive, family)), 30)
        for orphan in family:
            try_kill(orphan)
    return True


def draw(kinds: tuple[str, ...], kills: int, seed: int) -> list[str]:
    plan = [kind for kind in kinds for _ in range(kills)]
    random.Random(seed).shuffle(plan)
    return plan


def bulk(folder: Path, store: S3Server, kills: int, seed: int, say: Callable[[str], None]) -> dict[str, object]:
    """One run under kills; what it lost and doubled."""
    store.make_bucket("soak")
    out = "s3://soak/bulk"
    plan = draw(BULK, kills, seed)
    rows = _ROWS_A_KILL * len(plan)
    command = [*driver.command(folder, out, rows), "--retry-quarantined"]
    clips, starts, done = open_store(out), 0, Counter[str]()
    while True:
        starts += 1
        with (folder / "bulk.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while process.poll() is None and plan:
            # What is killed in vain, while nothing works, must do no harm either.
            is_met_within(partial(_has_gone_on, process, clips, _clips(clips)), _QUIET_S, _LOOK_S)
            if process.poll() is None and strike(plan[0], process.pid, store):
                done[plan[0]] += 1
                say(f"bulk: killed {plan.pop(0)}, {_clips(clips)} of {rows} clips")
        code = process.wait()
        say(f"bulk: start {starts} ended with {code}")
        if code == 0:
            break
        assert starts < 5 * (len(draw(BULK, kills, seed)) + 1), (folder / "bulk.log").read_text()[-3000:]
    records = table_to_records(Ledger(clips).load())
    note = json.loads(clips.get(keys.RUN))
    table = read_table(clips, keys.results_part(note["run_id"], 0))
    named = [record.clip.uri for record in records if record.clip is not None]
    files = driver.clips(clips)
    wrong = [
        record.fingerprint
        for record in records
        if record.clip is None or hashlib.sha256(_body(clips, record.clip.uri)).hexdigest() != record.clip.sha256
    ]
    return {
        "rows": rows,
        "killed": dict(done),
        "starts": starts,
        "lost": rows - sum(status == Status.SUCCEEDED.value for status in table.column("status").to_pylist()),
        "doubled": len(named) - len(set(named)) + max(0, len(files) - rows),
        "wrong": len(wrong),
    }


def serve(folder: Path, store: S3Server, kills: int, seed: int, say: Callable[[str], None]) -> dict[str, object]:
    """One endpoint's load under kills; what it lost and doubled."""
    store.make_bucket("soak")
    command = Command(folder, out="s3://soak/endpoint", settings=_SETTINGS)
    plan = draw(ENDPOINT, kills, seed)
    starts, done, ids = 1, Counter[str](), []
    command.start()
    with over(command) as served:
        for kind in plan:
            ids += _submitted(served, range(len(ids), len(ids) + _TASKS_A_KILL), command)
            is_met_within(partial(_has_fewer, served, tuple(ids), len(_live(served, ids))), _QUIET_S, _LOOK_S)
            assert command.process is not None
            wait_until(partial(strike, kind, command.process.pid, store), f"a {kind}")
            done[kind] += 1
            say(f"endpoint: killed {kind}, {len(_live(served, ids))} of {len(ids)} tasks unfinished")
            if kind in ("driver", "raylet", "gcs"):
                command.process.wait(120)
                starts += 1
                command.start()
        tasks = served.ended(*ids)
        lost = [task.id for task in tasks if task.status is not Status.SUCCEEDED]
        for task in tasks:
            if task.status is Status.SUCCEEDED:
                served.check_clip(task)
        accepted = len({task.request.prompt for task in tasks})
        stored = {info.key.split("/")[1] for info in open_store(served.config.out).list(keys.TASKS)}
        assert command.interrupt() == 0
    return {
        "tasks": len(ids),
        "killed": dict(done),
        "starts": starts,
        "lost": len(lost),
        "doubled": len(ids) - accepted + len(stored - set(ids)),
        "wrong": 0,
    }


def _has_gone_on(process: subprocess.Popen[bytes], store: ObjectStore, before: int) -> bool:
    return process.poll() is not None or _clips(store) >= before + _AT_LEAST


def _has_fewer(served: Endpoint, ids: Sequence[str], before: int) -> bool:
    return len(_live(served, ids)) < max(1, before - 1)


def _submitted(served: Endpoint, numbers: range, command: Command) -> list[str]:
    """Their ids; asked again, by the same key, as long as nobody answers."""
    ids: list[str] = []

    def is_taken(number: int) -> bool:
        with suppress(httpx.HTTPError):
            answer = served.post(f"task {number}", key=f"soak-{number}", numInferenceSteps=20 + number % 7)
            if answer.status_code == 200:
                ids.append(str(answer.json()["id"]))
                return True
        return False

    for number in numbers:
        assert is_met_within(partial(is_taken, number), 120, _LOOK_S), command.log()[-3000:]
    return ids


def _live(served: Endpoint, ids: Sequence[str]) -> list[str]:
    ended = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
    return [task.id for task in served.tasks(ids) if task.status not in ended]


def _clips(store: ObjectStore) -> int:
    counts: list[int] = []

    def is_counted() -> bool:
        with suppress(Exception):  # the store is one of those that are killed
            counts.append(len(driver.clips(store)))
        return bool(counts)

    assert is_met_within(is_counted, 10, _LOOK_S), "the store does not come back"
    return counts[0]


def _body(store: object, uri: str) -> bytes:
    return bytes(store.get(uri.split("/soak/bulk/", 1)[1]))  # type: ignore[attr-defined]


def soak(kills: int, seed: int, parts: tuple[str, ...], say: Callable[[str], None]) -> dict[str, dict[str, object]]:
    """Each part's account."""
    told: dict[str, dict[str, object]] = {}
    with S3Server() as store, tempfile.TemporaryDirectory(prefix="rushes-soak-") as name:
        os.environ.update(store.environment)
        for part in parts:
            folder = Path(name, part)
            folder.mkdir()
            began = time.monotonic()
            told[part] = {"bulk": bulk, "endpoint": serve}[part](folder, store, kills, seed, say)
            told[part]["wall_s"] = round(time.monotonic() - began)
            say(f"{part}: {json.dumps(told[part])}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs of each kind")
    parser.add_argument("--quick", action="store_true", help="one of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=["bulk", "endpoint"], help="only this one")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parts = (asked.part,) if asked.part else ("bulk", "endpoint")
    told = soak(1 if asked.quick else asked.kills, asked.seed, parts, lambda text: print(text, flush=True))
    sys.exit(any(part[what] for part in told.values() for what in ("lost", "doubled", "wrong")))


if __name__ == "__main__":
    main()
