"""What shall go wrong, and what has happened: a folder that every process reads and writes, and that outlives them.

A model stops where a task's deeds say so, until the test lets it go on; nothing here sleeps and hopes.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.failures.processes import TURN_S, wait_until

# Where a model stops: the call has begun, one step is done, the frames are there, the encoder asks for them.
Point = Literal["called", "step", "rendered", "encoding"]

# What is raised: by the model, or while the clip is encoded.
Fault = Literal["memory", "storage"]


@dataclass(frozen=True)
class Deeds:
    """What happens to a task, in each model call that it is part of."""

    hold: tuple[Point, ...] = ()
    die: int = 0  # in so many calls
    fail: tuple[Fault, ...] = ()  # one a call


@dataclass(frozen=True)
class Script:
    """The folder. A prompt names its task, so it is used once."""

    folder: Path

    # what the test says

    def plan(self, prompt: str, **deeds: Any) -> None:
        (self.folder / f"{prompt}.json").write_text(json.dumps(deeds))

    def go_on(self, prompt: str, point: Point) -> None:
        (self.folder / f"{prompt}.{point}.go").touch()

    @contextmanager
    def nothing_held(self) -> Iterator[None]:
        """Whoever stops anywhere goes on."""
        sign = self.folder / "all.go"
        sign.touch()
        try:
            yield
        finally:
            sign.unlink()

    @contextmanager
    def loading(self, variant: str, what: Literal["hold", "fail"]) -> Iterator[None]:
        """Replicas of the variant do not get past loading."""
        sign = self.folder / f"{what}.{variant}"
        sign.touch()
        try:
            yield
        finally:
            sign.unlink()

    def wait(self, what: str, name: str, count: int = 1) -> dict[str, Any]:
        """The `count`th event of its kind, of a task or a variant."""
        wait_until(lambda: len(self.events(what, name)) >= count, f"{what} of {name}, {count} times")
        return self.events(what, name)[count - 1]

    def events(self, what: str, name: str) -> list[dict[str, Any]]:
        log = self.folder / "events.jsonl"
        if not log.exists():
            return []
        told = [json.loads(line) for line in log.read_text().splitlines()]
        return [event for event in told if event["what"] == what and name in event["names"]]

    # what the models ask and say

    def is_said(self, what: Literal["hold", "fail"], variant: str) -> bool:
        return (self.folder / f"{what}.{variant}").exists()

    def deeds_of(self, prompt: str) -> Deeds:
        path = self.folder / f"{prompt}.json"
        if not path.exists():
            return Deeds()
        return Deeds(
            **{name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(path.read_text()).items()}
        )

    def tell(self, what: str, *names: str, **more: Any) -> None:
        line = json.dumps({"what": what, "names": names, "pid": os.getpid(), "at": time.time(), **more})
        with (self.folder / "events.jsonl").open("a") as log:
            log.write(line + "\n")

    def hold(self, prompt: str, point: Point, stopped: Callable[[], bool] = lambda: False) -> None:
        if point not in self.deeds_of(prompt).hold or self._may_go(prompt, point):
            return
        self.tell(f"at {point}", prompt)
        told = False
        while not self._may_go(prompt, point):
            if not told and stopped():
                told = True
                self.tell("told to stop", prompt)
            threading.Event().wait(TURN_S)

    def _may_go(self, prompt: str, point: Point) -> bool:
        return any((self.folder / name).exists() for name in (f"{prompt}.{point}.go", "all.go"))
