"""Guidance without a network that was distilled for it: predictions under several conditions are weighed against each
other, and all of them come from one call of the network.

Shapes: B samples · N branches; latents have any shape after the first axis.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from policies.branches import branch_weights

__all__ = ["branch_weights", "guided"]


def guided(
    network: Callable[..., Tensor],
    latents: Tensor,
    sigma: Tensor,
    branches: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
) -> Tensor:
    """The weighted sum of what the network predicts under each branch's conditions, from one call of it.

        Σ_i w_i·network(latents, sigma, **branches_i)

    Branches of weight 0 are left out, so that a scale of 1 costs no evaluation for the branch below it.

    Args:
        network: takes latents, noise levels and named conditions of any number of samples.
        latents: ``[B, …]``, the same for all branches.
        sigma: ``[B]``.
        branches: for each the conditions ``[B, …]``, by the names that the network takes; all have the same names.
        weights: one of each branch.

    Returns:
        ``[B, …]``, float32.

    Raises:
        ValueError: branches and weights differ in number, branches have different names, or all weights are 0.

    Reference: as of ``branch_weights``; the four branches of SPIE's code go through its network in one batch too.

    >>> double = lambda latents, sigma, shift: 2 * latents + shift
    >>> shifts = [{"shift": torch.tensor([0.0])}, {"shift": torch.tensor([1.0])}]
    >>> guided(double, torch.tensor([5.0]), torch.tensor([0.5]), shifts, branch_weights(3.0))   # 10 + 3·(11 − 10)
    tensor([13.])
    """
    if len(branches) != len(weights):
        raise ValueError(f"expected one weight of each of {len(branches)} branches, found {len(weights)}")
    if len({frozenset(branch) for branch in branches}) > 1:
        raise ValueError(f"expected the same conditions in all branches, found {[sorted(each) for each in branches]}")
    counted = [(branch, weight) for branch, weight in zip(branches, weights, strict=True) if weight]
    if not counted:
        raise ValueError("expected a weight other than 0, found none")
    count = len(counted)
    conditions = {name: torch.cat([branch[name] for branch, _ in counted]) for name in branches[0]}
    together = network(_repeated(latents, count), _repeated(sigma, count), **conditions)
    parts = together.float().chunk(count)
    return sum((weight * part for (_, weight), part in zip(counted, parts, strict=True)), torch.zeros_like(parts[0]))


def _repeated(values: Tensor, times: int) -> Tensor:
    return values.repeat(times, *[1] * (values.ndim - 1))
