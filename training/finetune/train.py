"""The fine-tuning loop: encode the clips once, then corrupt, predict, regress.

Latents are computed once and kept, as clips are few and the VAE is the slow part. Everything a run leaves is in `out`:
the adapter's safetensors, `log.jsonl`, `loss.png`, `samples/`, and `checkpoint/` to resume from.
"""

import inspect
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.components import left_out, ready
from models.families import call_options
from models.loader import motion_adapter, quieten
from models.weights import find_weights
from schemas.config import read_config
from schemas.errors import VariantLoadError
from training.finetune.adapter import prepare, save
from training.finetune.clips import find_examples, read_clip
from training.finetune.config import FinetuneConfig, FinetuneResult
from training.finetune.curve import draw_curve
from training.finetune.families import Family, Text, family_of
from training.finetune.objective import objective_of

OnStep = Callable[[int, float], None]
"""Told after each step: steps done, its loss."""


def finetune(
    config: FinetuneConfig,
    on_step: OnStep | None = None,
    *,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
) -> FinetuneResult:
    """Run it. `wrap` makes the denoiser distributed (see `distributed.py`).

    Raises MediaError for data that cannot be read, VariantLoadError for a variant that cannot be trained so.
    """
    started = time.monotonic()
    run = _train(config, config.seed, on_step, wrap, leads=True)
    losses = run.losses()
    return FinetuneResult(
        adapter=config.out,
        steps=config.steps,
        first_loss=float(np.mean(losses[:20])),
        last_loss=float(np.mean(losses[-20:])),
        curve=draw_curve(losses, config.out / "loss.png"),
        log=run.log_path,
        samples=tuple(sorted((config.out / "samples").glob("*.png"))),
        seconds=time.monotonic() - started,
    )


def follow(config: FinetuneConfig, rank: int, wrap: Callable[[nn.Module], nn.Module]) -> None:
    """The same steps on other batches, in a process that leaves all files to the first one."""
    _train(config, config.seed + rank, None, wrap, leads=False)


def _train(
    config: FinetuneConfig,
    seed: int,
    on_step: OnStep | None,
    wrap: Callable[[nn.Module], nn.Module] | None,
    *,
    leads: bool,
) -> "_Run":
    device = torch.device(_device(config.device))
    pipeline = load_pipeline(config).to(device)
    pipeline.set_progress_bar_config(disable=True)
    family, denoiser = family_of(pipeline, config.call_options)
    trained = prepare(config, pipeline, family, denoiser)
    checkpointing = device.type == "cuda" if config.gradient_checkpointing is None else config.gradient_checkpointing
    if checkpointing:
        denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    latents, prompts = encode_clips(config, family, device)
    texts = _encode_texts(family, prompts)
    run = _Run(config, pipeline, family, denoiser, trained, device, leads=leads)
    first = run.restore() if config.resume else 0
    if wrap is not None:  # once all processes have read what they resume from, and before the first one writes
        wrap(denoiser)
    if first == 0:
        run.forget()
    rng = np.random.default_rng([seed, first])
    torch.manual_seed(seed * 1_000_003 + first)
    for step in range(first, config.steps):
        rows = torch.from_numpy(rng.integers(0, len(latents), config.batch)).to(device)
        kept = torch.where(
            torch.from_numpy(rng.random(config.batch)).to(device) < config.prompt_drop, len(prompts), rows
        )
        # A trained text encoder has to be asked anew each step; a frozen one has answered already.
        text = _encode_texts(family, [*prompts, ""], kept) if config.text_encoder else texts.pick(kept)
        loss = run.step(step, latents[rows].float(), text)
        if on_step is not None:
            on_step(step + 1, loss)
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            run.checkpoint(step + 1)
        if config.sample_every and (step + 1) % config.sample_every == 0:
            run.sample(step + 1)
    return run


def load_pipeline(config: FinetuneConfig) -> Any:
    """The pipeline in single precision. Raises VariantLoadError when it cannot be had."""
    import diffusers

    quieten()
    cls = getattr(diffusers, config.pipeline, None)
    if cls is None:
        raise VariantLoadError(f"diffusers has no pipeline {config.pipeline!r}")
    motion = find_weights(config.motion_adapter, download=_download) if config.motion_adapter is not None else None
    weights = find_weights(config.weights, config.revision, download=_download)
    folder = ready(weights, read_config().cache_dir, motion).folder
    parts = left_out(cls, folder) | motion_adapter(motion, torch.float32)
    return cls.from_pretrained(folder, dtype=torch.float32, **parts)


