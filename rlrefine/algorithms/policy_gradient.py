"""The clipped policy gradient: push up what did better than its siblings, but only so far.

Shapes: B samples.

Differs from the papers: nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class LossOutput:
    """One micro-batch's share of a loss: what to differentiate, and what to log, summed over the step."""

    loss: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)


def clipped_policy_loss(
    log_prob_B: Tensor, old_log_prob_B: Tensor, advantage_B: Tensor, clip_range: float | None
) -> Tensor:
    """The pessimistic surrogate of PPO, one value per sample.

        ρ = exp(log π_θ − log π_old),   L = max( −A·ρ, −A·clip(ρ, 1 − c, 1 + c) )

    Args:
        log_prob_B: log-density under the weights that are trained, with gradients.
        old_log_prob_B: log-density under the weights that made the sample.
        advantage_B: how much better than its siblings.
        clip_range: c; none leaves the ratio alone, which is right where each rollout is used for one update only.

    Returns:
        ``[B]``. Where ρ is 1 the gradient is −A·∇log π_θ; where clipping bites it is 0.

    Reference: PPO, arXiv 1707.06347, equation 7; for diffusion, Flow-GRPO, arXiv 2505.05470, equation 4.

    >>> zero = torch.zeros(1)
    >>> clipped_policy_loss(zero, zero, torch.tensor([2.0]), clip_range=0.1)
    tensor([-2.])
    """
    ratio_B = (log_prob_B - old_log_prob_B).exp()
    if clip_range is None:
        return -advantage_B * ratio_B
    clipped_B = ratio_B.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantage_B * ratio_B, -advantage_B * clipped_B)


def clip_fractions(
    log_prob_B: Tensor, old_log_prob_B: Tensor, advantage_B: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """Which samples the clip holds back, below and above.

    Below: the ratio fell under 1 − c for a sample that did worse; above: it rose over 1 + c for one that did better.

    Returns:
        Two boolean ``[B]``.

    >>> below, above = clip_fractions(torch.tensor([0.2]), torch.tensor([0.0]), torch.tensor([1.0]), 0.1)
    >>> below.item(), above.item()
    (False, True)
    """
    ratio_B = (log_prob_B - old_log_prob_B).exp()
    return (ratio_B < 1 - clip_range) & (advantage_B < 0), (ratio_B > 1 + clip_range) & (advantage_B > 0)
