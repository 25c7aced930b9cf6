"""Any full-reference metric on one side of a mask only.

Shapes: P rows · B samples · C H W image.
"""

from typing import Literal

import torch
from torch import Tensor

from rewards.features import FeatureCache
from rewards.masks import feathered
from rewards.metrics import Metric, Similarity, metric_of, range_of
from rewards.types import RewardError, RewardInputs

Side = Literal["inside", "outside"]


class MaskedPerceptual:
    """Similarity to the target of an image that differs from it on one side of the mask only.

        r = sim(M·y + (1 − M)·y*, y*),   M the mask (inside) or what it leaves (outside)

    So any metric of whole images can be had of a part, its neighbourhood included. A row whose mask is empty on the
    wanted side scores best, since there is nothing to get wrong.

    Args:
        metric: a name of ``rewards.metrics.METRICS``, a ``Metric`` such as ``DreamSimMetric``, or any function of two
            batches ``[N, C, h, w]`` that gives ``[N]``.
        where: ``inside`` the mask, or ``outside`` of it.
        feather: pixels over which the mask's edge is softened on each side.
        keep_targets: targets whose embeddings are kept for the next calls; it pays for metrics with a network.

    Range: that of the metric: −1 to 1 of ``ssim`` and ``correlation``, −1 to 0 of ``l1``, ``l2`` and ``charbonnier``.

    Cost: that of the metric on whole images, once for each sample; what it makes of a target, once a row.

    Hacked by: what the metric overlooks, see ``patch_perceptual``. The other side of the mask is free, and a small mask
        hardly moves the score, since most of the image is the target's own.

    >>> image, target = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    >>> mask = torch.zeros(1, 1, 32, 32)
    >>> MaskedPerceptual(metric="ssim")(RewardInputs(images=image, targets=target, masks=mask))
    tensor([1.])
    """

    needs = frozenset({"targets", "masks"})
    uses: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        metric: str | Metric | Similarity = "ssim",
        where: Side = "inside",
        feather: float = 0.0,
        keep_targets: int = 0,
    ) -> None:
        self.metric = metric_of(metric)
        self.range = range_of(self.metric)
        self.where: Side = where
        self.feather = feather
        self.targets = FeatureCache(units=keep_targets)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        targets = inputs.condition("targets")
        weight = inputs.per_sample(side_of(inputs, self.where, self.feather))
        target_B = inputs.per_sample(targets)
        known = weight * inputs.images + (1 - weight) * target_B
        found = torch.cat(self.targets(self.metric.embed, list(targets.split(1))))
        return self.metric.compare(self.metric.embed(known), inputs.per_sample(found))


def side_of(inputs: RewardInputs, where: Side, feather: float, against: str = "targets") -> Tensor:
    """How much each pixel of a row counts, ``[P, 1, H, W]``.

    Raises:
        RewardError: images, masks and what images are compared with are not of one size.
    """
    masks = inputs.condition("masks")
    sizes = {"images": inputs.images, against: inputs.condition(against), "masks": masks}
    if len({tuple(each.shape[2:]) for each in sizes.values()}) > 1:
        found = ", ".join(f"{name} of {each.shape[2]} × {each.shape[3]}" for name, each in sizes.items())
        raise RewardError(f"expected images, {against} and masks of one size in pixels, got {found}")
    soft = feathered(masks, feather)
    return soft if where == "inside" else 1 - soft
