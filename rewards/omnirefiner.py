"""The reward of OmniRefiner as one composition: alike on the whole, and right in the detail.

Differs from the paper: it gives neither weights nor normalisation nor the sign and scale of the pixel term; ours are
equal weights and the negative mean.
"""

from rewards.composition import Component, WeightedRewards
from rewards.metrics import Metric, Similarity
from rewards.patches import PatchPerceptual
from rewards.pixel import MaskedPixel


def omnirefiner_rewards(
    metric: str | Metric | Similarity | None = None,
    *,
    patch: int | None = None,
    perceptual: float = 1.0,
    pixel: float = 1.0,
    feather: float = 0.0,
) -> WeightedRewards:
    """DreamSim similarity to the target, and the negative squared error inside the mask.

        r = w₁·sim(y, y*) − w₂·Σ M·(y − y*)² / (C·Σ M)

    The two scales lie orders of magnitude apart, so let an objective compare siblings by each and then sum
    (``aggregation: normalize_then_sum``, its default), where weights are what they seem.

    Args:
        metric: what compares images; by default DreamSim's ensemble, whose weights must be at hand.
        patch: side of a patch in pixels; None compares whole images or, where the policy works on crops, whole crops.
        perceptual, pixel: w₁ and w₂.
        feather: pixels over which the mask's edge is softened on each side.

    Raises:
        RewardError: the package or the weights of DreamSim are missing.

    Reference: OmniRefiner, arXiv 2511.19990, figure 3; in a recipe it is ``omnirefiner``'s ``rewards``.

    >>> import torch
    >>> from rewards import RewardInputs
    >>> target, mask = torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    >>> inputs = RewardInputs(images=target + 0.5, targets=target, masks=mask)
    >>> omnirefiner_rewards("l1", pixel=2.0)(inputs).total                    # −½ − 2·¼
    tensor([-1.])
    """
    if metric is None:
        from rewards.dreamsim import DreamSimMetric  # which asks for its package and weights

        metric = DreamSimMetric()
    return WeightedRewards(
        {
            "perceptual": Component(reward=PatchPerceptual(metric=metric, patch=patch), weight=perceptual),
            "pixel": Component(reward=MaskedPixel(feather=feather), weight=pixel),
        }
    )
