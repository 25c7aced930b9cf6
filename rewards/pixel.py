"""The masked pixel reward of OmniRefiner: how far is each pixel of the detail from where it should be?

Shapes: P rows · B samples · C H W image.

Differs from the paper: its sign and scale are not given. The negative mean error is ours, so that a mask's size does
not matter.
"""

from typing import Literal

from torch import Tensor

from rewards.masked import Side, side_of
from rewards.metrics import penalty
from rewards.types import RewardInputs


class MaskedPixel:
    """Negative mean error of the pixels inside (or outside) the mask.

        r = −Σ M·ρ(y − y*) / (C·Σ M),   ρ(d) = d² (l2), |d| (l1) or √(d² + ε²) − ε (charbonnier, ε = 1e-3)

    y* is the row's target, or its draft: with ``where="outside"`` that is the reconstruction term of SPIE.

    A row whose mask is empty on the wanted side scores 0, the best, since there is nothing to get wrong.

    Args:
        norm: ``l2`` for the squared error, ``l1`` for the absolute one, ``charbonnier`` for a smooth absolute one.
        where: ``inside`` the mask, or ``outside`` of it.
        feather: pixels over which the mask's edge is softened on each side.
        against: ``targets``, or ``drafts`` for what an edit should leave as it was.

    Cost: a subtraction for each pixel; no network and no weights.

    Hacked by: blur: the mean of everything that could be there has the least squared error, and a sharp detail that is
        a pixel off scores worse than none. The other side of the mask is free; a second one with ``where: outside``
        holds it.

    Reference: OmniRefiner, arXiv 2511.19990, figure 3 ("masked MSE score"); SPIE, arXiv 2504.12833 (reconstruction).

    >>> import torch
    >>> image, target = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 3, 8, 8)
    >>> MaskedPixel()(RewardInputs(images=image, targets=target, masks=torch.ones(1, 1, 8, 8)))
    tensor([-0.2500])
    """

    uses: frozenset[str] = frozenset()
    range = (-1.0, 0.0)

    def __init__(
        self,
        *,
        norm: Literal["l1", "l2", "charbonnier"] = "l2",
        where: Side = "inside",
        feather: float = 0.0,
        against: Literal["targets", "drafts"] = "targets",
    ) -> None:
        self.norm, self.feather, self.against = norm, feather, against
        self.where: Side = where
        self.needs = frozenset({against, "masks"})

    def __call__(self, inputs: RewardInputs) -> Tensor:
        weights = inputs.per_sample(side_of(inputs, self.where, self.feather, self.against))
        error = penalty(inputs.images - inputs.per_sample(inputs.condition(self.against)), self.norm)
        counted = error.shape[1] * weights.sum(dim=(1, 2, 3))
        return -(weights * error).sum(dim=(1, 2, 3)) / counted.clamp(min=1e-6)
