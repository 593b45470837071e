"""Put the trained parts together as the diffusers folder that ships."""

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanVACEPipeline

from training.directed.networks import Networks


def scheduler(shift: float, order: int = 2) -> UniPCMultistepScheduler:
    """A sampler on straight paths that is told the clean clip. Of the first order it is the deterministic one that the
    turbo model was distilled for."""
    return UniPCMultistepScheduler(
        prediction_type="sample", use_flow_sigmas=True, flow_shift=shift, solver_order=order, lower_order_final=True
    )


def assemble(vae: AutoencoderKLWan, networks: Networks, shift: float = 2.0, order: int = 2) -> WanVACEPipeline:
    """The pipeline over the trained parts, single precision."""
    return WanVACEPipeline(
        tokenizer=networks.tokenizer,
        text_encoder=networks.text_encoder.eval(),
        vae=vae.eval(),
        scheduler=scheduler(shift, order),
        transformer=networks.transformer.eval().to(torch.float32),
    )
