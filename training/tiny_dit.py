"""Tiny random pipelines whose denoiser is a transformer: Wan, LTX, CogVideoX, Mochi, HunyuanVideo."""

from typing import Any

from training.tiny_text import (
    BYTE_VOCABULARY,
    byte_tokenizer,
    chat_tokenizer,
    clip_text_encoder,
    clip_tokenizer,
    llama_encoder,
    qwen2_vl_encoder,
    qwen_encoder,
    t5_encoder,
)


def wan(text_width: int = 32, text_layers: int = 2) -> Any:
    """Text, image and video to video with one set of weights, in the form of Wan 2.2 TI2V (`expand_timesteps`).

    `text_width` and `text_layers` are of the text encoder, which benchmarks want larger."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    text = UMT5Config(
        vocab_size=BYTE_VOCABULARY,
        d_model=text_width,
        d_ff=2 * text_width,
        d_kv=8,
        num_heads=4,
        num_layers=text_layers,
        pad_token_id=0,
        eos_token_id=1,
    )
    return WanPipeline(
        tokenizer=byte_tokenizer(512),
        text_encoder=UMT5EncoderModel(text).eval(),
        vae=AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=text_width,
            freq_dim=32,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=256,
        ),
        expand_timesteps=True,
    )


def wan_vace() -> Any:
    """Wan 2.1 VACE: text, and a control video with a mask and references, with one set of weights."""
    from diffusers import WanVACEPipeline, WanVACETransformer3DModel

    parts = wan().components
    plain = parts["transformer"].config
    kept = ("patch_size", "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "text_dim")
    transformer = WanVACETransformer3DModel(
        **{name: plain[name] for name in (*kept, "freq_dim", "ffn_dim", "num_layers", "rope_max_seq_len")},
        vace_layers=[0],
        vace_in_channels=96,
    )
    return WanVACEPipeline(
        tokenizer=parts["tokenizer"],
        text_encoder=parts["text_encoder"],
        vae=parts["vae"],
        scheduler=parts["scheduler"],
        transformer=transformer,
    )


def ltx() -> Any:
    """LTX-Video 0.9.0's form: text and image to video."""
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )

    return LTXPipeline(
        tokenizer=byte_tokenizer(128),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLLTXVideo(
            in_channels=3,
            out_channels=3,
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            decoder_inject_noise=(False, False, False, False, False),
            upsample_residual=(False, False, False, False),
            upsample_factor=(1, 1, 1, 1),
            timestep_conditioning=False,
            patch_size=1,
            patch_size_t=1,
            encoder_causal=True,
            decoder_causal=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            patch_size=1,
            patch_size_t=1,
            num_attention_heads=4,
            attention_head_dim=8,
            cross_attention_dim=32,
            num_layers=1,
            caption_channels=32,
        ),
    )


def cogvideox(in_channels: int = 16) -> Any:
    """CogVideoX-2b's form: text and video to video. The image-to-video form takes twice the channels."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXImageToVideoPipeline,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    with_image = in_channels > 16
    pipeline = CogVideoXImageToVideoPipeline if with_image else CogVideoXPipeline
    return pipeline(
        tokenizer=byte_tokenizer(32),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLCogVideoX(
            in_channels=3,
            out_channels=3,
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=16,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        ),
        scheduler=CogVideoXDDIMScheduler(),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=4,
            # Rotary frequencies are split over time, height and width: 16 divides, 8 does not.
            attention_head_dim=16,
            in_channels=in_channels,
            out_channels=16,
            time_embed_dim=2,
            text_embed_dim=32,
            num_layers=1,
            sample_width=8,
            sample_height=8,
            sample_frames=9,
            patch_size=2,
            temporal_compression_ratio=4,
            max_text_seq_length=32,
            use_rotary_positional_embeddings=True,
        ),
    )


def cogvideox_control() -> Any:
    """CogVideoX-Fun's control form: a control video's latents beside the noisy ones."""
    from diffusers import CogVideoXFunControlPipeline

    return CogVideoXFunControlPipeline(**cogvideox(in_channels=32).components)


def cogvideox_image() -> Any:
    """CogVideoX-5b-I2V's form."""
    return cogvideox(in_channels=32)


