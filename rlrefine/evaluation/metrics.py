"""Measures of one result against its target or, without one, its draft, row by row.

Shapes: P rows · C H W image.
"""

import torch
from torch import Tensor

from rewards import RewardInputs, RewardOutput, ssim

CAP = 60.0  # decibels; equal pictures would have infinitely many


def psnr(image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each row, in decibels, of the pixels that a weight picks.

        PSNR = min(60, −10·log₁₀( Σ w·(y − y*)² / (C·Σ w) ))

    Args:
        image, target: ``[P, C, H, W]`` in [0, 1].
        weight: ``[P, 1, H, W]``; none means every pixel. A row without any weight has nothing wrong, and gets the cap.

    Returns:
        ``[P]``, at most 60.

    >>> psnr(torch.full((1, 3, 2, 2), 0.1), torch.zeros(1, 3, 2, 2))
    tensor([20.])
    """
    weight = torch.ones_like(image[:, :1]) if weight is None else weight
    squared = (weight * (image - target).square()).sum(dim=(1, 2, 3))
    mean = squared / (image.shape[1] * weight.sum(dim=(1, 2, 3))).clamp(min=1e-6)
    return (-10 * mean.clamp(min=1e-12).log10()).clamp(max=CAP)


def row_metrics(image: Tensor, given: RewardInputs, rewards: RewardOutput | None) -> dict[str, Tensor]:
    """Every measure of the table, ``[P]`` each: fidelity to the target, and each reward as measured.

    Without targets it is fidelity to the draft instead: how far the detail was changed, and what is around it.

    Args:
        given: the same images, one sample a row, with what is known of the rows.
        rewards: of the same images.

    Raises:
        RewardError: rows have neither a target nor a draft.
    """
    if given.targets is not None:
        prefix, target = "", given.targets
    else:
        prefix, target = "draft_", given.condition("drafts")
    found = {"psnr": psnr(image, target), "ssim": ssim(image, target)}
    if given.masks is not None:
        found["psnr_in_mask"] = psnr(image, target, given.masks)
        found["psnr_outside_mask"] = psnr(image, target, 1 - given.masks)
    found = {f"{prefix}{name}": value for name, value in found.items()}
    if rewards is not None:
        found["reward_total"] = rewards.total
        found |= {f"reward_{label}": value for label, value in rewards.breakdown.items()}
    return found
