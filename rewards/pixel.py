"""The masked pixel reward of OmniRefiner: how far is each pixel of the detail from where it should be?

Shapes: P rows · B samples · C H W image.

Differs from the paper: its sign and scale are not given. The negative mean error is ours, so that a mask's size does
not matter.
"""

from typing import Literal

from torch import Tensor

from rewards.types import RewardError, RewardInputs


class MaskedPixel:
    """Negative mean error of the pixels inside (or outside) the mask.

        r = −Σ M·|y − y*|^p / (C·Σ M),   p = 2 (l2) or 1 (l1)

    A row whose mask is empty on the wanted side scores 0, the best, since there is nothing to get wrong.

    Args:
        norm: ``l2`` for the squared error, ``l1`` for the absolute one.
        where: ``inside`` the mask, or ``outside`` of it.

    Reference: OmniRefiner, arXiv 2511.19990, figure 3 ("masked MSE score").

    >>> import torch
    >>> image, target = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 3, 8, 8)
    >>> MaskedPixel()(RewardInputs(images=image, targets=target, masks=torch.ones(1, 1, 8, 8)))
    tensor([-0.2500])
    """

    needs = frozenset({"targets", "masks"})
    uses: frozenset[str] = frozenset()
    range = (-1.0, 0.0)

    def __init__(self, *, norm: Literal["l1", "l2"] = "l2", where: Literal["inside", "outside"] = "inside") -> None:
        self.norm, self.where = norm, where

    def __call__(self, inputs: RewardInputs) -> Tensor:
        targets, masks = inputs.condition("targets"), inputs.condition("masks")
        if targets.shape[2:] != inputs.images.shape[2:]:
            raise RewardError(
                f"images of {tuple(inputs.images.shape[2:])} pixels against targets of {tuple(targets.shape[2:])}"
            )
        weights = inputs.per_sample(masks if self.where == "inside" else 1 - masks)
        difference = inputs.images - inputs.per_sample(targets)
        error = difference.square() if self.norm == "l2" else difference.abs()
        counted = error.shape[1] * weights.sum(dim=(1, 2, 3))
        return -(weights * error).sum(dim=(1, 2, 3)) / counted.clamp(min=1e-6)
