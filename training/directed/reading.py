"""Teach the text encoder to read shots before anything is drawn: every token is to know what the whole sentence says.

As `training/reading.py` does for one shape; here for each of two, and for the camera.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.directed.networks import Networks
from training.directed.scenes import CAMERAS, Shot, kind, sample
from training.directed.sentences import sentence
from training.drawing import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SPEEDS, Actor
from training.optimisers import rate

_NONE = "none"
OF_ACTOR: dict[str, tuple[str, ...]] = {
    "colour": (_NONE, *COLOURS),
    "shape": (_NONE, *SHAPES),
    "motion": (_NONE, "path", *MOTIONS),
    "speed": (_NONE, *SPEEDS),
}
OF_SHOT: dict[str, tuple[str, ...]] = {"background": tuple(BACKGROUNDS), "camera": (_NONE, *CAMERAS)}
ATTRIBUTES: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((f"{name} {which}", choices) for which in ("one", "two") for name, choices in OF_ACTOR.items()),
    *OF_SHOT.items(),
)
"""What is asked of every token, and the choices."""


def answers(shot: Shot) -> list[int]:
    """The index of each attribute of a shot; what it has not is "none"."""
    actors: list[Actor | None] = [*shot.scene.actors, None][:2]
    out = []
    for actor in actors:
        for name, choices in OF_ACTOR.items():
            said = _NONE if actor is None or (shot.task == "style" and name == "colour") else str(getattr(actor, name))
            out.append(choices.index(said))
    out.append(OF_SHOT["background"].index(shot.scene.background))
    out.append(OF_SHOT["camera"].index(shot.camera or _NONE))
    return out


def heads(width: int) -> nn.ModuleList:
    """What asks a token of that width for each attribute."""
    return nn.ModuleList([nn.Linear(width, len(choices)) for _, choices in ATTRIBUTES])


def loss(hidden: Tensor, there: Tensor, goal: Tensor, asked: nn.ModuleList) -> tuple[Tensor, Tensor]:
    """Of tokens (batch, tokens, width), where they are `there`, and the answers (batch, attributes): the loss, and the
    share of tokens that knew each attribute."""
    total, right = hidden.new_zeros(()), []
    count = there.sum()
    for index, head in enumerate(asked):
        logits = head(hidden)
        answer = goal[:, index, None].expand(there.shape)
        each = F.cross_entropy(logits.flatten(0, 1), answer.flatten(), reduction="none").view(there.shape)
        total = total + (each * there).sum() / count
        right.append(((logits.detach().argmax(-1) == answer) & there).sum() / count)
    return total, torch.stack(right)


def teach(networks: Networks, *, steps: int, batch: int, seed: int) -> dict[str, float]:
    """Train the text encoder in place; returns the share of tokens, over the last tenth, that knew each attribute.

    A sentence need not say everything: not all shares can reach one.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 11])
    encoder, device = networks.text_encoder, networks.device
    width = int(encoder.config.d_model)
    asked = heads(width).to(device)
    parameters = [*encoder.parameters(), *asked.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    known = {name: 0.0 for name, _ in ATTRIBUTES}
    judged = max(1, steps // 10)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, steps, 2e-3, 50)
        shots = [sample(rng, kind(rng), frames=1) for _ in range(batch)]
        tokens = networks.tokenizer([sentence(rng, shot) for shot in shots], padding=True, return_tensors="pt").to(
            device
        )
        goal = torch.tensor([answers(shot) for shot in shots], device=device)
        hidden = encoder(tokens.input_ids, tokens.attention_mask)[0]
        wrong, right = loss(hidden, tokens.attention_mask.bool(), goal, asked)
        if step >= steps - judged:
            for (name, _), share in zip(ATTRIBUTES, right, strict=True):
                known[name] += float(share) / judged
        optimiser.zero_grad(set_to_none=True)
        wrong.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    return known
