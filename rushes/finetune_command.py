"""`rushes finetune`: teach a variant something new from captioned clips."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rushes.exits import Exit, fail
from schemas.errors import ConfigError, RushesError

_err = Console(stderr=True)


def finetune(
    variant: Annotated[str, typer.Option("--variant", help="The catalog's variant to start from.")],
    data: Annotated[
        str,
        typer.Option("--data", help="A folder of clips with captions, a manifest, or a results table; s3:// too."),
    ],
    out: Annotated[str, typer.Option("--out", help="Where the adapter goes: a folder or s3://bucket/prefix.")],
    lora: Annotated[int, typer.Option("--lora", min=1, help="The LoRA's rank.")] = 16,
    full: Annotated[bool, typer.Option("--full", help="Train all weights of the denoiser instead of a LoRA.")] = False,
    layers: Annotated[
        str, typer.Option("--layers", help="all, spatial or temporal, where the family has both.")
    ] = "all",
    text_encoder: Annotated[bool, typer.Option("--text-encoder", help="Train the text encoder too.")] = False,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 300,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Clips a step, of one process.")] = 4,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=0.0, help="Of AdamW.")] = 1e-3,
    width: Annotated[int | None, typer.Option("--width", help="Pixels; without it, the variant's own.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="Pixels; without it, the variant's own.")] = None,
    frames: Annotated[int | None, typer.Option("--frames", help="Of a clip; without it, the variant's own.")] = None,
    sample_every: Annotated[int, typer.Option("--sample-every", help="Steps between sample clips; 0 for none.")] = 0,
    sample_prompt: Annotated[list[str] | None, typer.Option("--sample-prompt", help="May be given many times.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of noise and order.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="More than one: by Ray Train, one process a GPU.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew in an --out that holds something.")
    ] = False,
    catalog: Annotated[str | None, typer.Option("--catalog", help="A catalog file (TOML).")] = None,
) -> None:
    """Train a LoRA (or, with `--full`, all weights) of VARIANT on captioned clips.

    The result goes into a catalog entry as `loras = [{ source = "OUT" }]`, or into plain diffusers by
    `load_lora_weights(OUT)`. Beside it: the loss curve, the log, samples, a checkpoint.
    """
    from pipelines.catalogs import open_catalog
    from rushes.training_data import check_examples, on_this_machine
    from schemas.config import read_config
    from storage.store import open_store
    from training.finetune.config import config_for
    from training.finetune.distributed import finetune_on_workers
    from training.finetune.train import finetune as train

    try:
        entries = open_catalog(catalog, read_config())
        found = entries.find(variant)
        if found is None:
            raise ConfigError(f"--variant: unknown variant {variant!r}; available: {', '.join(entries.names[1:])}")
        native = found.shape.default()
        if not resume and not overwrite and (there := next(iter(open_store(out).list()), None)) is not None:
            raise ConfigError(
                f"--out: {out} is not empty ({there.key}); available: --resume, --overwrite, another folder"
            )
        remote = out.startswith("s3://")
        folder = Path(tempfile.mkdtemp(prefix="rushes-finetune-")) if remote else Path(out)
        if remote and resume:
            for info in open_store(out).list():
                open_store(out).download(info.key, folder / info.key)
        scratch = tempfile.TemporaryDirectory(prefix="rushes-clips-")
        clips = on_this_machine(data, Path(scratch.name))
        check_examples(data, clips)
        config = config_for(
            found,
            clips,
            folder,
            lora_rank=None if full else lora,
            layers=layers,
            text_encoder=text_encoder,
            steps=steps,
            batch=batch,
            learning_rate=learning_rate,
            width=width or native.width,
            height=height or native.height,
            frames=frames or native.frames,
            sample_every=sample_every,
            sample_prompts=tuple(sample_prompt or ()),
            seed=seed,
            device=device,
            resume=resume,
        )
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}"))
        with Progress(*columns, TimeRemainingColumn(), console=_err) as progress:
            bar = progress.add_task("train", total=steps, loss=float("nan"))
            told = (
                train(config, lambda done, loss: progress.update(bar, completed=done, loss=loss)) if gpus == 1 else None
            )
        told = told or finetune_on_workers(config, gpus)
        if remote:
            store = open_store(out)
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                store.put(path.relative_to(folder).as_posix(), path)
    except ValidationError as error:
        first = error.errors()[0]
        fail(ConfigError(f"{'.'.join(map(str, first['loc'])) or 'options'}: {first['msg']}"))
    except RushesError as error:
        fail(error)
    except KeyboardInterrupt:
        _err.print("\nStopped. The last checkpoint is kept; the same command with --resume goes on.", markup=False)
        raise typer.Exit(Exit.INTERRUPTED) from None
    _err.print(f"loss {told.first_loss:.4f} → {told.last_loss:.4f} in {told.seconds:.0f} s; curve: {told.curve}")
    print(out)
