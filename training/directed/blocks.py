"""The blocks of a `WanVACETransformer3DModel` as one function of their parts: what a compiler has to look at once.

Both kinds of blocks do the same between their projections. Compiled as they are, each kind costs a compilation of its
own, forwards and backwards; as one function with the parts as arguments they share one.
"""

from collections.abc import Callable

import torch
import torch._dynamo
import torch.fx.experimental._config
from diffusers import WanVACETransformer3DModel
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformerBlock
from torch import Tensor, nn

_Rotary = tuple[Tensor, Tensor]


def block(
    norms: tuple[nn.Module, nn.Module, nn.Module],
    attentions: tuple[nn.Module, nn.Module],
    feed_forward: nn.Module,
    table: Tensor,
    hidden: Tensor,
    text: Tensor,
    level: Tensor,
    rotary: _Rotary,
) -> Tensor:
    """Self-attention, cross-attention and feed-forward, moved by the noise level; `hidden` (batch, tokens, width) is
    in single precision, as what comes out is."""
    shift, scale, gate, shift_forward, scale_forward, gate_forward = (table + level).chunk(6, dim=1)
    hidden = hidden + attentions[0](norms[0](hidden) * (1 + scale) + shift, None, None, rotary) * gate
    hidden = hidden + attentions[1](norms[1](hidden), text, None, None)
    return hidden + feed_forward(norms[2](hidden) * (1 + scale_forward) + shift_forward) * gate_forward


def _parts(module: nn.Module) -> tuple[object, ...]:
    return (
        (module.norm1, module.norm2, module.norm3),
        (module.attn1, module.attn2),
        module.ffn,
        module.scale_shift_table,
    )


def share_blocks(transformer: WanVACETransformer3DModel, compiled: bool) -> None:
    """Let all blocks of a transformer run `block`, compiled if so said; values stay what they were. What it is given
    lies in order, lest the compiler be asked again for another layout."""
    run: Callable[..., Tensor] = block
    if compiled:
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
        torch.fx.experimental._config.use_duck_shape = False  # equal sides are equal by chance
        run = torch.compile(block, dynamic=True)
    for module in transformer.blocks:
        module.forward = _plain(module, run)
    for module in transformer.vace_blocks:
        module.forward = _steering(module, run)


def _plain(module: nn.Module, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: _Rotary) -> Tensor:
        return run(*_parts(module), hidden_states.contiguous(), encoder_hidden_states, temb, rotary_emb)

    return forward


def _steering(module: WanVACETransformerBlock, run: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    def forward(
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        control_hidden_states: Tensor,
        temb: Tensor,
        rotary_emb: _Rotary,
    ) -> tuple[Tensor, Tensor]:
        if module.proj_in is not None:
            control_hidden_states = module.proj_in(control_hidden_states) + hidden_states
        moved = run(*_parts(module), control_hidden_states.contiguous(), encoder_hidden_states, temb, rotary_emb)
        return module.proj_out(moved).float(), moved

    return forward


def keep_single(transformer: WanVACETransformer3DModel) -> None:
    """Keep first and last layers in single precision where the rest is in half: what runs through the blocks then is,
    too. To be said of every copy."""
    for module in (transformer.patch_embedding, transformer.vace_patch_embedding, transformer.proj_out):
        module.forward = torch.autocast(transformer.device.type, enabled=False)(type(module).forward.__get__(module))
