"""Put the trained parts together as the diffusers folder that ships."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline, UniPCMultistepScheduler

from training.denoiser import Denoiser


def scheduler(shift: float) -> UniPCMultistepScheduler:
    """A second-order sampler on straight paths that is told the clean clip: what the denoiser was trained to say."""
    return UniPCMultistepScheduler(prediction_type="sample", use_flow_sigmas=True, flow_shift=shift)


def assemble(vae: AutoencoderKLLTXVideo, model: Denoiser, shift: float = 2.0) -> LTXPipeline:
    """The pipeline over the trained parts, on their device."""
    return LTXPipeline(
        tokenizer=model.tokenizer,
        text_encoder=model.text_encoder.eval(),
        vae=vae.eval(),
        scheduler=scheduler(shift),
        transformer=model.transformer.eval(),
    )


def save(pipeline: LTXPipeline, folder: Path) -> int:
    """Write the pipeline in half precision; returns the bytes of all its files."""
    pipeline.to("cpu").to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # written readable by their owner alone, and this is committed
    for path in folder.rglob("config.json"):  # where the parts lay while they were made is nobody's business
        told = json.loads(path.read_text())
        told.pop("_name_or_path", None)
        path.write_text(json.dumps(told, indent=2) + "\n")
    # transformers 5 calls the class TokenizersBackend; the older name loads in 4 and in 5.
    for path in (folder / "model_index.json", folder / "tokenizer" / "tokenizer_config.json"):
        path.write_text(path.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
