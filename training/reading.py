"""Teach the text encoder to read before anything is drawn: every token is to know what the whole sentence asks for.

Left to the denoiser, this is learned through the noise of a thousand images; asked directly, in a minute or two. Since
each token carries all attributes, cross-attention finds them wherever it looks at first.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from training.captions import caption
from training.drawing import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SPEEDS, Scene, sample
from training.optimisers import rate

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "motion": MOTIONS,
    "speed": tuple(SPEEDS),
    "background": tuple(BACKGROUNDS),
}


def answers(scene: Scene) -> list[int]:
    """The index of each attribute of a scene with one shape."""
    actor = scene.actors[0]
    said = {"colour": actor.colour, "shape": actor.shape, "motion": actor.motion, "speed": actor.speed}
    said["background"] = scene.background
    return [choices.index(said[name]) for name, choices in ATTRIBUTES.items()]


def teach(
    encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, *, steps: int, batch: int, seed: int
) -> dict[str, float]:
    """Train `encoder` in place; returns the share of tokens, over the last tenth, that knew each attribute.

    A sentence need not say speed and background: their shares cannot reach one.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 11])
    width = int(encoder.config.d_model)
    heads = nn.ModuleList([nn.Linear(width, len(choices)) for choices in ATTRIBUTES.values()]).to(encoder.device)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    known = dict.fromkeys(ATTRIBUTES, 0.0)
    judged = max(1, steps // 10)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, steps, 2e-3, 50)
        scenes = [sample(rng) for _ in range(batch)]
        length = int(rng.choice([32, 64, 128], p=[0.7, 0.2, 0.1]))
        tokens = tokenizer(
            [caption(rng, scene) for scene in scenes],
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        ).to(encoder.device)
        wanted = torch.tensor([answers(scene) for scene in scenes], device=encoder.device)
        hidden = encoder(tokens.input_ids)[0]
        mask = tokens.attention_mask.bool()
        owner = mask.nonzero()[:, 0]
        loss = hidden.new_zeros(())
        for index, (name, head) in enumerate(zip(ATTRIBUTES, heads, strict=True)):
            logits, target = head(hidden[mask]), wanted[owner, index]
            loss = loss + F.cross_entropy(logits, target)
            if step >= steps - judged:
                known[name] += float((logits.argmax(-1) == target).float().mean()) / judged
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    return known
