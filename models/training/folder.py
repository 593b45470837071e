"""Put the trained parts together as the diffusers folder that ships."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline

from models.training.denoiser import Denoiser


def assemble(vae: AutoencoderKLLTXVideo, model: Denoiser, shift: float = 3.0) -> LTXPipeline:
    """The pipeline over the trained parts, on their device."""
    return LTXPipeline(
        tokenizer=model.tokenizer,
        text_encoder=model.text_encoder.eval(),
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        transformer=model.transformer.eval(),
    )


def save(pipeline: LTXPipeline, folder: Path) -> int:
    """Write the pipeline in half precision; returns the bytes of all its files."""
    pipeline.to("cpu").to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # written readable by their owner alone, and this is committed
    # transformers 5 calls the class TokenizersBackend; the older name loads in 4 and in 5.
    for path in (folder / "model_index.json", folder / "tokenizer" / "tokenizer_config.json"):
        path.write_text(path.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
