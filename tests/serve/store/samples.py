"""Tasks to store, and how they end."""

import uuid
from typing import Any

from schemas.clip import Clip, Status, Timings
from schemas.request import Mode, Request
from schemas.task import Group
from serve.store.contract import Store
from serve.tasks import Lease, NewTask, Offer, Outcome, StoredTask

NOW = 1_700_000_000.0


def group(variant: str = "embedded") -> Group:
    return Group(
        variant=variant,
        variant_digest="d1",
        mode=Mode.TEXT_TO_VIDEO,
        width=256,
        height=144,
        frames=17,
        fps=8.0,
        steps=4,
        guidance=1.0,
    )


def new_task(**other: Any) -> NewTask:
    fields: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "key_id": "key-a",
        "kind": "text_to_video",
        "model": "gen4_turbo",
        "request": Request(prompt="a fox 🦊 in the snow", metadata={"shot": [1, None, "x"]}),
        "group": group(),
        "offer": Offer(
            variant="embedded",
            pool="embedded/cpu",
            usd=0.05,
            gpu_s=2.0,
            wait_s=1.0,
            eta_at=NOW + 3,
            eta_p90_at=NOW + 5,
            story=({"variant": "embedded", "chosen": True},),
        ),
        "seed": 2**32 - 1,
    }
    return NewTask(**(fields | other))


def submitted(store: Store, n: int = 1, **other: Any) -> tuple[StoredTask, ...]:
    return store.tasks.submit([new_task(**other) for _ in range(n)], NOW).tasks


def leased(store: Store, task: StoredTask, until: float = NOW + 8) -> Lease:
    (lease,) = store.tasks.lease([task.seq], "replica-1", "embedded", until, NOW + 1)
    return lease


def success(billed_usd: float = 0.04) -> Outcome:
    clip = Clip(uri="s3://clips/a.mp4", sha256="0" * 64, clip_bytes=10, width=256, height=144, frames=17, fps=8.0)
    return Outcome(
        status=Status.SUCCEEDED,
        variant="embedded",
        clip=clip,
        timings=Timings(render_s=1.5),
        billed_usd=billed_usd,
        billed_gpu_s=1.5,
    )


def failure(dead: bool = False) -> Outcome:
    return Outcome(
        status=Status.FAILED, variant="embedded", failure="The model failed.", failure_code="INTERNAL", dead=dead
    )


def ended(store: Store, task: StoredTask, outcome: Outcome | None = None) -> None:
    lease = leased(store, task)
    assert store.tasks.finish(task.id, lease.epoch, outcome or success(), NOW + 2)


def now_of(store: Store, task: StoredTask) -> StoredTask:
    """As it is stored now, hidden or not."""
    (found,) = store.tasks.get_many([task.id])
    return found