def easyanimate_control(shown: int = 16) -> Any:
    """EasyAnimate V5.1's control form; `shown` channels beside the first frame's: of a control video 16, of rays 6."""
    from models.easyanimate import EasyAnimateControlPipeline

    return EasyAnimateControlPipeline(**_easyanimate(16 + shown + 16))


def easyanimate_camera() -> Any:
    """The same, told the camera."""
    return easyanimate_control(shown=6)


def easyanimate_inpaint() -> Any:
    """EasyAnimate V5.1's InP form: a mask and what is known beside the noise."""
    from models.easyanimate import EasyAnimateInpaintPipeline

    return EasyAnimateInpaintPipeline(**_easyanimate(16 + 1 + 16))


def _easyanimate(in_channels: int) -> dict[str, Any]:
    from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel, FlowMatchEulerDiscreteScheduler

    in_time = ("SpatialTemporalDownBlock3D", "SpatialTemporalUpBlock3D")
    return {
        "tokenizer": chat_tokenizer(),
        "text_encoder": qwen2_vl_encoder(),
        "vae": AutoencoderKLMagvit(
            latent_channels=16,
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("SpatialDownBlock3D", *in_time[:1] * 3),
            up_block_types=("SpatialUpBlock3D", *in_time[1:] * 3),
            layers_per_block=1,
            norm_num_groups=2,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "transformer": EasyAnimateTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=in_channels,
            out_channels=16,
            patch_size=2,
            num_layers=1,
            mmdit_layers=1,
            time_embed_dim=8,
            text_embed_dim=16,
            sample_width=8,
            sample_height=8,
        ),
    }


def mochi() -> Any:
    """Mochi 1."""
    from diffusers import (
        AutoencoderKLMochi,
        FlowMatchEulerDiscreteScheduler,
        MochiPipeline,
        MochiTransformer3DModel,
    )

    return MochiPipeline(
        tokenizer=byte_tokenizer(256),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLMochi(
            latent_channels=12,
            out_channels=3,
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=MochiTransformer3DModel(
            patch_size=2,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=12,
            out_channels=None,
            qk_norm="rms_norm",
            text_embed_dim=32,
            time_embed_dim=4,
            activation_fn="swiglu",
            max_sequence_length=256,
        ),
    )


def hunyuanvideo() -> Any:
    """HunyuanVideo: guidance is an input of the network."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )

    return HunyuanVideoPipeline(
        text_encoder=llama_encoder(),
        # The prompt comes last in a long template: cut at the front, or every prompt would read the same.
        tokenizer=byte_tokenizer(256, truncation_side="left"),
        text_encoder_2=clip_text_encoder(hidden=8),
        tokenizer_2=clip_tokenizer(),
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
        ),
        transformer=HunyuanVideoTransformer3DModel(
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
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def hunyuanvideo15() -> Any:
    """HunyuanVideo 1.5: guidance by a guider, and no callback."""
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )
    from transformers import ByT5Tokenizer

    tokenizer = byte_tokenizer(1108, truncation_side="left")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return HunyuanVideo15Pipeline(
        text_encoder=qwen_encoder(),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(384),
        tokenizer_2=ByT5Tokenizer(),
        vae=AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=(16, 16, 16, 16, 16), layers_per_block=1),
        transformer=HunyuanVideo15Transformer3DModel(
            in_channels=9,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_refiner_layers=1,
            text_embed_dim=16,
            text_embed_2_dim=32,
            image_embed_dim=12,
            rope_axes_dim=(2, 2, 4),
            target_size=16,
            task_type="t2v",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )
