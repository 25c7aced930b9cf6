"""One step of a rollout: where the next latents are expected, how much noise is added, and how likely a given outcome
is.

Shapes: B samples; latents may have any shape after the first axis. All arithmetic is float32.

The same function is used to sample and to score: a rollout draws from (mean, std), a replay evaluates the density of
what was drawn under (mean, std) of the weights it is given. Before the first update both are the same numbers.

Differs from the papers: at σ = 1 Flow-GRPO's noise is infinite; as in its code, the second level of the schedule
stands in there. DDIM and Euler-ancestral are written in σ, where they are one step; diffusers' schedulers write them
for networks that predict ε, each in a time of its own.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from policies.traits import TRAITS, Traits

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
    return _refresh(latents, velocity, sigma, sigma_next, sigma_next * math.sin(noise * math.pi / 2))


def ddim(
    latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, *, noise: float, sigma_max: float = 1.0
) -> tuple[Tensor, float]:
    """The stochastic step of DDIM, in σ: as much fresh noise as keeps the marginals for steps of this length.

        r = σ_next(1 − σ) / σ(1 − σ_next),   std = noise·σ_next·√(1 − r²)
        μ = (1 − σ_next)·x̂₀ + √(σ_next² − std²)·ε̂,   x̂₀ = x − σ·v,   ε̂ = x + (1 − σ)·v

    With σ = s / (1 + s) and s² = (1 − ᾱ) / ᾱ, r is s_next / s, and this is equation 12 of the paper divided by
    √ᾱ_next·(1 + s_next).

    Args:
        latents: x at noise level ``sigma``, in (0, 1].
        velocity: v = ε − x₀ as predicted there.
        noise: η of the paper, from 0 (the deterministic step) to 1 (as DDPM).
        sigma_max: not used; at σ = 1 all noise is fresh.

    Reference: DDIM, arXiv 2010.02502, equations 12 and 16; diffusers ``DDIMScheduler.step``.

    >>> import torch
    >>> ddim(torch.ones(1), torch.zeros(1), 1.0, 0.25, noise=1.0)          # x̂₀ = ε̂ = 1, r = 0: all noise is fresh
    (tensor([0.7500]), 0.25)
    """
    ratio = sigma_next * (1 - sigma) / (sigma * (1 - sigma_next))
    std = noise * sigma_next * math.sqrt(max(0.0, 1 - ratio**2))  # which rounding can push below 0 between equal levels
    return _refresh(latents, velocity, sigma, sigma_next, std)


def euler_ancestral(
    latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, *, noise: float, sigma_max: float = 1.0
) -> tuple[Tensor, float]:
    """The ancestral Euler step: down to less than the next noise level, and up to it with fresh noise.

        s = σ / (1 − σ),   s_up = noise·s_next·√(1 − s_next² / s²),   s_down² = s_next² − s_up²
        μ = (x̂₀ + s_down·ε̂) / (1 + s_next),   std = s_up / (1 + s_next)

    That is ``ddim`` to the last bit, by the name that Stable Diffusion's users know. The two differ in the noise
    levels that their schedulers pass through.

    Args:
        latents: x at noise level ``sigma``, in (0, 1].
        velocity: v = ε − x₀ as predicted there.
        noise: the factor of k-diffusion, from 0 (the deterministic step) to 1, which diffusers has.
        sigma_max: not used; at σ = 1 all noise is fresh.

    Reference: k-diffusion ``get_ancestral_step``; diffusers ``EulerAncestralDiscreteScheduler.step``.

    >>> import torch
    >>> _, std = euler_ancestral(torch.ones(1), torch.zeros(1), 0.75, 0.5, noise=1.0)   # s: 3 to 1
    >>> round(std, 4)                                                       # √(1 − 1/9) / 2
    0.4714
    """
    return ddim(latents, velocity, sigma, sigma_next, noise=noise)


def _diffuse(latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, scale: float) -> tuple[Tensor, float]:
    """Euler–Maruyama step of the diffusion of strength s whose marginals are those of the deterministic step."""
    delta = sigma_next - sigma
    drift = scale**2 / (2 * sigma)
    mean = latents.float() * (1 + drift * delta) + velocity.float() * ((1 + drift * (1 - sigma)) * delta)
    return mean, scale * math.sqrt(-delta)


def _refresh(latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, std: float) -> tuple[Tensor, float]:
    """Step to the next level with its shares of image and noise, ``std`` of the noise being fresh."""
    latents, velocity = latents.float(), velocity.float()
    clean, predicted_noise = latents - sigma * velocity, latents + (1 - sigma) * velocity
    return (1 - sigma_next) * clean + math.sqrt(sigma_next**2 - std**2) * predicted_noise, std


@dataclass(frozen=True)
class Dynamics:
    """A step by name, and what kind of step it is."""

    step: Step
    traits: Traits


STEPS: dict[str, Step] = {
    "ode": ode,
    "flow_sde": flow_sde,
    "dance_sde": dance_sde,
    "cps": cps,
    "ddim": ddim,
    "euler_ancestral": euler_ancestral,
}
DYNAMICS = {name: Dynamics(step=step, traits=TRAITS[name]) for name, step in STEPS.items()}


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

    Raises:
        ValueError: ``std`` is 0, as of a step that draws no noise; such a step has no density.

    Reference: Flow-GRPO, arXiv 2505.05470, section 4.1; the average is that of its code.

    >>> import torch
    >>> gaussian_log_prob(torch.zeros(1, 3), torch.zeros(1, 3), 1.0)        # −½·log 2π
    tensor([-0.9189])
    """
    if std <= 0:
        raise ValueError(f"a step with std {std:g} draws no noise and has no density; let it be a deterministic one")
    squared = (value.float() - mean.float()).square().flatten(1)
    log_density = -squared / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return log_density.mean(dim=1) if reduction == "mean" else log_density.sum(dim=1)
