"""How far one policy's step is from another's: the price of leaving the reference.

Shapes: B samples; further axes are the dimensions of a latent.

Differs from the papers: Flow-GRPO's code leaves the step length out of the x-form; here it is the exact Gaussian
divergence.
"""

from torch import Tensor


def kl_x(mean: Tensor, other_mean: Tensor, std: float) -> Tensor:
    """The Kullback–Leibler divergence of two steps of one spread, averaged over the latent's dimensions.

        KL = mean_d (μ − μ')² / (2·std²)

    Args:
        mean, other_mean: ``[B, …]`` means of the next latents under the two policies.
        std: their common standard deviation.

    Returns:
        ``[B]``, not negative; 0 for equal means.

    Reference: Flow-GRPO, arXiv 2505.05470, equation 10.

    >>> import torch
    >>> kl_x(torch.ones(1, 4), torch.zeros(1, 4), std=0.5)
    tensor([2.])
    """
    return (mean - other_mean).square().flatten(1).mean(dim=1) / (2 * std**2)


def kl_v(velocity: Tensor, other_velocity: Tensor) -> Tensor:
    """The squared distance of two predicted velocities, averaged over the latent's dimensions.

        KL_v = mean_d (v − v')²

    It weighs all noise levels alike, whereas the x-form weighs a level by its step length and noise.

    Args:
        velocity, other_velocity: ``[B, …]``.

    Returns:
        ``[B]``, not negative; 0 for equal velocities.

    Reference: the "v-based" divergence of Flow-Factory, which DyRef (arXiv 2606.26947) trains with.

    >>> import torch
    >>> kl_v(torch.ones(1, 4), torch.zeros(1, 4))
    tensor([1.])
    """
    return (velocity - other_velocity).square().flatten(1).mean(dim=1)
