"""VAEs of several families in the forms of real ones, but with few channels: to time and to compare, not to look at.

Those of the tiny pipelines (`training/tiny.py`) are so small that a call costs more than its arithmetic.
"""

from typing import Any

from models.weights import EMBEDDED


def narrow_vaes() -> dict[str, tuple[Any, int, int]]:
    """By name, each with frames and side of a video to show it; the two that ship, then others of random weights."""
    import diffusers

    few = {"block_out_channels": (32, 64, 64, 128), "norm_num_groups": 8}
    mochi = {f"{part}_block_out_channels": (32, 64, 64, 128) for part in ("encoder", "decoder")}
    ltx = {"block_out_channels": (32, 64, 64, 64), "decoder_block_out_channels": (32, 64, 64, 64)}
    return {
        "directed": (diffusers.AutoencoderKLWan.from_pretrained(EMBEDDED / "directed/vae"), 17, 128),
        "shapes": (diffusers.AutoencoderKLLTXVideo.from_pretrained(EMBEDDED / "shapes/vae"), 17, 64),
        "Wan, 32 channels": (diffusers.AutoencoderKLWan(base_dim=32), 9, 64),
        "Wan, 96 channels": (diffusers.AutoencoderKLWan(base_dim=96), 5, 64),
        "LTX": (diffusers.AutoencoderKLLTXVideo(**ltx), 9, 128),
        "CogVideoX": (diffusers.AutoencoderKLCogVideoX(**few), 5, 64),
        "HunyuanVideo": (diffusers.AutoencoderKLHunyuanVideo(**few), 5, 64),
        "HunyuanVideo 1.5": (diffusers.AutoencoderKLHunyuanVideo15(block_out_channels=(32, 64, 64, 64, 64)), 5, 64),
        "Mochi": (diffusers.AutoencoderKLMochi(**mochi, layers_per_block=(1, 1, 2, 2, 1)), 7, 64),
        "EasyAnimate": (diffusers.AutoencoderKLMagvit(**{**few, "block_out_channels": (32, 64, 64, 64)}), 5, 64),
    }
