"""Group-relative advantages: how much better a sample is than its siblings.

Shapes: P prompts · G samples per prompt (a group) · R rewards.

Differs from the papers: a group without spread contributes exactly nothing; the released codes divide rounding noise
by a small constant there.
"""

from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["normalize_then_sum", "sum_then_normalize"]


def group_advantages(reward_PG: Tensor, *, normalize_std: bool = True, eps: float = 1e-6) -> Tensor:
    """Centre the rewards of each group, and scale them to unit spread.

        A_pg = (r_pg − mean_g r) / std_g r

    The spread is the population one (no Bessel correction). With ``normalize_std=False`` only the centring is kept
    (Dr.GRPO, arXiv 2503.20783), which leaves easy and hard prompts their own weight.

    Args:
        reward_PG: rewards ``[P, G]``, larger is better, any unit; finite.
        eps: a group whose spread is below this carries no signal, and gets zeros.

    Returns:
        Advantages ``[P, G]``, without unit; each row sums to zero.

    Raises:
        ValueError: the rewards are not ``[P, G]``, or not finite.

    Reference: DeepSeekMath, arXiv 2402.03300, section 4.1.2 (outcome supervision).

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), normalize_std=False)
    tensor([[ 0.7500, -0.2500, -0.2500, -0.2500]])
    """
    if reward_PG.ndim != 2:
        raise ValueError(f"rewards must be [prompts, group], got shape {tuple(reward_PG.shape)}")
    if not torch.isfinite(reward_PG).all():
        raise ValueError("rewards must be finite: a failed reward is dropped before this point, never scored")
    centred_PG = reward_PG - reward_PG.mean(dim=1, keepdim=True)
    std_P1 = reward_PG.std(dim=1, keepdim=True, correction=0)
    has_signal_P1 = std_P1 > eps
    scale_P1 = std_P1.clamp_min(eps) if normalize_std else torch.ones_like(std_P1)
    return torch.where(has_signal_P1, centred_PG / scale_P1, torch.zeros_like(centred_PG))


def sum_then_normalize(reward_RPG: Tensor, weight_R: Tensor) -> Tensor:
    """Sum the weighted rewards first, then compare siblings: a reward has as much say as its spread and weight give it.

        A_pg = group_advantage( Σ_r w_r · r_pg )

    Args:
        reward_RPG: one ``[P, G]`` table per reward.
        weight_R: weights; a reward of weight 0 has no say.

    Returns:
        Advantages ``[P, G]``; each group with signal has zero mean and unit spread.

    Reference: DeepSeekMath, arXiv 2402.03300, section 4.1.2, with a weighted sum for its reward.

    >>> sum_then_normalize(torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), torch.tensor([1.0, 0.5]))
    tensor([[-1.,  1.]])
    """
    return group_advantages(torch.einsum("r,rpg->pg", weight_R, reward_RPG))


def normalize_then_sum(reward_RPG: Tensor, weight_R: Tensor) -> Tensor:
    """Give every reward the same say, whatever its scale, before the weights apply (GDPO).

        A_pg = batch_normalize( Σ_r w_r · group_advantage(r)_pg )

    Summing raw rewards first lets the widest one drown the others: of two independent rewards with spreads 0.02 and 0.6
    the sum follows the small one with correlation 0.03, this order with 0.71.

    Args:
        reward_RPG: one ``[P, G]`` table per reward.
        weight_R: weights, in any common unit; their ratio is what counts.

    Returns:
        Advantages ``[P, G]`` with zero mean and unit spread over the whole batch, or zeros if no group has signal.

    Reference: GDPO, arXiv 2601.05242.

    >>> normalize_then_sum(torch.tensor([[[1.0, 3.0]], [[0.2, 0.1]]]), torch.tensor([1.0, 0.5]))
    tensor([[-1.,  1.]])
    """
    advantage_RPG = torch.stack([group_advantages(reward_PG) for reward_PG in reward_RPG])
    advantage_PG = torch.einsum("r,rpg->pg", weight_R, advantage_RPG)
    return group_advantages(advantage_PG.reshape(1, -1)).reshape(advantage_PG.shape)


AGGREGATIONS = {"normalize_then_sum": normalize_then_sum, "sum_then_normalize": sum_then_normalize}
