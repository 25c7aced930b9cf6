"""Numbers that tell whether a policy gradient is healthy.

Shapes: P prompts · G samples per prompt (a group) · B samples · R rewards.
"""

from torch import Tensor


def zero_variance_groups(reward_PG: Tensor, eps: float = 1e-6) -> Tensor:
    """How many groups have no spread, and so nothing to teach.

    >>> import torch
    >>> zero_variance_groups(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    tensor(1)
    """
    return (reward_PG.std(dim=1, correction=0) <= eps).sum()


def approximate_kl(log_prob_B: Tensor, old_log_prob_B: Tensor) -> Tensor:
    """An estimate of KL(old ‖ current) from samples of the old policy that is never negative, one value per sample.

        k₃ = (ρ − 1) − log ρ,   ρ = exp(log π_θ − log π_old)

    Reference: J. Schulman, "Approximating KL divergence", 2020.

    >>> import torch
    >>> approximate_kl(torch.zeros(1), torch.zeros(1))
    tensor([0.])
    """
    log_ratio_B = log_prob_B - old_log_prob_B
    return log_ratio_B.expm1() - log_ratio_B


def reward_spread(reward_PG: Tensor) -> Tensor:
    """The mean standard deviation inside a group, in the reward's unit.

    >>> import torch
    >>> reward_spread(torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
    tensor(0.5000)
    """
    return reward_PG.std(dim=1, correction=0).mean()
