"""Flow matching: where to train on the path between image and noise, and how wrong a predicted velocity is.

Shapes: P rows of the batch; latents have any shape after the first axis.

Differs from the papers: OmniRefiner names a "masked mse loss" and gives no formula; ``mask_weight`` is ours.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Density = Literal["uniform", "logit_normal", "mode"]
Prediction = Literal["velocity", "epsilon"]
Weighting = Literal["none", "sigma_sqrt", "cosmap", "bell"]


def sigma_from_uniform(
    uniform_P: Tensor, density: Density, *, mean: float = 0.0, std: float = 1.0, scale: float = 1.29
) -> Tensor:
    """Turn uniform draws into noise levels of the wanted density, one for each.

        uniform:       σ = u
        logit_normal:  σ = sigmoid(mean + std·Φ⁻¹(u))
        mode:          σ = 1 − u − scale·(cos²(πu/2) − 1 + u)

    Args:
        uniform_P: draws in the open interval (0, 1).
        density: which of the three.
        mean, std: of the logit-normal density, in logits.
        scale: of the mode density; positive values favour the middle.

    Returns:
        Noise levels in (0, 1), same shape, before any resolution shift.

    Raises:
        ValueError: an unknown density.

    Reference: Stable Diffusion 3, arXiv 2403.03206, section 3.1.

    >>> sigma_from_uniform(torch.tensor([0.5]), "logit_normal")
    tensor([0.5000])
    """
    match density:
        case "uniform":
            return uniform_P
        case "logit_normal":
            return torch.sigmoid(mean + std * torch.special.ndtri(uniform_P.double())).to(uniform_P.dtype)
        case "mode":
            return 1 - uniform_P - scale * (torch.cos(torch.pi * uniform_P / 2) ** 2 - 1 + uniform_P)
    raise ValueError(f"unknown density {density!r}: expected uniform, logit_normal or mode")


def interpolate(clean: Tensor, noise: Tensor, sigma_P: Tensor) -> Tensor:
    """The point at noise level σ on the straight path from the image to the noise.

        x_σ = (1 − σ)·x₀ + σ·ε

    Args:
        clean, noise: ``[P, …]``.
        sigma_P: one noise level for each row.

    >>> interpolate(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.tensor([0.25]))
    tensor([[[0.2500]]])
    """
    sigma = sigma_P.reshape(-1, *[1] * (clean.ndim - 1))
    return (1 - sigma) * clean + sigma * noise


def level_weight(sigma_P: Tensor, weighting: Weighting) -> Tensor:
    """How much each noise level counts in the loss, one weight per row.

        none:        w = 1
        sigma_sqrt:  w = σ⁻²
        cosmap:      w = 2 / (π·(1 − 2σ + 2σ²))
        bell:        w = (exp(−2·(σ − ½)²) − exp(−½)) / c,   c such that the mean over all σ in [0, 1] is 1

    Args:
        sigma_P: noise levels in (0, 1].

    Raises:
        ValueError: an unknown weighting.

    Reference: Stable Diffusion 3, arXiv 2403.03206, section 3.1; diffusers ``compute_loss_weighting_for_sd3``. The bell
        is DiffSynth-Studio's, with which DyRef, arXiv 2606.26947, was trained; its mean is 1 over its shifted levels.

    >>> level_weight(torch.tensor([0.5]), "cosmap")                                       # 2 / (π·½)
    tensor([1.2732])
    """
    match weighting:
        case "none":
            return torch.ones_like(sigma_P)
        case "sigma_sqrt":
            return sigma_P**-2.0
        case "cosmap":
            return 2 / (torch.pi * (1 - 2 * sigma_P + 2 * sigma_P**2))
        case "bell":
            lowest = math.exp(-0.5)
            mean = math.sqrt(math.pi / 2) * math.erf(math.sqrt(0.5)) - lowest
            return (torch.exp(-2 * (sigma_P - 0.5) ** 2) - lowest) / mean
    raise ValueError(f"unknown weighting {weighting!r}: expected none, sigma_sqrt, cosmap or bell")


def predicted_noise(velocity: Tensor, noisy: Tensor, sigma_P: Tensor) -> Tensor:
    """The noise that a predicted velocity implies: what a network that predicts noise was asked for.

        ε̂ = x_σ + (1 − σ)·v

    Args:
        velocity, noisy: ``[P, …]``, v and x_σ.
        sigma_P: one noise level for each row.

    >>> predicted_noise(torch.ones(1, 1), torch.full((1, 1), 0.25), torch.tensor([0.25]))   # x₀ = 0, ε = 1
    tensor([[1.]])
    """
    return noisy + (1 - sigma_P.reshape(-1, *[1] * (noisy.ndim - 1))) * velocity


def predicted(velocity: Tensor, noisy: Tensor, sigma_P: Tensor, prediction: Prediction) -> Tensor:
    """What a network of some form would have predicted: the velocity itself, or the noise that it implies.

    Args:
        velocity, noisy, sigma_P: as for ``predicted_noise``.

    Raises:
        ValueError: an unknown form.

    >>> predicted(torch.ones(1, 1), torch.full((1, 1), 0.25), torch.tensor([0.25]), "velocity")
    tensor([[1.]])
    """
    match prediction:
        case "epsilon":
            return predicted_noise(velocity, noisy, sigma_P)
        case "velocity":
            return velocity
    raise ValueError(f"unknown prediction {prediction!r}: expected epsilon or velocity")


def prediction_target(clean: Tensor, noise: Tensor, prediction: Prediction) -> Tensor:
    """What a network should have predicted on the path from an image to noise.

        epsilon:   ε
        velocity:  ε − x₀

    Args:
        clean, noise: ``[P, …]``, x₀ and ε.

    Raises:
        ValueError: an unknown form.

    >>> prediction_target(torch.ones(1, 2), torch.zeros(1, 2), "velocity")
    tensor([[-1., -1.]])
    """
    match prediction:
        case "epsilon":
            return noise
        case "velocity":
            return noise - clean
    raise ValueError(f"unknown prediction {prediction!r}: expected epsilon or velocity")


def weighted_error(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """The weighted squared error of a prediction, one value per row.

        L_p = Σ_d w_pd·(f − y)² / Σ_d w_pd

    Args:
        prediction, target: ``[P, …]``: velocities, or noise for the ε-form of Stable Diffusion.
        weight: not negative, e.g. from ``mask_weight``; of a shape that broadcasts to the others. None means equal
            weights.

    Returns:
        Losses ``[P]``, in squared units of the target, so that a row with a large mask counts as much as one with a
        small mask.

    Reference: DDPM, arXiv 2006.11239, equation 14, for noise; the weights are OmniRefiner's idea (arXiv 2511.19990,
    figure 3).

    >>> weighted_error(torch.ones(1, 2), torch.tensor([[0.0, 3.0]]), torch.tensor([[3.0, 1.0]]))   # (3·1 + 1·4)/4
    tensor([1.7500])
    """
    error = (prediction - target).square()
    if weight is None:
        return error.flatten(1).mean(dim=1)
    weight = weight.expand_as(error)
    return (weight * error).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1)


def flow_matching_loss(velocity: Tensor, clean: Tensor, noise: Tensor, weight: Tensor | None = None) -> Tensor:
    """The weighted squared error of a predicted velocity, one value per row.

        L_p = Σ_d w_pd·(v − (ε − x₀))² / Σ_d w_pd

    Args:
        velocity: ``[P, …]``, the network's prediction at x_σ.
        clean, noise: ``[P, …]``, x₀ and ε, the two ends of the path.
        weight: as for ``weighted_error``.

    Returns:
        Losses ``[P]``, in squared latent units.

    Reference: flow matching, arXiv 2210.02747, equation 23 with the straight path.

    >>> zeros, ones = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    >>> flow_matching_loss(zeros, zeros, ones)
    tensor([1.])
    """
    return weighted_error(velocity, noise - clean, weight)


def mask_weight(mask: Tensor, inside: float) -> Tensor:
    """Weights that count an error inside the mask ``inside`` times as much as one outside it.

        w = 1 + (inside − 1)·m

    Args:
        mask: how much of each position of the latents lies inside the mask, in [0, 1].
        inside: the weight inside, relative to 1 outside; at least 0.

    >>> mask_weight(torch.tensor([[0.0, 0.5, 1.0]]), inside=3.0)
    tensor([[1., 2., 3.]])
    """
    return 1 + (inside - 1) * mask
