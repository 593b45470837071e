"""A process that tells the audit log of a run until it is killed: `audit_teller.py OUT LOG POSITION HASH`, of its head.

Prints how many tasks it told of and then recorded, as an actor does. Two of them tell of the same tasks.
"""

import sys

from actors.audit_trail import RunAudit, actor_trail, task_ended
from schemas.audit import AuditPrompts, Head
from schemas.clip import Clip, Record, Status
from schemas.task import Task
from storage.ledger import Ledger
from storage.store import open_store


def main(out: str, log: str, position: str, digest: str) -> None:
    store = open_store(out)
    run = RunAudit("r1", "user:me@here", AuditPrompts.KEEP, Head(log, int(position), digest))
    trail, ledger = actor_trail(store, run, "p1"), Ledger(store)
    number = 0
    while True:
        tasks = [Task(f"{number + place + 1:032x}", f"clip {number + place}", "", 7) for place in range(3)]
        records = [_record(task) for task in tasks]
        trail.tell([task_ended(*pair, run, 1.8e9) for pair in zip(tasks, records, strict=True)])
        ledger.write_many(records)
        number += 3
        print(number, flush=True)


def _record(task: Task) -> Record:
    sha256 = task.fingerprint * 2
    clip = Clip(uri=f"s3://b/{task.fingerprint}.mp4", sha256=sha256, clip_bytes=1, width=8, height=8, frames=1, fps=8.0)
    return Record(
        fingerprint=task.fingerprint,
        status=Status.SUCCEEDED,
        variant="v",
        seed=7,
        clip=clip,
        finished_at="2099-01-01T00:00:00+00:00",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
