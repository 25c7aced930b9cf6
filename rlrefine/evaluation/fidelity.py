"""How near an edited picture is to what it should be, or to what it was: measures that need no reward.

Shapes: P rows, one picture each.
"""

from typing import Literal

from torch import Tensor

from rewards import RewardInputs, ssim
from rlrefine.evaluation.metrics import CAP, psnr


class Fidelity:
    """PSNR in decibels (at most 60), or SSIM, to the target or the draft.

    Args:
        measure: ``psnr`` or ``ssim``.
        to: ``targets`` or ``drafts``.
        where: of PSNR: all of the picture, ``inside`` the mask or ``outside``.

    >>> import torch
    >>> Fidelity(to="drafts")(RewardInputs(images=torch.full((1, 3, 8, 8), 0.1), drafts=torch.zeros(1, 3, 8, 8)))
    tensor([20.])
    """

    uses: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        measure: Literal["psnr", "ssim"] = "psnr",
        to: Literal["targets", "drafts"] = "targets",
        where: Literal["everywhere", "inside", "outside"] = "everywhere",
    ) -> None:
        self.measure, self.to, self.where = measure, to, where
        self.needs = frozenset({to} if where == "everywhere" else {to, "masks"})
        self.range = (0.0, CAP) if measure == "psnr" else (-1.0, 1.0)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        wanted = inputs.per_sample(inputs.condition(self.to))
        if self.measure == "ssim":
            return ssim(inputs.images, wanted)
        if self.where == "everywhere":
            return psnr(inputs.images, wanted)
        mask = inputs.per_sample(inputs.condition("masks"))
        return psnr(inputs.images, wanted, mask if self.where == "inside" else 1 - mask)
