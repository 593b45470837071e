"""A tiny random pipeline of a class that takes the camera as matrices."""

from typing import Any

from training.tiny_text import BYTE_VOCABULARY, byte_tokenizer


def ltx2_vae(latent_channels: int) -> Any:
    """LTX-2's VAE: eight pixels a latent, two frames."""
    from diffusers import AutoencoderKLLTX2Video

    return AutoencoderKLLTX2Video(
        latent_channels=latent_channels,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatiotemporal",),
        upsample_type=("spatiotemporal",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        patch_size=4,
        encoder_causal=True,
        decoder_causal=False,
    )


def sana_wm() -> Any:
    """SANA-WM: an image, text and camera-to-world matrices to video, over LTX-2's VAE."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SanaWMPipeline,
        SanaWMTransformer3DModel,
    )
    from transformers import Gemma2Config, Gemma2ForCausalLM

    text = Gemma2Config(
        vocab_size=BYTE_VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return SanaWMPipeline(
        tokenizer=byte_tokenizer(4096),
        text_encoder=Gemma2ForCausalLM(text).eval(),
        vae=ltx2_vae(latent_channels=8),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=SanaWMTransformer3DModel(
            in_channels=8,
            num_layers=2,
            hidden_size=32,
            num_attention_heads=2,
            linear_head_dim=16,
            softmax_every_n=2,
            chunk_plucker_channels=12,  # six for each frame of a latent one
            chunk_plucker_post_attn_blocks=2,
            caption_channels=16,
            image_size=64,
        ),
    )
