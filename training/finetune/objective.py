"""The loss that a scheduler implies: flow matching, or the prediction of noise or velocity on a diffusion schedule."""

from typing import Any, Protocol

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from schemas.errors import VariantLoadError


class Objective(Protocol):
    """Noise a batch of latents, and say what should be predicted there."""

    def corrupt(self, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, timesteps (batch,) in 0…1000, and the target, shaped like the latents."""
        ...

    def weight(self, timestep: Tensor) -> Tensor:
        """Of each clip's square error (batch,)."""
        ...


class FlowMatching:
    """Straight paths from clip to noise (Lipman et al., 2023), levels shifted towards noise (Esser et al., 2024).

    A model that predicts the clean clip is weighted so that its loss is that of the velocity, held back near no noise.
    """

    def __init__(self, shift: float, *, predicts_clip: bool = False) -> None:
        self._shift = shift
        self._predicts_clip = predicts_clip

    def corrupt(self, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        level = torch.rand(len(clean), device=clean.device)
        level = self._shift * level / (1 + (self._shift - 1) * level)
        wide = level.view(-1, *[1] * (clean.ndim - 1))
        return (1 - wide) * clean + wide * noise, level * 1000, clean if self._predicts_clip else noise - clean

    def weight(self, timestep: Tensor) -> Tensor:
        if self._predicts_clip:
            return 1 / ((timestep / 1000).pow(2) + 0.05)
        return torch.ones_like(timestep)


class Diffusion:
    """Prediction of noise (Ho et al., 2020) or velocity (Salimans & Ho, 2022) on the scheduler's own noise levels."""

    def __init__(self, alphas_cumprod: Tensor, prediction: str) -> None:
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise VariantLoadError(
                f"no loss for prediction type {prediction!r}; available: epsilon, sample, v_prediction"
            )
        self._alphas = alphas_cumprod
        self._prediction = prediction

    def corrupt(self, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        step = torch.randint(len(self._alphas), (len(clean),), device=clean.device)
        alpha = self._alphas.to(clean)[step].view(-1, *[1] * (clean.ndim - 1))
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        if self._prediction == "epsilon":
            return noisy, step.float(), noise
        if self._prediction == "sample":
            return noisy, step.float(), clean
        return noisy, step.float(), alpha.sqrt() * noise - (1 - alpha).sqrt() * clean

    def weight(self, timestep: Tensor) -> Tensor:
        return torch.ones_like(timestep)


def objective_of(scheduler: Any, shift: float) -> Objective:
    """The objective that `scheduler` was made for."""
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or prediction == "flow_prediction":
        return FlowMatching(shift)
    if scheduler.config.get("use_flow_sigmas") and prediction == "sample":
        return FlowMatching(shift, predicts_clip=True)
    if not hasattr(scheduler, "alphas_cumprod"):
        raise VariantLoadError(
            f"no loss for scheduler {type(scheduler).__name__}; available: flow matching, or one with alphas_cumprod"
        )
    return Diffusion(scheduler.alphas_cumprod, prediction)
