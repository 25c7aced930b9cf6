"""Numbers that tell whether a policy gradient is healthy.

Shapes: P prompts · G samples per prompt (a group) · B samples.
"""

import torch
from torch import Tensor


def zero_variance_groups(advantage_PG: Tensor) -> Tensor:
    """How many groups have nothing to teach: no reward tells their samples apart.

    >>> zero_variance_groups(torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))
    tensor(1)
    """
    return (advantage_PG == 0).all(dim=1).sum()


def approximate_kl(log_ratio_B: Tensor) -> Tensor:
    """An estimate of KL(old ‖ current) from samples of the old policy that is never negative, one value per sample.

        k₃ = (ρ − 1) − log ρ,   ρ = exp(log π_θ − log π_old)

    Reference: J. Schulman, "Approximating KL divergence", 2020.

    >>> approximate_kl(torch.zeros(1))
    tensor([0.])
    """
    return log_ratio_B.expm1() - log_ratio_B


def diversity(latents_PG: Tensor) -> Tensor:
    """How different the samples of a group are: the mean distance of two siblings, one value per group.

        d_p = mean_{g<h} √( mean_d (x_pg − x_ph)² )

    Args:
        latents_PG: ``[P, G, …]``, G at least 2.

    Returns:
        ``[P]``, in units of the latents; 0 where all siblings are equal: then nothing can be compared.

    >>> diversity(torch.tensor([[[0.0, 0.0], [3.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]]]))
    tensor([3., 0.])
    """
    flat_PGD = latents_PG.float().flatten(2)
    pairs = [torch.pdist(flat_GD).mean() / flat_GD.shape[1] ** 0.5 for flat_GD in flat_PGD]
    return torch.stack(pairs)


def saturated(image_B: Tensor) -> Tensor:
    """The share of each image's values that are as dark or as bright as they can be.

        s_b = mean over channels and pixels of [x ≤ ½/255 or x ≥ 1 − ½/255]

    Args:
        image_B: ``[B, …]`` in [0, 1].

    Returns:
        ``[B]``; where it grows while one trains, a reward is being paid for contrast or for flat white.

    >>> saturated(torch.tensor([[0.0, 0.5, 0.5, 1.0], [0.2, 0.4, 0.6, 0.8]]))
    tensor([0.5000, 0.0000])
    """
    margin = 0.5 / 255
    return ((image_B <= margin) | (image_B >= 1 - margin)).flatten(1).float().mean(dim=1)


def group_spread(value_PG: Tensor) -> Tensor:
    """The mean standard deviation inside a group, in the value's unit.

    >>> group_spread(torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
    tensor(0.5000)
    """
    return value_PG.std(dim=1, correction=0).mean()
