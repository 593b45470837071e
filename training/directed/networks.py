"""The networks of the directed model beside its VAE, and how training calls them: as `WanVACEPipeline` does."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import WanVACETransformer3DModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from training.directed.control import MASK_CHANNELS
from training.directed.sentences import vocabulary_of_shots
from training.text import build_tokenizer

TRAIN_TIMESTEPS = 1000
PATCH = (1, 2, 2)
"""Latents of a token, in time, height and width: 16×16 pixels of four frames."""


class NetworkConfig(BaseModel):
    """Sizes; the defaults are the recipe."""

    model_config = ConfigDict(frozen=True)

    layers: int = 6
    control_layers: tuple[int, ...] = (0, 3)
    heads: int = 4
    head_dim: int = 48
    ffn: int = 640
    text_dim: int = 96
    text_layers: int = 2
    latent_channels: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Networks:
    """What is trained together, and the tokenizer that both stand on."""

    transformer: WanVACETransformer3DModel
    text_encoder: UMT5EncoderModel
    tokenizer: PreTrainedTokenizerFast

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.transformer.parameters()).device


def build(config: NetworkConfig) -> Networks:
    """The untrained networks, seeded."""
    tokenizer = build_tokenizer(vocabulary_of_shots())
    torch.manual_seed(config.seed)
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=config.text_dim,
            d_kv=config.text_dim // 4,
            d_ff=2 * config.text_dim,
            num_layers=config.text_layers,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )
    torch.manual_seed(config.seed + 1)
    transformer = WanVACETransformer3DModel(
        patch_size=PATCH,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        text_dim=config.text_dim,
        freq_dim=64,
        ffn_dim=config.ffn,
        num_layers=config.layers,
        cross_attn_norm=True,
        rope_max_seq_len=64,
        vace_layers=list(config.control_layers),
        vace_in_channels=2 * config.latent_channels + MASK_CHANNELS,
    )
    return Networks(transformer, text_encoder, tokenizer)


def encode_prompts(networks: Networks, prompts: Sequence[str], length: int) -> Tensor:
    """Embeddings (batch, length, width) as the Wan pipelines make them: zeros where a prompt is over."""
    tokens = networks.tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).to(networks.device)
    hidden: Tensor = networks.text_encoder(tokens.input_ids, tokens.attention_mask)[0]
    return hidden * tokens.attention_mask[..., None]


def read_tokens(encoder: UMT5EncoderModel, tokens: Tensor, length: int, pad: int = 0) -> Tensor:
    """The same of token numbers (batch, at most `length`) of the small UMT5 above, without a wait for the device: what
    a CUDA graph can hold. Padding is not read, so zeros can be set behind."""
    there = tokens != pad
    x: Tensor = encoder.shared(tokens)
    unseen = torch.where(there, 0.0, -1e9)[:, None, None, :]
    stack = encoder.encoder
    for block in stack.block:
        attention, forward = block.layer[0], block.layer[1]
        own = attention.SelfAttention
        q, k, v = (
            part(attention.layer_norm(x)).unflatten(-1, (own.n_heads, -1)).transpose(1, 2)
            for part in (own.q, own.k, own.v)
        )
        bias = own.compute_bias(x.shape[1], x.shape[1], device=x.device)
        seen = (q @ k.mT + bias + unseen).softmax(-1) @ v
        x = x + own.o(seen.transpose(1, 2).flatten(2))
        x = x + forward.DenseReluDense(forward.layer_norm(x))
    hidden: Tensor = stack.final_layer_norm(x) * there[..., None]
    return F.pad(hidden, (0, 0, 0, length - tokens.shape[1]))


def predict(
    transformer: WanVACETransformer3DModel, noisy: Tensor, sigma: Tensor, text: Tensor, control: Tensor
) -> Tensor:
    """The clean latents that the transformer sees in noisy ones (batch, z, frames, height, width) at levels (batch,)
    of noise."""
    said: Tensor = transformer(
        hidden_states=noisy,
        timestep=sigma * TRAIN_TIMESTEPS,
        encoder_hidden_states=text,
        control_hidden_states=control,
        return_dict=False,
    )[0]
    return said


def broad(values: Tensor) -> Tensor:
    """(batch,) → (batch, 1, 1, 1, 1)."""
    return values[:, None, None, None, None]


def shifted(uniform: Tensor, shift: float | Tensor) -> Tensor:
    """Noise levels in (0, 1), moved towards noise by `shift` (Esser et al., 2024, eq. 23)."""
    return shift * uniform / (1 + (shift - 1) * uniform)


def noised(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Latents at levels (batch,) of noise, on the straight path."""
    return (1 - broad(sigma)) * latents + broad(sigma) * noise


def clip_error(said: Tensor, wanted: Tensor, sigma: Tensor) -> Tensor:
    """Weighted square error of clips that were seen in noise. The weight, 1 / (s² + 0.05), is that of a velocity error,
    held back near s = 0."""
    return ((said.float() - wanted).pow(2) / (broad(sigma).pow(2) + 0.05)).mean()
