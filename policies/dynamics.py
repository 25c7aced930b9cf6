"""One step of a rollout: where the next latents are expected, how much noise is added, and how likely a given outcome
is.

Shapes: B samples; latents may have any shape after the first axis. All arithmetic is float32.

The same function is used to sample and to score: a rollout draws from (mean, std), a replay evaluates the density of
what was drawn under (mean, std) of the weights it is given. Before the first update both are the same numbers.

Differs from the papers: at σ = 1 Flow-GRPO's noise is infinite; as in its code, the second level of the schedule
stands in there.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

Reduction = Literal["mean", "sum"]


class Step(Protocol):
    """Mean ``[B, …]`` and standard deviation of the next latents."""

    def __call__(
        self, latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, *, noise: float, sigma_max: float
    ) -> tuple[Tensor, float]: ...


def ode(
    latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, *, noise: float = 0.0, sigma_max: float = 1.0
) -> tuple[Tensor, float]:
    """The deterministic Euler step.

        μ = x + Δ·v,   Δ = σ_next − σ < 0,   std = 0

    Args:
        latents: x at noise level ``sigma``.
        velocity: v = ε − x₀ as predicted there.
        noise, sigma_max: not used; every step takes the same arguments.

    Reference: flow matching, arXiv 2210.02747; diffusers ``FlowMatchEulerDiscreteScheduler.step``.

    >>> import torch
    >>> ode(torch.tensor([1.0]), torch.tensor([2.0]), 1.0, 0.5)
    (tensor([0.]), 0.0)
    """
    return latents.float() + (sigma_next - sigma) * velocity.float(), 0.0


def flow_sde(
    latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, *, noise: float, sigma_max: float
) -> tuple[Tensor, float]:
    """A stochastic step with the marginals of the deterministic one.

        s = noise·√(σ / (1 − σ)),   Δ = σ_next − σ
        μ = x·(1 + s²Δ / 2σ) + v·(1 + s²(1 − σ) / 2σ)·Δ,   std = s·√(−Δ)

    Args:
        latents: x at noise level ``sigma``, in (0, 1].
        velocity: v = ε − x₀ as predicted there.
        noise: the factor a of the paper; 0 gives the deterministic step.
        sigma_max: stands in for σ inside 1 − σ where σ is 1: the second level of the schedule.

    Reference: Flow-GRPO, arXiv 2505.05470, equations 8 and 9.

    >>> import torch
    >>> mean, std = flow_sde(torch.ones(1), torch.zeros(1), 0.5, 0.25, noise=1.0, sigma_max=0.9)
    >>> mean, std                                      # s² = 1, so μ = 1 − 0.25 / (2·0.5) and std = √0.25
    (tensor([0.7500]), 0.5)
    """
    scale = noise * math.sqrt(sigma / (1 - (sigma_max if sigma == 1 else sigma)))
    return _diffuse(latents, velocity, sigma, sigma_next, scale)


def dance_sde(
    latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, *, noise: float, sigma_max: float = 1.0
) -> tuple[Tensor, float]:
    """The stochastic step of DanceGRPO: the same diffusion with one strength at every noise level.

        s = noise,   otherwise as in ``flow_sde``

    It is the paper's μ = x + Δ·v − ½s²·score·Δ with score = −(x + (1 − σ)·v) / σ.

    Args:
        latents: x at noise level ``sigma``, in (0, 1].
        velocity: v = ε − x₀ as predicted there.
        noise: the factor η of the paper; 0 gives the deterministic step.
        sigma_max: not used; nothing is singular at σ = 1.

    Reference: DanceGRPO, arXiv 2505.07818, section 3.2.

    >>> import torch
    >>> mean, std = dance_sde(torch.ones(1), torch.zeros(1), 0.5, 0.25, noise=1.0)
    >>> mean, std                                      # μ = 1 − 0.25 / (2·0.5) and std = √0.25
    (tensor([0.7500]), 0.5)
    """
    return _diffuse(latents, velocity, sigma, sigma_next, noise)


def cps(
    latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, *, noise: float, sigma_max: float = 1.0
) -> tuple[Tensor, float]:
    """The coefficient-preserving step: part of the predicted noise is replaced by fresh noise, none is added.

        std = σ_next·sin(noise·π / 2)
        μ = (1 − σ_next)·x̂₀ + √(σ_next² − std²)·ε̂,   x̂₀ = x − σ·v,   ε̂ = x + (1 − σ)·v

    The image's share stays 1 − σ_next and the noise's σ_next, so a rollout is as clean as a deterministic one; the
    distribution at each level is not exactly that of the deterministic step.

    Args:
        latents: x at noise level ``sigma``, in (0, 1].
        velocity: v = ε − x₀ as predicted there.
        noise: the factor η of the paper, from 0 (the deterministic step) to 1 (all noise fresh).
        sigma_max: not used; nothing is singular at σ = 1.

    Reference: Flow-CPS, arXiv 2509.05952. Its code leaves the variance out of the log-density, so its clip ranges are
    of another scale than ours.

    >>> import torch
    >>> cps(torch.ones(1), torch.zeros(1), 0.5, 0.25, noise=1.0)           # x̂₀ = ε̂ = 1, and all noise is fresh
    (tensor([0.7500]), 0.25)
    """
    latents, velocity = latents.float(), velocity.float()
    std = sigma_next * math.sin(noise * math.pi / 2)
    clean, predicted_noise = latents - sigma * velocity, latents + (1 - sigma) * velocity
    return (1 - sigma_next) * clean + math.sqrt(sigma_next**2 - std**2) * predicted_noise, std


def _diffuse(latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, scale: float) -> tuple[Tensor, float]:
    """Euler–Maruyama step of the diffusion of strength s whose marginals are those of the deterministic step."""
    delta = sigma_next - sigma
    drift = scale**2 / (2 * sigma)
    mean = latents.float() * (1 + drift * delta) + velocity.float() * ((1 + drift * (1 - sigma)) * delta)
    return mean, scale * math.sqrt(-delta)


@dataclass(frozen=True)
class Dynamics:
    """A step by name, and whether it draws noise, without which a policy gradient has nothing to learn from."""

    step: Step
    stochastic: bool


DYNAMICS: dict[str, Dynamics] = {
    "ode": Dynamics(step=ode, stochastic=False),
    "flow_sde": Dynamics(step=flow_sde, stochastic=True),
    "dance_sde": Dynamics(step=dance_sde, stochastic=True),
    "cps": Dynamics(step=cps, stochastic=True),
}


def gaussian_log_prob(value: Tensor, mean: Tensor, std: float, reduction: Reduction = "mean") -> Tensor:
    """The log-density of an isotropic Gaussian, averaged or summed over everything but the first axis.

        log p = reduce[ −(x − μ)² / 2std² − log std − ½·log 2π ]

    Averaged (as every published code does) a ratio of two policies stays within 1e-4 of 1, and clip ranges are of
    that size; summed it is the true density, and its ratio is wilder by the number of dimensions.

    Args:
        value: ``[B, …]``; what was drawn, exactly as it was stored.
        mean: ``[B, …]``.
        std: positive.
        reduction: ``mean`` or ``sum``.

    Returns:
        ``[B]``, float32.

    Reference: Flow-GRPO, arXiv 2505.05470, section 4.1; the average is that of its code.

    >>> import torch
    >>> gaussian_log_prob(torch.zeros(1, 3), torch.zeros(1, 3), 1.0)        # −½·log 2π
    tensor([-0.9189])
    """
    squared = (value.float() - mean.float()).square().flatten(1)
    log_density = -squared / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return log_density.mean(dim=1) if reduction == "mean" else log_density.sum(dim=1)
