"""The patch-wise perceptual reward of OmniRefiner: compare an image with its target patch by patch.

Shapes: P rows · B samples · K patches of an image · C H W image.

Differs from the paper: whether its patches tile the image or are one crop is not given. Here they tile it, and a
patch counts by how much of the mask lies in it, which with one crop-sized patch is the other reading. The metric is a
part of its own: DreamSim in the paper, SSIM where no weights are at hand.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.similarity import WINDOW, correlation, ssim
from rewards.types import RewardError, RewardInputs

Metric = Callable[[Tensor, Tensor], Tensor]

METRICS: dict[str, Metric] = {"ssim": ssim, "correlation": correlation}


def image_patches(image: Tensor, patch: int, stride: int) -> Tensor:
    """Cut images ``[B, C, H, W]`` into square patches ``[B, K, C, patch, patch]``, row by row.

    >>> image_patches(torch.zeros(2, 3, 64, 48), 16, 16).shape
    torch.Size([2, 12, 3, 16, 16])
    """
    batch, channels = image.shape[:2]
    columns = F.unfold(image, patch, stride=stride)
    return columns.transpose(1, 2).reshape(batch, -1, channels, patch, patch)


class PatchPerceptual:
    """Similarity of each patch to the same patch of the target, averaged with the mask as weight.

        r = Σ_k w_k·sim(y_k, y*_k) / Σ_k w_k,   w_k = mean of the mask in patch k

    Without a mask, and where it is empty, every patch counts the same.

    Args:
        metric: ``ssim``, ``correlation``, or any function of two batches ``[N, C, h, w]`` that gives ``[N]`` in [−1,
            1].
        patch: side of a patch in pixels.
        stride: pixels from one patch to the next; the patch's own side by default, so that patches do not overlap.

    Raises:
        RewardError: a patch does not fit into the image.

    Reference: OmniRefiner, arXiv 2511.19990, section 3 (patch-wise reward).

    >>> image = torch.rand(1, 3, 32, 32)
    >>> PatchPerceptual(patch=16)(RewardInputs(images=image, targets=image))
    tensor([1.])
    """

    needs = frozenset({"targets"})
    uses: frozenset[str] = frozenset()  # the mask only weights; a row without one is scored too
    range = (-1.0, 1.0)

    def __init__(
        self, *, metric: Literal["ssim", "correlation"] | Metric = "ssim", patch: int = 16, stride: int | None = None
    ) -> None:
        self.metric = METRICS[metric] if isinstance(metric, str) else metric
        self.patch, self.stride = patch, stride or patch
        if metric == "ssim" and patch < WINDOW:
            raise ValueError(f"patch: SSIM needs at least {WINDOW} pixels, got {patch}")

    def __call__(self, inputs: RewardInputs) -> Tensor:
        targets = inputs.condition("targets")
        if targets.shape[2:] != inputs.images.shape[2:] or min(targets.shape[2:]) < self.patch:
            raise RewardError(
                f"patches of {self.patch} pixels need images and targets of one size that is no smaller, "
                f"got {tuple(inputs.images.shape[2:])} and {tuple(targets.shape[2:])}"
            )
        image_BK = image_patches(inputs.images, self.patch, self.stride)
        target_BK = inputs.per_sample(image_patches(targets, self.patch, self.stride))
        similarity_BK = self.metric(image_BK.flatten(0, 1), target_BK.flatten(0, 1)).reshape(image_BK.shape[:2])
        weight_BK = inputs.per_sample(self._weights(inputs, targets))
        return (weight_BK * similarity_BK).sum(dim=1) / weight_BK.sum(dim=1)

    def _weights(self, inputs: RewardInputs, targets: Tensor) -> Tensor:
        """How much each patch counts, ``[P, K]``, not all zero in any row."""
        if inputs.masks is None:
            return torch.ones_like(image_patches(targets[:, :1], self.patch, self.stride)[:, :, 0, 0, 0])
        weight_PK = image_patches(inputs.masks, self.patch, self.stride).mean(dim=(2, 3, 4))
        empty_P1 = weight_PK.sum(dim=1, keepdim=True) == 0
        return torch.where(empty_P1, torch.ones_like(weight_PK), weight_PK)