def _download(hub_id: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(hub_id, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"])


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


@torch.no_grad()
def encode_clips(config: FinetuneConfig, family: Family, device: torch.device) -> tuple[Tensor, list[str]]:
    """Latents of all clips, half precision, on the device, and their prompts."""
    examples = find_examples(config.data)
    made = []
    for example in examples:
        frames = torch.from_numpy(read_clip(example.path, config.width, config.height, config.frames))
        clip = frames.permute(3, 0, 1, 2).float().div(127.5).sub(1)[None].to(device)
        made.append(family.encode(clip)[0].half())
    return torch.stack(made), [example.prompt for example in examples]


def _encode_texts(family: Family, prompts: list[str], rows: Tensor | None = None) -> Text:
    """All prompts and, last, the empty one; or the chosen rows, with gradients."""
    if rows is None:
        with torch.no_grad():
            return family.text([*prompts, ""])
    return family.text([prompts[int(row)] for row in rows])


class _Run:
    """The state of one run: optimiser, files, and the few things that every step needs."""

    def __init__(
        self, config: FinetuneConfig, pipeline: Any, family: Family, denoiser: nn.Module,
        trained: list[nn.Parameter], device: torch.device, *, leads: bool,
    ) -> None:  # fmt: skip
        self._leads = leads
        self._config = config
        self._pipeline = pipeline
        self._family = family
        self._denoiser = denoiser
        self._trained = trained
        self._device = device
        self._objective = objective_of(pipeline.scheduler, config.shift)
        self._optimiser = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.0)
        self.log_path = config.out / "log.jsonl"
        self._state_path = config.out / "checkpoint" / "state.safetensors"
        self._state_path.parent.mkdir(parents=True, exist_ok=True)

    def step(self, step: int, clean: Tensor, text: Text) -> float:
        """One optimiser step; returns and logs its loss."""
        config = self._config
        for group in self._optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
        noisy, timestep, target = self._objective.corrupt(clean, torch.randn_like(clean))
        with self._mixed():
            made = self._family.predict(noisy, timestep, text, config.fps)
        loss = ((made.float() - target).pow(2).flatten(1).mean(1) * self._objective.weight(timestep)).mean()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimiser.step()
        value = float(loss.detach())
        if self._leads:
            with self.log_path.open("a") as log:
                log.write(json.dumps({"step": step + 1, "loss": round(value, 6)}) + "\n")
        return value

    def _mixed(self) -> AbstractContextManager[Any]:
        # bfloat16 needs no loss scaling; on a CPU small models gain nothing from it.
        return torch.autocast("cuda", dtype=torch.bfloat16) if self._device.type == "cuda" else nullcontext()

    def checkpoint(self, step: int) -> None:
        """Write the adapter and what it takes to go on from here. No pickles: weights beside one are not loaded."""
        if not self._leads:
            return
        save(self._config, self._pipeline, self._denoiser, self._config.out)
        tensors = {"step": torch.tensor(step)}
        for index, parameter in enumerate(self._trained):
            tensors[f"{index}.value"] = parameter.detach()
            for name, value in self._optimiser.state[parameter].items():
                tensors[f"{index}.{name}"] = value
        unfinished = self._state_path.with_suffix(".tmp")
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, unfinished)
        unfinished.replace(self._state_path)

    def restore(self) -> int:
        """Go back to the last checkpoint, if there is one; returns its step."""
        if not self._state_path.exists():
            return 0
        tensors = load_file(self._state_path)
        step = int(tensors.pop("step"))
        state = self._optimiser.state_dict()
        state["state"] = {}
        with torch.no_grad():
            for name, value in tensors.items():
                index, _, part = name.partition(".")
                if part == "value":
                    self._trained[int(index)].copy_(value)
                else:
                    state["state"].setdefault(int(index), {})[part] = value
        self._optimiser.load_state_dict(state)
        if not self._leads:
            return step
        # Steps after the checkpoint will be made again: their lines would stand twice in the log.
        lines = [line for line in self.log_path.read_text().splitlines() if json.loads(line)["step"] <= step]
        self.log_path.write_text("".join(line + "\n" for line in lines))
        return step

    def forget(self) -> None:
        """Start from nothing: an earlier run's log would mix with this one's."""
        if self._leads:
            self.log_path.unlink(missing_ok=True)

    def losses(self) -> list[float]:
        """Every step's loss so far."""
        return [float(json.loads(line)["loss"]) for line in self.log_path.read_text().splitlines()]

    @torch.no_grad()
    def sample(self, step: int) -> None:
        """Render the sample prompts with the present weights; a strip of five frames each."""
        if not self._leads:
            return
        config = self._config
        folder = config.out / "samples"
        folder.mkdir(exist_ok=True)
        for index, prompt in enumerate(config.sample_prompts):
            frames = render(self._pipeline, config, prompt, config.seed + index)
            from PIL import Image

            chosen = np.linspace(0, len(frames) - 1, 5).round().astype(int)
            Image.fromarray(np.concatenate(list(frames[chosen]), axis=1)).save(folder / f"{step:06d}_{index}.png")


def render(pipeline: Any, config: FinetuneConfig, prompt: str, seed: int) -> np.ndarray:
    """One clip (frames, height, width, 3), 8 bit, from the pipeline as it stands."""
    taken = inspect.signature(type(pipeline).__call__).parameters
    options = {name: value for name, value in call_options(config.call_options).items() if name in taken}
    if type(pipeline).__name__.startswith("LTX"):
        options["frame_rate"] = config.fps
    made = pipeline(
        prompt, width=config.width, height=config.height, num_frames=config.frames,
        num_inference_steps=config.sample_steps, guidance_scale=config.sample_guidance,
        generator=torch.Generator().manual_seed(seed), output_type="np", **options,
    ).frames[0]  # fmt: skip
    return np.rint(np.clip(np.asarray(made), 0, 1) * 255).astype(np.uint8)
