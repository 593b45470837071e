"""Tiny random pipelines of classes that make long clips in windows of their own, without several prompts."""

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


def helios() -> Any:
    """Helios, over the same: it sees what it has made through patches of three sizes."""
    from diffusers import HeliosPipeline, HeliosScheduler, HeliosTransformer3DModel

    parts = tiny_dit.wan().components
    return HeliosPipeline(
        tokenizer=parts["tokenizer"],
        text_encoder=parts["text_encoder"],
        vae=parts["vae"],
        scheduler=HeliosScheduler(stages=1, stage_range=[0, 1]),
        transformer=HeliosTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            text_dim=32,
            freq_dim=32,
            ffn_dim=32,
            num_layers=2,
            rope_dim=(4, 4, 4),
        ),
    )


def framepack() -> Any:
    """HunyuanVideo's Framepack, over the text encoders and the VAE of the tiny HunyuanVideo."""
    from diffusers import HunyuanVideoFramepackPipeline, HunyuanVideoFramepackTransformer3DModel
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    vision = SiglipVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    parts = tiny_dit.hunyuanvideo().components
    parts["transformer"] = HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
        image_condition_type=None,
        has_image_proj=True,
        image_proj_dim=8,
        has_clean_x_embedder=True,
    )
    return HunyuanVideoFramepackPipeline(
        **parts,
        image_encoder=SiglipVisionModel(vision).eval(),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
    )
