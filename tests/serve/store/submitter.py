"""A process that works on a store until it is killed: `submitter.py URL submit|take|chain`.

submit: stores tasks, and prints each id once `submit` has returned.
chain: chains what the audit log was told, a little at a time, and prints how much.
take: leases all pending tasks one by one, prints what it got, and ends when there are none.
"""

import sys

from serve.store.engine import open_store
from tests.serve.store.samples import NOW, new_task


def main(url: str, what: str) -> None:
    store = open_store(url)
    if what == "submit":
        while True:
            (task,) = store.tasks.submit([new_task()], NOW).tasks
            print(task.id, flush=True)
    while what == "chain":
        if count := store.audit.chain(3):
            print(count, flush=True)
    print("ready", flush=True)
    sys.stdin.readline()
    for task in store.tasks.pending():
        for lease in store.tasks.lease([task.seq], "me", "embedded", NOW, NOW):
            print(lease.task_id, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
