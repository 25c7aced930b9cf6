"""Second moments of features in a region, and how alike two of them are.

Shapes: N regions · F features · H W image. Everything here is float64, since roots of small differences lose half of
the digits.
"""

import torch
from torch import Tensor


def weighted_moments(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and uncentred second moment of features, each pixel with its weight.

        μ = Σ w·f / Σ w,   M = Σ w·f fᵀ / Σ w

    Args:
        features: ``[N, F, H, W]``.
        weights: ``[N, 1, H, W]``, not negative; where all of them are 0, all pixels count alike.

    Returns:
        ``[N, F]`` and ``[N, F, F]``.
    """
    feature_NFL, weight_N1L = features.double().flatten(2), weights.double().flatten(2)
    total = weight_N1L.sum(dim=2, keepdim=True)
    weight_N1L = torch.where(total > 0, weight_N1L, torch.ones_like(weight_N1L))
    share_N1L = weight_N1L / weight_N1L.sum(dim=2, keepdim=True)
    weighted_NFL = share_N1L * feature_NFL
    return weighted_NFL.sum(dim=2), weighted_NFL @ feature_NFL.transpose(1, 2)


def root_overlap(moment: Tensor, other: Tensor) -> Tensor:
    """How much two moment matrices have in common: the sum of the singular values of A^½ B^½.

        F = tr (A^½ B A^½)^½

    Between nothing and √(tr A · tr B), which it reaches where one is a multiple of the other; the trace where they are
    equal.

    Args:
        moment, other: ``[N, F, F]``, symmetric and not negative.

    Returns:
        ``[N]``.

    >>> one = torch.diag(torch.tensor([4.0, 9.0]))[None]
    >>> root_overlap(one, torch.eye(2)[None])                                              # √4 + √9
    tensor([5.], dtype=torch.float64)
    """
    return torch.linalg.svdvals(_root(moment.double()) @ _root(other.double())).sum(dim=1)


def cloud_nearness(moments: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> Tensor:
    """How near two clouds of colours are as Gaussians: 1 where mean and covariance are equal.

        r = 1 − W₂ / √F,   W₂² = ‖μ − μ'‖² + tr(Σ + Σ' − 2 (Σ^½ Σ' Σ^½)^½)

    Args:
        moments, others: mean ``[N, F]`` and uncentred second moment ``[N, F, F]`` of features in [0, 1].

    Returns:
        ``[N]`` in [0, 1], since no two clouds are farther apart than the diagonal √F.

    Reference: Gelbrich, On a formula for the L² Wasserstein metric, 1990.

    >>> black, grey = ((torch.full((1, 3), level), torch.full((1, 3, 3), level**2)) for level in (0.0, 0.5))
    >>> cloud_nearness(black, grey)
    tensor([0.5000], dtype=torch.float64)
    """
    covariances = [moment - mean[:, :, None] * mean[:, None, :] for mean, moment in (moments, others)]
    traces = sum(each.diagonal(dim1=1, dim2=2).sum(dim=1) for each in covariances)
    means = (moments[0] - others[0]).square().sum(dim=1)
    squared = (means + traces - 2 * root_overlap(*covariances)).clamp_min(0).double()
    return 1 - (squared / moments[0].shape[1]).sqrt()


def _root(moment: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(moment)
    return (vectors * values.clamp_min(0).sqrt()[:, None]) @ vectors.transpose(1, 2)
