"""When the network is evaluated: the noise levels of a rollout and the shift that larger images need.

Shapes: S = T + 1 states of a rollout with T transitions.

``sigma`` in [0, 1] is the only time variable of the project: x_σ = (1 − σ)·x₀ + σ·ε, from pure noise at 1 to the
image at 0.
"""

import math

import torch
from torch import Tensor


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
