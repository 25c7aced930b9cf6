"""Did an edit leave the structure of its picture as it was? Told from gradients, without a network.

Shapes: P rows · B samples · C H W image.

Differs from the source: gradients are compared as vectors, so that a reversed edge is worse than none; at several
scales, of which the coarse ones do not see a new texture; and the mean over the image is taken in place of the spread.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rewards.filters import check_scales, derivatives, luminance, smaller
from rewards.types import RewardError, RewardInputs

LEAST_SLOPE = 0.025  # of brightness per pixel, below which a gradient counts little; GMSD's T = 170 for 8 bits


class GradientStructure:
    """Similarity of the gradients of brightness to those of the draft, averaged over the image and over scales.

        r = mean_s mean_i (2·⟨∇y, ∇x⟩ + c) / (‖∇y‖² + ‖∇x‖² + c),   c = 0.025²

    y is the image and x the draft, both made smaller by the scale s. One where both are equal, or plain; about zero
    where an edge is missing or new, or stands at a right angle; down to −1 where it is reversed.

    Args:
        scales: how many times smaller pictures are compared, whole numbers; texture finer than this is not seen.

    Cost: two small convolutions for each scale; no network and no weights.

    Hacked by: no edit at all, which scores best, so this reward belongs beside one that asks for the edit; and, where
        the picture is plain, by anything whose slopes are small or finer than the scales.

    Reference: gradient magnitude similarity, Xue et al., arXiv 1308.3052, equation 4.

    >>> image = torch.rand(2, 3, 16, 16)
    >>> GradientStructure()(RewardInputs(images=image, drafts=image))
    tensor([1., 1.])
    """

    needs = frozenset({"drafts"})
    uses: frozenset[str] = frozenset()
    range = (-1.0, 1.0)

    def __init__(self, *, scales: Sequence[int] = (2, 4)) -> None:
        self.scales = tuple(scales)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        drafts = inputs.condition("drafts")
        if drafts.shape[2:] != inputs.images.shape[2:]:
            raise RewardError(
                f"images of {tuple(inputs.images.shape[2:])} pixels against drafts of {tuple(drafts.shape[2:])}"
            )
        check_scales(drafts.shape[2:], self.scales)
        image, draft = luminance(inputs.images), luminance(drafts)
        return torch.stack([self._at(scale, image, draft, inputs) for scale in self.scales]).mean(dim=0)

    def _at(self, scale: int, image: Tensor, draft: Tensor, inputs: RewardInputs) -> Tensor:
        found = derivatives(smaller(image, scale), 2)
        wanted = inputs.per_sample(derivatives(smaller(draft, scale), 2))
        common = 2 * (found * wanted).sum(dim=1) + LEAST_SLOPE**2
        both = found.square().sum(dim=1) + wanted.square().sum(dim=1) + LEAST_SLOPE**2
        return (common / both).mean(dim=(1, 2))
