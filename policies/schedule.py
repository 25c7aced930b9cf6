"""When the network is evaluated: the noise levels of a rollout and the shift that larger images need.

Shapes: S = T + 1 states of a rollout with T transitions.

``sigma`` in [0, 1] is the only time variable of the project: x_σ = (1 − σ)·x₀ + σ·ε, from pure noise at 1 to the
image at 0.

Networks that predict ε have other times and scales, which only their policy's file sees: k-diffusion's s with
x_s = x₀ + s·ε, and the variance-preserving ᾱ with x_ᾱ = √ᾱ·x₀ + √(1 − ᾱ)·ε. All three are the same latents:
x_σ = x_s / (1 + s), x_ᾱ = x_s / √(1 + s²).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Schedule(Protocol):
    """A model's own noise levels, for images of one size."""

    def sigmas(self, steps: int) -> Tensor:
        """The S = steps + 1 levels of a rollout, falling to 0."""
        ...

    def start(self, steps: int) -> float:
        """What a rollout multiplies its first noise by; 1 where it begins with pure noise."""
        ...

    def levels(self, share: Tensor) -> Tensor:
        """The levels to train at, for places in (0, 1) on the model's own way from image to noise."""
        ...


def resolution_shift(
    tokens: int, *, base_tokens: int = 256, max_tokens: int = 4096, base_shift: float = 0.5, max_shift: float = 1.15
) -> float:
    """The shift μ of an image of ``tokens`` packed tokens: a straight line through two anchors, extended beyond them.

    Only the noisy tokens count, never those of the conditioning images.

    Reference: FLUX.1 (diffusers ``calculate_shift``); the anchors are the defaults of its scheduler configuration.

    >>> resolution_shift(256), resolution_shift(4096)
    (0.5, 1.15)
    """
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return base_shift + slope * (tokens - base_tokens)


def shift_sigma(sigma: Tensor, mu: float) -> Tensor:
    """Move noise levels towards 1, where a large image still looks like noise.

        σ' = e^μ / (e^μ + 1/σ − 1)

    Args:
        sigma: noise levels in [0, 1]; 0 stays 0 and 1 stays 1.
        mu: the logarithm of the shift; 0 changes nothing.

    Reference: Stable Diffusion 3, arXiv 2403.03206, equation 23, with e^μ for its shift.

    >>> shift_sigma(torch.tensor([0.0, 0.5, 1.0]), math.log(3.0))
    tensor([0.0000, 0.7500, 1.0000])
    """
    return math.exp(mu) * sigma / (1 + (math.exp(mu) - 1) * sigma)


def sigma_schedule(steps: int, mu: float) -> Tensor:
    """The S = steps + 1 noise levels of a rollout, from 1 down to 0, as float32.

        σ_i = shift(1 − i/steps, μ)

    Raises:
        ValueError: fewer than one step.

    Reference: FLUX.1 (diffusers ``FlowMatchEulerDiscreteScheduler`` with ``sigmas = linspace(1, 1/steps, steps)``).

    >>> sigma_schedule(4, mu=0.0)
    tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000])
    """
    if steps < 1:
        raise ValueError(f"a rollout needs at least one step, got {steps}")
    return shift_sigma(torch.linspace(1, 0, steps + 1, dtype=torch.float64), mu).float()


@dataclass(frozen=True)
class FlowSchedule:
    """The noise levels of a flow model: evenly spaced, and shifted by μ.

    >>> FlowSchedule(math.log(3.0)).sigmas(2)
    tensor([1.0000, 0.7500, 0.0000])
    """

    mu: float

    def sigmas(self, steps: int) -> Tensor:
        """As ``sigma_schedule``."""
        return sigma_schedule(steps, self.mu)

    def start(self, steps: int) -> float:
        """1: the first level is 1, pure noise."""
        return 1.0

    def levels(self, share: Tensor) -> Tensor:
        """As ``shift_sigma``."""
        return shift_sigma(share, self.mu)


def k_of_alpha(alpha: Tensor) -> Tensor:
    """k-diffusion's noise level of a scheduler's cumulative ᾱ: s = √((1 − ᾱ) / ᾱ).

    Args:
        alpha: ``alphas_cumprod`` at some timesteps, in (0, 1]; the 1 of a clean image gives 0.

    Reference: diffusers ``EulerAncestralDiscreteScheduler``, whose ``sigmas`` these are.

    >>> k_of_alpha(torch.tensor([1.0, 0.5, 0.1]))
    tensor([0., 1., 3.])
    """
    return ((1 - alpha) / alpha).sqrt()


def sigma_of_k(k_sigma: Tensor) -> Tensor:
    """σ of k-diffusion's noise level s: σ = s / (1 + s).

    >>> sigma_of_k(torch.tensor([0.0, 1.0, 3.0]))
    tensor([0.0000, 0.5000, 0.7500])
    """
    return k_sigma / (1 + k_sigma)


def k_of_sigma(sigma: Tensor) -> Tensor:
    """k-diffusion's noise level s of σ: s = σ / (1 − σ), infinite for pure noise.

    >>> k_of_sigma(torch.tensor([0.0, 0.5, 0.75]))
    tensor([0., 1., 3.])
    """
    return sigma / (1 - sigma)


def unit_variance(latents: Tensor, sigma: Tensor) -> Tensor:
    """Latents in the scale that a network for ε is given: x_ᾱ = x_σ / √((1 − σ)² + σ²).

    It is what ``EulerAncestralDiscreteScheduler.scale_model_input`` makes of x_s, and what DDIM travels in.

    Args:
        latents: ``[B, …]``.
        sigma: ``[B]`` in [0, 1].

    >>> unit_variance(torch.ones(1, 1), torch.tensor([0.5]))                # 1 / √½
    tensor([[1.4142]])
    """
    return latents / _along(((1 - sigma).square() + sigma.square()).sqrt(), latents)


def velocity_from_epsilon(latents: Tensor, epsilon: Tensor, sigma: Tensor) -> Tensor:
    """The velocity that a prediction of the noise stands for: v = ε − x̂₀ = (ε − x_σ) / (1 − σ).

    Args:
        latents: ``[B, …]``.
        epsilon: ``[B, …]``, the predicted noise.
        sigma: ``[B]`` in [0, 1); of pure noise no image can be told from the noise in it.

    >>> velocity_from_epsilon(torch.ones(1, 1), torch.full((1, 1), 2.0), torch.tensor([0.5]))   # x̂₀ = 0
    tensor([[2.]])
    """
    return (epsilon - latents) / (1 - _along(sigma, latents))


def _along(per_sample: Tensor, latents: Tensor) -> Tensor:
    """One number of each sample, ready to broadcast."""
    return per_sample.to(latents).reshape(-1, *[1] * (latents.ndim - 1))
