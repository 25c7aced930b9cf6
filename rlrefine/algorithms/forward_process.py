"""Reinforcement learning on the forward process: noise is added to what was made, and the velocity there is moved
towards what did well and away from what did badly. No densities, no stochastic sampler.

Shapes: P prompts · G samples per prompt · B samples; latents have any shape after the first axis.

Differs from the paper: nothing. Its logged policy loss equals the total; ours does not.
"""

from torch import Tensor

SMALLEST_SCALE = 1e-5


def optimality(advantage_PG: Tensor, limit: float) -> Tensor:
    """How certain it is that a sample is a good one: ½ for an average one.

        r = clip( clip(A, −limit, limit) / (2·limit) + ½, 0, 1 )

    Args:
        advantage_PG: how much better than its siblings.
        limit: A_max, positive; advantages of that size are certain.

    Returns:
        The same shape, in [0, 1].

    Reference: DiffusionNFT, arXiv 2509.16117, in the form of its code.

    >>> import torch
    >>> optimality(torch.tensor([[-9.0, -2.5, 0.0, 5.0]]), limit=5.0)
    tensor([[0.0000, 0.2500, 0.5000, 1.0000]])
    """
    return (advantage_PG.clamp(-limit, limit) / (2 * limit) + 0.5).clamp(0, 1)


def implicit_velocities(velocity: Tensor, old_velocity: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The velocity of a policy that does more of what the trained one learnt, and of one that does the opposite.

        v⁺ = (1 − β)·v_old + β·v_θ,   v⁻ = (1 + β)·v_old − β·v_θ

    Args:
        velocity: ``[B, …]`` under the weights that are trained, with gradients.
        old_velocity: under the old ones.
        beta: β, positive; 1 makes v⁺ the trained policy itself.

    Reference: DiffusionNFT, arXiv 2509.16117, implicit parameterisation.

    >>> import torch
    >>> implicit_velocities(torch.tensor([3.0]), torch.tensor([1.0]), beta=0.5)
    (tensor([2.]), tensor([0.]))
    """
    return (1 - beta) * old_velocity + beta * velocity, (1 + beta) * old_velocity - beta * velocity


def clean_error(velocity: Tensor, noisy: Tensor, clean: Tensor, sigma_B: Tensor) -> Tensor:
    """How far the image that a velocity leads to is from the true one, in units of its own mean distance.

        x̂₀ = x_σ − σ·v,   ℓ = mean_d (x̂₀ − x₀)² / max( sg[ mean_d |x̂₀ − x₀| ], 1e-5 )

    The denominator has no gradient (sg): it evens out noise levels and samples.

    Args:
        velocity, noisy, clean: ``[B, …]``.
        sigma_B: noise levels.

    Returns:
        ``[B]``, not negative.

    Reference: DiffusionNFT, arXiv 2509.16117, adaptive weights of its code.

    >>> import torch
    >>> clean_error(torch.zeros(1, 2), torch.full((1, 2), 0.5), torch.zeros(1, 2), torch.ones(1))    # ¼ / ½
    tensor([0.5000])
    """
    sigma = sigma_B.reshape(-1, *[1] * (noisy.ndim - 1))
    error = (noisy - sigma * velocity - clean).flatten(1)
    return error.square().mean(dim=1) / error.detach().abs().mean(dim=1).clamp_min(SMALLEST_SCALE)


def negative_aware_loss(
    positive_B: Tensor, negative_B: Tensor, optimality_B: Tensor, beta: float, limit: float
) -> Tensor:
    """Fit what did well with the implicit positive policy, and what did badly with the negative one.

        L = limit·( r·ℓ⁺ + (1 − r)·ℓ⁻ ) / β

    Args:
        positive_B, negative_B: ``clean_error`` of the two implicit velocities.
        optimality_B: r, from ``optimality``.
        beta, limit: as there.

    Returns:
        ``[B]``, not negative. Where the trained policy is the old one the gradient is (2r − 1)·limit·∇ℓ/β, so that an
        average sample pulls nowhere.

    Reference: DiffusionNFT, arXiv 2509.16117, training objective; the factor limit / β is that of its code.

    >>> import torch
    >>> negative_aware_loss(torch.tensor([0.2]), torch.tensor([0.4]), torch.tensor([0.75]), beta=0.5, limit=5.0)
    tensor([2.5000])
    """
    return limit * (optimality_B * positive_B + (1 - optimality_B) * negative_B) / beta


def old_decay(step: int, *, rate: float, limit: float, delay: int = 0) -> float:
    """How much of itself the old policy keeps after a step: little at first, so that it follows quickly.

        d = min( rate·max(0, step − delay), limit )

    Args:
        step: steps that are complete.

    Reference: DiffusionNFT, arXiv 2509.16117, its code: rate 0.001 and limit 0.5; or delay 75, rate 0.0075 and
        limit 0.999.

    >>> [old_decay(step, rate=0.001, limit=0.5) for step in (0, 100, 900)]
    [0.0, 0.1, 0.5]
    """
    return min(rate * max(0, step - delay), limit)
