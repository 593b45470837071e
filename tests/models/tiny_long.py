"""A tiny random pipeline of a class that makes long clips in windows of its own, without several prompts."""

from typing import Any

from training import tiny_dit


def skyreels_forcing() -> Any:
    """SkyReels V2's diffusion forcing, over the text encoder and the VAE of the tiny Wan."""
    from diffusers import (
        SkyReelsV2DiffusionForcingPipeline,
        SkyReelsV2Transformer3DModel,
        UniPCMultistepScheduler,
    )

    parts = tiny_dit.wan().components
    return SkyReelsV2DiffusionForcingPipeline(
        tokenizer=parts["tokenizer"],
        text_encoder=parts["text_encoder"],
        vae=parts["vae"],
        scheduler=UniPCMultistepScheduler(flow_shift=8.0, use_flow_sigmas=True, prediction_type="flow_prediction"),
        transformer=SkyReelsV2Transformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=256,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            inject_sample_info=True,
        ),
    )
