"""The patch-wise perceptual reward of OmniRefiner: compare an image with its target patch by patch.

Shapes: P rows · B samples · K patches of an image · C H W image.

Differs from the paper: whether its patches tile the image or are one crop is not given. Here both can be had: a grid
in which a patch counts by how much of the mask lies in it, or one crop around the mask. The metric is a part of its
own: DreamSim in the paper (``rewards.dreamsim``), SSIM where no weights are at hand.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.crops import around_masks
from rewards.features import FeatureCache
from rewards.metrics import Metric, Similarity, metric_of, range_of
from rewards.settings import Cut, check_patches
from rewards.types import RewardError, RewardInputs


def image_patches(image: Tensor, patch: int | None, stride: int) -> Tensor:
    """Cut images ``[B, C, H, W]`` into square patches ``[B, K, C, patch, patch]``, row by row; without a size the whole
    image is one.

    >>> image_patches(torch.zeros(2, 3, 64, 48), 16, 16).shape
    torch.Size([2, 12, 3, 16, 16])
    """
    if patch is None:
        return image.unsqueeze(1)
    batch, channels = image.shape[:2]
    columns = F.unfold(image, patch, stride=stride)
    return columns.transpose(1, 2).reshape(batch, -1, channels, patch, patch)


class PatchPerceptual:
    """Similarity of each patch to the same patch of the target, averaged with the mask as weight.

        r = Σ_k w_k·sim(y_k, y*_k) / Σ_k w_k,   w_k = mean of the mask in patch k

    Without a mask, and where it is empty, every patch counts the same. ``cut="crop"`` takes one patch instead (K = 1),
    in the middle of the mask (``rewards.crops``).

    Args:
        metric: a name of ``rewards.metrics.METRICS``, a ``Metric`` such as ``DreamSimMetric``, or any function of two
            batches ``[N, C, h, w]`` that gives ``[N]``.
        patch: side of a patch in pixels; None for the whole image.
        stride: pixels from one patch to the next; the patch's own side by default, so that patches do not overlap.
        cut: a ``grid`` of patches, or one ``crop``.
        keep_targets: rows whose targets' embeddings are kept for the next calls; it pays for metrics with a network.

    Raises:
        RewardError: a patch does not fit into the image.

    Range: that of the metric: −1 to 1 of ``ssim`` and ``correlation``, −1 to 0 of ``l1``, ``l2`` and ``charbonnier``.

    Cost: some filters over each sample; no network and no weights. A metric with a network goes over every patch.

    Hacked by: what the metric overlooks. SSIM hardly sees an even shift of colour or brightness, ``correlation`` not at
        all; in flat patches both are decided by noise; ``l1`` and ``l2`` like blur, the mean of everything that could
        be there. With a mask, what lies in no patch that the mask touches is free.

    Reference: OmniRefiner, arXiv 2511.19990, section 3 (patch-wise reward).

    >>> image = torch.rand(1, 3, 32, 32)
    >>> PatchPerceptual(patch=16)(RewardInputs(images=image, targets=image))
    tensor([1.])
    """

    needs = frozenset({"targets"})
    uses: frozenset[str] = frozenset()  # the mask only weights; a row without one is scored too

    def __init__(
        self,
        *,
        metric: str | Metric | Similarity = "ssim",
        patch: int | None = 16,
        stride: int | None = None,
        cut: Cut = "grid",
        keep_targets: int = 0,
    ) -> None:
        check_patches(patch, stride, cut)
        self.targets = FeatureCache(units=keep_targets)
        self.metric = metric_of(metric)
        self.range = range_of(self.metric)
        self.patch, self.stride = patch, stride or patch or 1
        self.cut: Cut = cut
        least = getattr(self.metric, "least", 1)
        if patch is not None and patch < least:
            raise ValueError(f"patch: {metric} needs at least {least} pixels, got {patch}")

    def __call__(self, inputs: RewardInputs) -> Tensor:
        targets = inputs.condition("targets")
        if targets.shape[2:] != inputs.images.shape[2:] or min(targets.shape[2:]) < (self.patch or 1):
            raise RewardError(
                f"patches of {self.patch or 'any number of'} pixels need images and targets of one size that is no "
                f"smaller, got {tuple(inputs.images.shape[2:])} and {tuple(targets.shape[2:])}"
            )
        if self.cut == "crop" and self.patch is not None:
            inputs = around_masks(inputs, self.patch)
            targets = inputs.condition("targets")
        weight_PK = self._weights(inputs, targets)
        weight_BK = inputs.per_sample(weight_PK)
        similarity_BK = self._similarity(inputs, targets, weight_PK > 0)
        return (weight_BK * similarity_BK).sum(dim=1) / weight_BK.sum(dim=1)

    def _similarity(self, inputs: RewardInputs, targets: Tensor, counts_PK: Tensor) -> Tensor:
        """Similarity of the patches that count, ``[B, K]``; 0 for the others, which the metric never sees."""
        image_BK = image_patches(inputs.images, self.patch, self.stride)
        target_PK = image_patches(targets, self.patch, self.stride)
        counts_BK = inputs.per_sample(counts_PK)
        place_PK = counts_PK.flatten().cumsum(0).reshape(counts_PK.shape) - 1  # among the patches that count
        target = self._targets(target_PK, counts_PK)[inputs.per_sample(place_PK)[counts_BK]]
        similarity = self.metric.compare(self.metric.embed(image_BK[counts_BK]), target)
        return similarity.new_zeros(counts_BK.shape).masked_scatter(counts_BK, similarity)

    def _targets(self, target_PK: Tensor, counts_PK: Tensor) -> Tensor:
        """What the metric makes of the targets' patches that count, all in one row."""
        if not self.targets.units:
            return self.metric.embed(target_PK[counts_PK])
        rows = [patches[counts_K] for patches, counts_K in zip(target_PK, counts_PK, strict=True)]
        return torch.cat(self.targets(self.metric.embed, rows))

    def _weights(self, inputs: RewardInputs, targets: Tensor) -> Tensor:
        """How much each patch counts, ``[P, K]``, not all zero in any row."""
        if inputs.masks is None:
            return torch.ones_like(image_patches(targets[:, :1], self.patch, self.stride)[:, :, 0, 0, 0])
        weight_PK = image_patches(inputs.masks, self.patch, self.stride).mean(dim=(2, 3, 4))
        empty_P1 = weight_PK.sum(dim=1, keepdim=True) == 0
        return torch.where(empty_P1, torch.ones_like(weight_PK), weight_PK)
