"""A real model that does what the script says: it stops, fails or dies in the middle of a call or of an encoding."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from models.model import Cancelled, Frames, Model, OnStep, TaskMedia, WrappedModel
from schemas.errors import OutOfMemoryError, PermanentError, StorageUnavailableError, VariantLoadError
from schemas.task import RenderBatch
from tests.failures.processes import wait_until
from tests.failures.script import Point, Script


def held(model: Model, script: Script) -> "HeldModel":
    """The model, once the script lets it load. Raises VariantLoadError where it says so."""
    name = model.variant.name
    script.tell("loading", name)
    wait_until(lambda: not script.is_said("hold", name))
    if script.is_said("fail", name):
        raise VariantLoadError(f"the script says that {name} cannot be loaded")
    return HeldModel(model, script)


class HeldModel(WrappedModel):
    """The model, until the script says otherwise."""

    def __init__(self, model: Model, script: Script) -> None:
        super().__init__(model)
        self._script = script

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | PermanentError, ...]:
        script = self._script
        prompts = [task.prompt for task in batch.tasks]
        ids = {task.prompt: task.fingerprint for task in batch.tasks}
        script.tell("called", *prompts, variant=self.variant.name)

        def hold_all(point: Point) -> None:
            for prompt in prompts:
                script.hold(prompt, point, lambda prompt=prompt: ids[prompt] in cancelled())

        for prompt in prompts:
            calls, deeds = len(script.events("called", prompt)), script.deeds_of(prompt)
            if calls <= deeds.die:
                os.kill(os.getpid(), signal.SIGKILL)
            if calls <= len(deeds.fail) and deeds.fail[calls - 1] == "memory":
                raise OutOfMemoryError(f"the script says so for {prompt!r}")
        hold_all("called")

        def step(done: int, total: int) -> None:
            script.tell("step", *prompts, done=done, total=total)
            on_step(done, total)
            if done == 1:
                hold_all("step")

        clips = self.inner.render(batch, media, step, cancelled)
        hold_all("rendered")
        return tuple(
            _HeldFrames.of(clip, script, prompt) if isinstance(clip, np.ndarray) else clip
            for clip, prompt in zip(clips, prompts, strict=True)
        )


class _HeldFrames(np.ndarray):
    """Frames that stop whoever encodes them."""

    _meet: Callable[[], None] | None = None

    @classmethod
    def of(cls, frames: Frames, script: Script, prompt: str) -> "_HeldFrames":
        held = frames.view(cls)

        def meet() -> None:
            script.hold(prompt, "encoding")
            call, deeds = len(script.events("called", prompt)), script.deeds_of(prompt)
            if call <= len(deeds.fail) and deeds.fail[call - 1] == "storage":
                raise StorageUnavailableError(f"the script says so for {prompt!r}")
            script.tell("encoded", prompt)

        held._meet = meet
        return held

    def __iter__(self) -> Iterator[Any]:
        meet, self._meet = self._meet, None
        if meet is not None:
            meet()
        return iter(self.view(np.ndarray))
