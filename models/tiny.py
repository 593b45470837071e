"""Tiny, randomly initialised diffusers pipelines: real classes, real files, no meaning in the pictures.

`build("wan", folder)` makes one from a fixed seed and saves it with `save_pretrained`; it then loads with a plain
`from_pretrained(folder)`, like any checkpoint from the hub. Tests render with them, and `tiny-random` in the catalog
is one. Each is a few MB at most. The sizes follow the ones that diffusers' own tests use.

    python -m models.tiny wan OUT
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.tiny_text import (
    BYTE_VOCABULARY,
    byte_tokenizer,
    clip_text_encoder,
    clip_tokenizer,
    clip_vision_encoder,
    llama_encoder,
    qwen_encoder,
    t5_encoder,
)

SEED = 20


def wan() -> Any:
    """Text, image and video to video with one set of weights, in the form of Wan 2.2 TI2V (`expand_timesteps`)."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    text = UMT5Config(
        vocab_size=BYTE_VOCABULARY,
        d_model=32,
        d_ff=64,
        d_kv=8,
        num_heads=4,
        num_layers=2,
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
            text_dim=32,
            freq_dim=32,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=256,
        ),
        expand_timesteps=True,
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


def cogvideox_image() -> Any:
    """CogVideoX-5b-I2V's form."""
    return cogvideox(in_channels=32)


def _image_vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=2,
    )


def animatediff() -> Any:
    """AnimateDiff over a Stable Diffusion 1.5 in small: text and video to video."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter, UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(8, 8),
        layers_per_block=2,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=2,
    )
    return AnimateDiffPipeline(
        vae=_image_vae(),
        text_encoder=clip_text_encoder(hidden=8),
        tokenizer=clip_tokenizer(),
        unet=unet,
        motion_adapter=MotionAdapter(
            block_out_channels=(8, 8),
            motion_layers_per_block=2,
            motion_norm_num_groups=2,
            motion_num_attention_heads=4,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False, steps_offset=1
        ),
    )


def svd() -> Any:
    """Stable Video Diffusion: an image and no prompt."""
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPImageProcessor

    return StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4, latent_channels=4
        ),
        image_encoder=clip_vision_encoder(),
        unet=UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=8,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=32,
            num_attention_heads=8,
            projection_class_embeddings_input_dim=96,
            addition_time_embed_dim=32,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            interpolation_type="linear",
            prediction_type="v_prediction",
            use_karras_sigmas=True,
        ),
        feature_extractor=CLIPImageProcessor(crop_size=224, size=224),
    )


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


BUILDERS: Mapping[str, Callable[[], Any]] = {
    "wan": wan,
    "ltx": ltx,
    "cogvideox": cogvideox,
    "cogvideox-image": cogvideox_image,
    "animatediff": animatediff,
    "svd": svd,
    "mochi": mochi,
    "hunyuanvideo": hunyuanvideo,
    "hunyuanvideo15": hunyuanvideo15,
}


def build(family: str, folder: Path, dtype: str = "float32") -> Path:
    """Make the tiny pipeline of `family` from a fixed seed and save it into `folder`, which is returned.

    Raises KeyError for a family that BUILDERS does not have.
    """
    import torch

    builder = BUILDERS[family]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        pipeline = builder()
    if dtype != "float32":
        pipeline.to(dtype=getattr(torch, dtype))
    pipeline.save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # written readable by their owner alone, and this may be committed
    # transformers 5 calls the class TokenizersBackend; the older name loads in 4 and in 5.
    for path in (folder / "model_index.json", *folder.glob("tokenizer*/tokenizer_config.json")):
        path.write_text(path.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))
    return folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m models.tiny", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("family", choices=sorted(BUILDERS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    options = parser.parse_args(arguments)
    build(options.family, options.folder, options.dtype)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: a tiny random {options.family}, {size / 2**20:.2f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
