"""From a catalog entry to a loaded model: classes by name, weights, adapters, scheduler, speed settings.

Weights are loaded once however many modes a variant has: the pipelines of the other modes are built over the
components of the first. (Not with `from_pipe`, which casts the shared components to float32.)
"""

import importlib
import inspect
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.adapters import Adapters
from models.components import CHECKPOINT_FILES, OWN_PIPELINES, index_of, is_hotshot, left_out, ready
from models.conditions import check_adapter, check_weights
from models.controlnet import check_fits, class_for, load_controlnet
from models.families import call_form, check_modes
from models.footage import Footage
from models.guardrail import load_guardrail
from models.ip_adapter import add_ip_adapter, files_of
from models.loaded import LoadedModel
from models.model import Model
from models.motion_loras import add_motion_loras
from models.prompt_cache import MEMORY_BYTES, EmbeddingStore, prompt_cache
from models.quantization import denoiser_from, import_quietly
from models.schedulers import swapped
from models.sharded import ShardedModel
from models.speed import apply_speed
from models.weights import Weights, WeightsStore, explain, find_weights, folder_and_file, is_local, local_path
from schemas.catalog import Adapter, Variant
from schemas.config import read_config
from schemas.errors import RushesError, TransientError, VariantLoadError
from schemas.footage import PIPELINE
from schemas.parts import MotionLora
from schemas.request import Mode

log = logging.getLogger(__name__)


def load(
    variant: Variant,
    *,
    modes: Sequence[Mode] | None = None,
    device: str | None = None,
    cache: Path | None = None,
    store: WeightsStore | None = None,
    prompt_bytes: int = MEMORY_BYTES,
    embeddings: EmbeddingStore | None = None,
) -> LoadedModel:
    """Load `variant` for `modes` (all of its own by default) onto `device` (`cuda` if there is one, else `cpu`).

    `store` fetches `s3://` weights; `cache` is the node's folder for them. Embeddings of texts are kept, up to
    `prompt_bytes`; those of large encoders also in `embeddings`, for other processes. Raises VariantLoadError, naming
    the variant, the setting and the choices; transient errors of the store pass through.
    """
    started = time.perf_counter()
    wanted = tuple(modes or variant.modes)
    absent = [mode.value for mode in wanted if mode not in variant.modes]
    if absent:
        raise _wrong(variant, f"does not render {absent[0]}", (mode.value for mode in variant.modes))
    try:
        return _load(variant, wanted, device, cache, store, started, prompt_bytes, embeddings)
    except TransientError:
        raise
    except VariantLoadError as error:
        text = str(error)
        raise error if variant.name in text else VariantLoadError(f"variant {variant.name!r}: {text}") from error
    except RushesError:
        raise
    except Exception as error:
        raise VariantLoadError(f"variant {variant.name!r}: {explain(error)}") from error


def load_model(variant: Variant, **options: Any) -> Model:
    """As `load`, for whoever renders only: also of the variant that has no weights, and of one on several GPUs, whose
    embeddings no other process gets."""
    if variant.pipeline == PIPELINE:
        return Footage(variant)
    device = options.pop("device", None)
    if variant.needs.gpus > 1 and device != "cpu":
        options.pop("embeddings", None)
        return ShardedModel(variant, int(variant.needs.gpus), device, **options)
    return load(variant, device=device, **options)


def _load(
    variant: Variant,
    modes: tuple[Mode, ...],
    device: str | None,
    cache: Path | None,
    store: WeightsStore | None,
    started: float,
    prompt_bytes: int,
    embeddings: EmbeddingStore | None,
) -> LoadedModel:
    import torch

    quieten()
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        raise _wrong(variant, f"device {chosen!r}: this machine has no CUDA device", ("cpu",))
    classes = {mode: pipeline_class(variant, variant.pipeline_for(mode)) for mode in modes}
    forms = {mode: call_form(cls.__name__, cls.__call__) for mode, cls in classes.items()}
    for mode, form in forms.items():
        check_modes(form, variant, mode)

    def weights_of(source: str, revision: str | None, patterns: Sequence[str] | None = None) -> Weights:
        return find_weights(source, revision, cache=cache, store=store, download=_hub(variant, patterns))

    notes: list[str] = []
    motion = None if variant.motion_adapter is None else weights_of(variant.motion_adapter, None)
    weights = ready(weights_of(variant.weights, variant.revision), cache or read_config().cache_dir, motion)
    dtype = _dtype(variant.dtype, chosen, notes)
    parts = _parts(variant, classes.values(), weights_of, dtype)
    # The one that takes most, as it has the components of all.
    first = max(classes.values(), key=lambda cls: len(_taken(cls, parts)))
    pipe = first.from_pretrained(
        str(weights.folder),
        dtype={"default": dtype, "vae": _dtype(variant.vae_dtype or variant.dtype, chosen, notes)},
        variant=variant.weight_variant,
        use_safetensors=True,
        local_files_only=True,
        **left_out(first, weights.folder)
        | motion_adapter(motion, dtype)
        | _taken(first, parts)
        | _gguf(variant, weights, weights_of, dtype),
    )
    if getattr(pipe, "controlnet", None) is not None:
        denoiser = getattr(pipe, "unet", None) or pipe.transformer
        check_fits(pipe.controlnet, denoiser, (variant.controlnet and variant.controlnet.source) or "in its weights")
    if variant.ip_adapter is not None:
        source = weights_of(variant.ip_adapter.source, variant.ip_adapter.revision, files_of(variant.ip_adapter))
        add_ip_adapter(variant, pipe, variant.ip_adapter, source.folder)
    _add_loras(variant, pipe, weights_of)

    def brought(source: str) -> tuple[Path, str]:
        folder, file = _lora_file(variant, Adapter(source=source), weights_of)
        check_adapter(variant, folder / file)
        return folder, file

    adapters = Adapters(variant.loras, brought)
    if variant.motion_loras is not None:
        add_motion_loras(variant, pipe, lambda lora: _lora_file(variant, lora, weights_of))
        adapters.rest(pipe)
    if variant.scheduler is not None or variant.scheduler_options:
        pipe.scheduler = swapped(variant, pipe.scheduler, variant.scheduler, variant.scheduler_options)
    notes.extend(apply_speed(variant, pipe, chosen))
    pipes = {mode: pipe if cls is first else _sibling(cls, pipe) for mode, cls in classes.items()}
    for mode, own in pipes.items():
        check_weights(variant, mode, own)
    for note in notes:
        log.info("variant %s: %s", variant.name, note)
    return LoadedModel(
        variant=variant,
        revision=weights.revision,
        device=chosen,
        load_s=time.perf_counter() - started,
        notes=tuple(dict.fromkeys(notes)),
        pipes=pipes,
        forms=forms,
        adapters=adapters,
        prompts=prompt_cache(variant, weights.revision, chosen, memory_bytes=prompt_bytes, store=embeddings),
    )


def quieten() -> None:
    """Keep progress bars and advice about optional packages out of the logs of a hundred actors."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.disable_progress_bar()
    import_quietly()


def pipeline_class(variant: Variant, name: str) -> Any:
    """The diffusers pipeline class called `name`. Raises VariantLoadError with the video classes there are."""
    import diffusers

    found = getattr(diffusers, name, None) if name.endswith("Pipeline") else None
    if name in OWN_PIPELINES:
        found = getattr(importlib.import_module(OWN_PIPELINES[name]), name)
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        words = (
            "Video",
            "Wan",
            "LTX",
            "CogVideoX",
            "EasyAnimate",
            "AnimateDiff",
            "Mochi",
            "Allegro",
            "Cosmos",
            "SkyReels",
            "Kandinsky5",
        )
        choices = (n for n in dir(diffusers) if n.endswith("Pipeline") and any(word in n for word in words))
        raise _wrong(variant, f"pipeline {name!r} is no diffusers pipeline", choices)
    return found


def _parts(
    variant: Variant,
    classes: Iterable[Any],
    weights_of: Callable[[str, str | None, Sequence[str]], Weights],
    dtype: Any,
) -> dict[str, Any]:
    """What stands beside the weights, by the names that the classes have for it: networks that the entry names, and the
    guardrail of classes that are not called without one."""
    found: dict[str, Any] = {}
    net = variant.controlnet
    for cls in classes:
        takes = inspect.signature(cls.__init__).parameters
        if net is not None and net.source is not None and "controlnet" in takes and "controlnet" not in found:
            # Also where it is a branch of the repository whose pipeline is loaded: it is none itself.
            folder = weights_of(net.source, net.revision, ("*.safetensors", "*.json")).folder
            found["controlnet"] = load_controlnet(folder, dtype, class_for(cls.__name__))
        if cls.__name__.startswith("Cosmos") and "safety_checker" in takes and "safety_checker" not in found:
            found["safety_checker"] = load_guardrail(cls.__name__)
    return found


def _taken(cls: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if name in inspect.signature(cls.__init__).parameters}


def _sibling(cls: Any, pipe: Any) -> Any:
    """A pipeline of another mode over the components and the settings of `pipe`."""
    accepted = set(inspect.signature(cls.__init__).parameters)
    components = {name: part for name, part in pipe.components.items() if name in accepted}
    settings = {
        name: value
        for name, value in pipe.config.items()
        if name in accepted and name not in components and not name.startswith("_")
    }
    return cls(**components, **settings)


def _dtype(name: str, device: str, notes: list[str]) -> Any:
    import torch

    # Half precision on a CPU is emulated: slower, and several layers have no kernel for it.
    if device == "cpu" and name != "float32":
        notes.append(f"{name} runs as float32 on a CPU")
        return torch.float32
    return getattr(torch, name)


def motion_adapter(motion: Weights | None, dtype: Any) -> dict[str, Any]:
    """AnimateDiff's motion modules as an argument of `from_pretrained`; none where they are in the UNet already."""
    if motion is None or is_hotshot(index_of(motion.folder)):
        return {}
    import diffusers

    adapter = diffusers.MotionAdapter.from_pretrained(str(motion.folder), dtype=dtype, use_safetensors=True)
    return {"motion_adapter": adapter}


def _gguf(
    variant: Variant,
    weights: Weights,
    weights_of: Callable[[str, str | None, Sequence[str]], Weights],
    dtype: Any,
) -> dict[str, Any]:
    """The denoiser of a variant's GGUF file as an argument of `from_pretrained`; none where it has no such file."""
    if variant.speed.gguf is None:
        return {}
    folder, name = folder_and_file(variant.speed.gguf)
    file = local_path(variant.speed.gguf)
    if not is_local(variant.speed.gguf):
        file = weights_of(folder, None, (name,)).folder / name
    if not file.is_file():
        raise _wrong(variant, f"speed.gguf: {variant.speed.gguf}: not there", ())
    return denoiser_from(variant, weights.folder, file, dtype)


def _add_loras(variant: Variant, pipe: Any, weights_of: Callable[[str, str | None, Sequence[str]], Weights]) -> None:
    """Load every LoRA of the variant and set their weights. A single file may stand for its folder."""
    if not variant.loras:
        return
    if not hasattr(pipe, "load_lora_weights"):
        raise _wrong(variant, f"loras: {type(pipe).__name__} takes none", ())
    names: list[str] = []
    for index, lora in enumerate(variant.loras):
        folder, file = _lora_file(variant, lora, weights_of)
        check_adapter(variant, folder / file)
        name = lora.name or f"lora{index}"
        try:
            pipe.load_lora_weights(str(folder), weight_name=file, adapter_name=name, use_safetensors=True)
        except ImportError as error:
            raise _wrong(variant, f"loras need peft: {explain(error)}", ("pip install 'rushes[finetune]'",)) from error
        names.append(name)
    pipe.set_adapters(names, [lora.weight for lora in variant.loras])


def _lora_file(
    variant: Variant, lora: Adapter | MotionLora, weights_of: Callable[[str, str | None, Sequence[str]], Weights]
) -> tuple[Path, str]:
    path = local_path(lora.source)
    if path.suffix == ".safetensors" and path.is_file():
        return path.parent, path.name
    folder = weights_of(lora.source, lora.revision, (lora.weight_file or "*.safetensors",)).folder
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    if lora.weight_file is not None and lora.weight_file in files:
        return folder, lora.weight_file
    if lora.weight_file is None and len(files) == 1:
        return folder, files[0]
    raise _wrong(variant, f"loras: {lora.source} needs a weight_file that is there, got {lora.weight_file!r}", files)


def _hub(variant: Variant, patterns: Sequence[str] | None) -> Callable[[str, str | None], str]:
    """A download of what `variant` needs from a hub repository, in safetensors, into the hub's own shared cache."""

    def download(hub_id: str, revision: str | None) -> str:
        import diffusers
        from huggingface_hub import snapshot_download

        if hub_id == variant.weights and patterns is None:
            index = diffusers.DiffusionPipeline.load_config(hub_id, revision=revision)
            if is_hotshot(index):
                # Named after a package that nobody has; `ready` converts it.
                wanted = [f"*/{pattern}" for pattern in CHECKPOINT_FILES] + ["model_index.json"]
                return str(snapshot_download(hub_id, revision=revision, allow_patterns=wanted))
            return str(
                diffusers.DiffusionPipeline.download(
                    hub_id, revision=revision, variant=variant.weight_variant, use_safetensors=True
                )
            )
        wanted = list(patterns or ("*.safetensors", "*.json"))
        return str(snapshot_download(hub_id, revision=revision, allow_patterns=wanted))

    return download


def _wrong(variant: Variant, what: str, choices: object) -> VariantLoadError:
    listed = ", ".join(map(str, choices)) if hasattr(choices, "__iter__") else ""
    return VariantLoadError(f"variant {variant.name!r}: {what}" + (f"; available: {listed}" if listed else ""))
