"""Preferences: make what was ranked higher more likely than what was ranked lower, as measured from a reference policy.

Shapes: P prompts · G samples per prompt (a group), i preferred to j · B pairs or samples; latents have any shape after
the first axis.

Differs from the papers: equal scores are no preference and are never compared; the released codes sort them, and so
prefer whichever comes first.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Comparison = Literal["ranking", "best_worst"]


def preferences(
    score_PG: Tensor, compare: Comparison = "ranking", *, kept_PG: Tensor | None = None, eps: float = 1e-6
) -> Tensor:
    """Which samples of a group are compared, and which of the two is preferred.

        ranking:     i over j  ⇔  s_i > s_j + eps                    all G samples are ranked
        best_worst:  the same for the best and the worst only         one pair of a group

    Args:
        score_PG: scores ``[P, G]``, larger is better; finite.
        compare: all samples, or the two ends; of equals at an end the first one stands for it.
        kept_PG: boolean ``[P, G]``; a sample that is not kept is compared with none, whatever its score is.
        eps: scores that differ by no more are equal, and equals are not compared.

    Returns:
        Boolean ``[P, G, G]``: entry (p, i, j) is true where sample i of prompt p is preferred to sample j.

    Raises:
        ValueError: the scores are not ``[P, G]``, not finite, or the comparison is unknown.

    Reference: SPIE, arXiv 2504.12833 (ranking); D3PO, arXiv 2311.13231 (pairs, ties skipped).

    >>> preferences(torch.tensor([[2.0, 1.0, 1.0]])).int()
    tensor([[[0, 1, 1],
             [0, 0, 0],
             [0, 0, 0]]], dtype=torch.int32)
    """
    if score_PG.ndim != 2:
        raise ValueError(f"scores must be [prompts, group], got shape {tuple(score_PG.shape)}")
    kept_PG = torch.ones_like(score_PG, dtype=torch.bool) if kept_PG is None else kept_PG
    if not (torch.isfinite(score_PG) | ~kept_PG).all():
        raise ValueError("scores must be finite: a failed reward is dropped before this point, never ranked")
    preferred_PGG = score_PG[:, :, None] > score_PG[:, None, :] + eps
    preferred_PGG = preferred_PGG & kept_PG[:, :, None] & kept_PG[:, None, :]
    match compare:
        case "ranking":
            return preferred_PGG
        case "best_worst":
            return preferred_PGG & _ends(score_PG, kept_PG)
    raise ValueError(f"unknown comparison {compare!r}: expected ranking or best_worst")


def _ends(score_PG: Tensor, kept_PG: Tensor) -> Tensor:
    """The pair of the best and the worst sample that are kept, ``[P, G, G]``."""
    best_P = score_PG.where(kept_PG, -torch.inf).argmax(dim=1)
    worst_P = score_PG.where(kept_PG, torch.inf).argmin(dim=1)
    best_PG, worst_PG = (functional.one_hot(end_P, score_PG.shape[1]).bool() for end_P in (best_P, worst_P))
    return best_PG[:, :, None] & worst_PG[:, None, :]


def implicit_reward(log_prob: Tensor, ref_log_prob: Tensor, beta: float, clip_range: float | None = None) -> Tensor:
    """What a policy seems to think of a sample: how much likelier it became than it was under the reference.

        h = β·log ρ,   ρ = clip( exp(log π_θ − log π_ref), 1 − c, 1 + c )

    Args:
        log_prob: log-densities under the trained policy, with gradients; any shape.
        ref_log_prob: under the reference, same shape.
        beta: β, positive; small values let the policy go far before a preference counts as learnt. Its scale belongs to
            the reduction of the log-densities.
        clip_range: c in (0, 1); beyond it a sample has no gradient. None leaves the ratio alone.

    Returns:
        Implicit rewards, same shape, without unit; 0 where the policies agree.

    Reference: DPO, arXiv 2305.18290, equation 5; the clip is that of the D3PO and SPIE codes, with c = 0.1.

    >>> implicit_reward(torch.tensor([0.0, 9.0]), torch.tensor([-1.0, 0.0]), beta=0.5)
    tensor([0.5000, 4.5000])
    """
    log_ratio = log_prob - ref_log_prob
    if clip_range is not None:
        log_ratio = log_ratio.clamp(math.log1p(-clip_range), math.log1p(clip_range))
    return beta * log_ratio


def pair_loss(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """The Bradley–Terry loss of a pair, one value per pair.

        L = −log sigmoid( h_chosen − h_rejected )

    Args:
        chosen_B, rejected_B: implicit rewards of the two transitions.

    Returns:
        ``[B]``, positive; log 2 where the two are equal. Each side's gradient is ∓sigmoid(h_rejected − h_chosen).

    Reference: D3PO, arXiv 2311.13231: DPO on single transitions, here one of each rollout.

    >>> pair_loss(torch.zeros(1), torch.zeros(1))
    tensor([0.6931])
    """
    return -functional.logsigmoid(chosen_B - rejected_B)


def ranking_loss(implicit_PG: Tensor, preferred_PGG: Tensor) -> Tensor:
    """The Plackett–Luce loss of a ranked group: each sample should win against all that rank below it.

        L_p = −Σ_i log( exp h_i / (exp h_i + Σ_{j below i} exp h_j) )

    Two samples make the pair loss of D3PO. A sample with none below it, and so a whole group of equals, contributes
    exactly nothing, its gradient included.

    Args:
        implicit_PG: implicit rewards ``[P, G]`` of one transition of each sample.
        preferred_PGG: boolean ``[P, G, G]``, from ``preferences``.

    Returns:
        ``[P]``, not negative; log G! where all G are ranked and the implicit rewards are equal.

    Reference: SPIE, arXiv 2504.12833, ranking loss of its code; Plackett, 1975.

    >>> ranking_loss(torch.zeros(1, 3), preferences(torch.tensor([[3.0, 2.0, 1.0]])))      # log 3 + log 2
    tensor([1.7918])
    """
    itself_GG = torch.eye(implicit_PG.shape[1], dtype=torch.bool, device=implicit_PG.device)
    rivals_PGG = implicit_PG[:, None, :].masked_fill(~(preferred_PGG | itself_GG), -torch.inf)
    return (rivals_PGG.logsumexp(dim=2) - implicit_PG).sum(dim=1)


def margins(implicit_PG: Tensor, preferred_PGG: Tensor) -> Tensor:
    """By how much the policy separates what was compared: the mean difference of implicit rewards, one per prompt.

        m_p = mean over pairs (i over j) of h_i − h_j

    Returns:
        ``[P]``; 0 where nothing was compared.

    >>> margins(torch.tensor([[1.0, 0.5]]), preferences(torch.tensor([[2.0, 1.0]])))
    tensor([0.5000])
    """
    difference_PGG = implicit_PG[:, :, None] - implicit_PG[:, None, :]
    return (difference_PGG * preferred_PGG).sum(dim=(1, 2)) / preferred_PGG.sum(dim=(1, 2)).clamp_min(1)


def accuracies(implicit_PG: Tensor, preferred_PGG: Tensor) -> Tensor:
    """How many of the compared pairs the policy has in the right order; equal ones count half.

    Returns:
        ``[P]`` in [0, 1]; ½, which is chance, where nothing was compared and where the policies agree.

    >>> accuracies(torch.tensor([[1.0, 0.5, 0.5]]), preferences(torch.tensor([[3.0, 2.0, 1.0]])))   # (1 + 1 + ½)/3
    tensor([0.8333])
    """
    right_PGG = (1 + (implicit_PG[:, :, None] - implicit_PG[:, None, :]).sign()) / 2
    compared_P = preferred_PGG.sum(dim=(1, 2))
    found_P = (right_PGG * preferred_PGG).sum(dim=(1, 2)) / compared_P.clamp_min(1)
    return torch.where(compared_P > 0, found_P, torch.full_like(found_P, 0.5))


def undecided_groups(preferred_PGG: Tensor) -> Tensor:
    """How many groups have no pair to compare.

    >>> undecided_groups(preferences(torch.tensor([[1.0, 1.0], [1.0, 2.0]])))
    tensor(1)
    """
    return (~preferred_PGG.flatten(1).any(dim=1)).sum()


def tied_pairs(score_PG: Tensor, *, kept_PG: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """How many pairs of siblings that are kept have equal scores, and so are not compared.

    >>> tied_pairs(torch.tensor([[1.0, 1.0, 1.0, 2.0]]))
    tensor(3)
    """
    kept_PG = torch.ones_like(score_PG, dtype=torch.bool) if kept_PG is None else kept_PG
    siblings_P = kept_PG.sum(dim=1)
    return (siblings_P * (siblings_P - 1) // 2).sum() - preferences(score_PG, kept_PG=kept_PG, eps=eps).sum()


def error_change(prediction: Tensor, ref_prediction: Tensor, target: Tensor) -> Tensor:
    """How much larger a policy's squared error is than the reference's, averaged over the latent's dimensions.

        e = mean_d [ (f_θ − y)² − (f_ref − y)² ] = mean_d [ (f_θ − f_ref)·(f_θ + f_ref − 2y) ]

    The product form keeps the digits that the difference of two nearly equal errors loses, which β then multiplies by
    thousands.

    Args:
        prediction, ref_prediction: ``[P, …]`` of the two policies at the same latents and noise level.
        target: y, from ``flow_matching.prediction_target``.

    Returns:
        ``[P]``, float32 or better; negative where the policy is the better one.

    >>> error_change(torch.ones(1, 4), torch.zeros(1, 4), torch.ones(1, 4))
    tensor([-1.])
    """
    wide = torch.promote_types(prediction.dtype, torch.float32)
    prediction, ref_prediction, target = prediction.to(wide), ref_prediction.to(wide), target.to(wide)
    return ((prediction - ref_prediction) * (prediction + ref_prediction - 2 * target)).flatten(1).mean(dim=1)


def diffusion_dpo_loss(chosen_change_P: Tensor, rejected_change_P: Tensor, beta: float) -> Tensor:
    """Learn from pairs in the data, without samples of one's own: one value per pair.

        L = −log sigmoid( −½β·(e_chosen − e_rejected) )

    Both images of a pair are seen at the same noise level with the same noise.

    Args:
        chosen_change_P, rejected_change_P: from ``error_change``, in squared units of the prediction.
        beta: β, positive; thousands, since errors change little.

    Returns:
        ``[P]``, positive; log 2 where the policy is the reference.

    Reference: Diffusion-DPO, arXiv 2311.12908, equation 14, with the ½β of its code for the product of constants there;
        with velocities in place of ε it is the flow-matching form.

    >>> diffusion_dpo_loss(torch.tensor([-1e-3]), torch.tensor([0.0]), beta=2000.0)       # −log sigmoid(1)
    tensor([0.3133])
    """
    return -functional.logsigmoid(-0.5 * beta * (chosen_change_P - rejected_change_P))
