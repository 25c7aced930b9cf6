"""Guidance without a network that was distilled for it: predictions under several conditions are weighed against each
other, and all of them come from one call of the network.

Shapes: B samples · N branches; latents have any shape after the first axis.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from policies.branches import branch_weights
from policies.errors import PolicyError
from policies.settings import Guidance

__all__ = ["branch_weights", "guided", "of_length", "scales_of"]


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
    counted, parts = predictions(network, latents, sigma, branches, weights)
    return sum((weight * part for weight, part in zip(counted, parts, strict=True)), torch.zeros_like(parts[0]))


def predictions(
    network: Callable[..., Tensor],
    latents: Tensor,
    sigma: Tensor,
    branches: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
) -> tuple[list[float], list[Tensor]]:
    """The weights other than 0, and what the network predicts under these branches, in the order of ``branches``.

    Args:
        as of ``guided``.
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
    return [weight for _, weight in counted], list(together.float().chunk(count))


def of_length(values: Tensor, like: Tensor) -> Tensor:
    """Each token in its own direction, as long as that of another prediction.

        v·‖v_like‖ / ‖v‖

    Args:
        values, like: ``[B, L, D]``; lengths are over D.

    Reference: Qwen-Image's guidance (diffusers ``QwenImageEditPlusPipeline``), so that large scales do not make
    velocities longer.

    >>> of_length(torch.tensor([[[6.0, 8.0]]]), torch.tensor([[[0.0, 5.0]]]))
    tensor([[[3., 4.]]])
    """
    return values * (like.norm(dim=-1, keepdim=True) / values.norm(dim=-1, keepdim=True))


def scales_of(guidance: Guidance, names: Sequence[str]) -> list[float]:
    """The scale of each condition, in the order in which branches add them.

    Args:
        guidance: one of each by name; one number if there is one condition, and 1 for none.

    Raises:
        PolicyError: another condition has a scale, or one has none.

    >>> scales_of(4.0, ["text"]), scales_of({"text": 7.5, "image": 1.5}, ["image", "text"])
    ([4.0], [1.5, 7.5])
    """
    if not isinstance(guidance, Mapping):
        given = dict.fromkeys(names, guidance) if guidance == 1 or len(names) == 1 else {"": guidance}
    else:
        given = dict(guidance)
    if set(given) != set(names):
        found = ", ".join(f"{name or 'one for all'}: {scale:g}" for name, scale in given.items())
        raise PolicyError(f"guidance: expected a scale of each of {', '.join(names)}, or 1 for none, found {found}")
    return [given[name] for name in names]


def _repeated(values: Tensor, times: int) -> Tensor:
    return values.repeat(times, *[1] * (values.ndim - 1))
