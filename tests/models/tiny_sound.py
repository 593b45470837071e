"""A tiny random pipeline of a class that makes sound with its pictures."""

from typing import Any

from tests.models.tiny_world import ltx2_vae
from training.tiny_text import BYTE_VOCABULARY, byte_tokenizer

RATE_HZ = 16_000
MEL_BINS = 8


def ltx2() -> Any:
    """LTX-2: text to video with two channels of sound at 16 kHz. A mel frame is 160 samples, as in its own weights."""
    from diffusers import (
        AutoencoderKLLTX2Audio,
        FlowMatchEulerDiscreteScheduler,
        LTX2Pipeline,
        LTX2VideoTransformer3DModel,
    )
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    width, layers = 16, 2
    text = Gemma3Config(
        text_config={
            "vocab_size": BYTE_VOCABULARY + 8,
            "hidden_size": width,
            "intermediate_size": 32,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "max_position_embeddings": 2048,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": 8,
            "patch_size": 4,
        },
        mm_tokens_per_image=4,
        image_token_index=BYTE_VOCABULARY,
        boi_token_index=BYTE_VOCABULARY + 1,
        eoi_token_index=BYTE_VOCABULARY + 2,
    )
    return LTX2Pipeline(
        tokenizer=byte_tokenizer(64),
        text_encoder=Gemma3ForConditionalGeneration(text).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=ltx2_vae(latent_channels=4),
        audio_vae=AutoencoderKLLTX2Audio(
            base_channels=4,
            ch_mult=(1, 1, 1),
            num_res_blocks=1,
            resolution=32,
            latent_channels=2,
            mel_bins=MEL_BINS,
            sample_rate=RATE_HZ,
        ),
        connectors=LTX2TextConnectors(
            caption_channels=width,
            text_proj_in_factor=layers + 1,
            video_connector_num_attention_heads=2,
            video_connector_attention_head_dim=8,
            video_connector_num_layers=1,
            video_connector_num_learnable_registers=None,
            audio_connector_num_attention_heads=2,
            audio_connector_attention_head_dim=8,
            audio_connector_num_layers=1,
            audio_connector_num_learnable_registers=None,
            rope_double_precision=False,
        ),
        transformer=LTX2VideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=16,
            cross_attention_dim=32,
            vae_scale_factors=(2, 8, 8),
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=2,
            audio_attention_head_dim=8,
            audio_cross_attention_dim=16,
            num_layers=2,
            caption_channels=width,
            rope_double_precision=False,
        ),
        vocoder=LTX2Vocoder(
            in_channels=2 * MEL_BINS,
            hidden_channels=16,
            upsample_kernel_sizes=[16, 11, 8],
            upsample_factors=[8, 5, 4],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3]],
            output_sampling_rate=RATE_HZ,
        ),
    )
