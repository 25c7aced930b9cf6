"""Group-relative advantages: how much better a sample is than its siblings.

Shapes: P prompts · G samples per prompt (a group) · R rewards.

All sums are taken in float64, where equal rewards of single precision have no spread at all, whatever their size; and
one value after the other, so that a sample which is left out changes no bit of the others' advantages.

Differs from the papers: a group without spread contributes exactly nothing; the released codes divide rounding noise
by a small constant there. A reward that does not apply to a sample is left out of every mean and spread; DyRef's code
puts the mean of the others in its place.
"""

from functools import reduce
from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["normalize_then_sum", "sum_then_normalize"]
Scale = Literal["group", "batch", "none"]
Bounds = tuple[float, float]
WeightClip = Literal["normalize_first", "as_released"]

NO_SPREAD = 1e-6


def group_advantages(
    reward_PG: Tensor, *, scale: Scale = "group", applicable_PG: Tensor | None = None, eps: float = NO_SPREAD
) -> Tensor:
    """Centre the rewards of each group, and divide them by a spread.

        A_pg = (r_pg − mean_g r) / s,   s = std_g r (group) | std_pg r (batch) | 1 (none)

    The spread is the population one (no Bessel correction). ``batch`` is one spread for all groups, differences
    between them included. With ``none`` the advantage keeps the reward's unit, and easy and hard prompts their own
    weight.

    Args:
        reward_PG: rewards ``[P, G]``, larger is better, any unit; finite where they apply.
        scale: what the centred rewards are divided by.
        applicable_PG: boolean ``[P, G]``; a sample to which the reward does not apply gets 0, and takes no part in
            means and spreads. None means that it applies to all.
        eps: a group whose spread is no more than this share of max(1, |mean|) carries no signal, and gets zeros.

    Returns:
        Advantages ``[P, G]``, of the rewards' dtype; each row sums to zero.

    Raises:
        ValueError: the rewards are not ``[P, G]``, or not finite, or the scale is unknown.

    Reference: DeepSeekMath, arXiv 2402.03300, section 4.1.2 (group); ``global_std`` in the code of Flow-GRPO, arXiv
        2505.05470 (batch); Dr.GRPO, arXiv 2503.20783 (none).

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), scale="none")
    tensor([[ 0.7500, -0.2500, -0.2500, -0.2500]])
    """
    known_PG, counts_PG = _known(reward_PG, applicable_PG)
    centred_PG = _centred(known_PG, counts_PG, eps)
    match scale:
        case "group":
            spread = _mean(centred_PG.square(), counts_PG, 1).sqrt()
        case "batch":
            spread = _mean(_from_batch_mean(known_PG, counts_PG).square(), counts_PG, (0, 1)).sqrt()
        case "none":
            spread = torch.ones_like(centred_PG[:, :1])
        case _:
            raise ValueError(f"unknown scale {scale!r}: expected group, batch or none")
    return _divided(centred_PG[None], spread)[0].to(reward_PG.dtype)


def sum_then_normalize(
    reward_RPG: Tensor, weight_R: Tensor, *, scale: Scale = "group", applicable_RPG: Tensor | None = None
) -> Tensor:
    """Sum the weighted rewards first, then compare siblings: a reward has as much say as its spread and weight give it.

        A_pg = Σ_r a_rpg = group_advantage( Σ_r w_r · r_pg ),   a_rpg = w_r·(r_pg − mean_g r) / s

    Args:
        reward_RPG: one ``[P, G]`` table per reward.
        weight_R: weights; a reward of weight 0 has no say.
        scale: what the centred sum is divided by.
        applicable_RPG: which reward applies to which sample.

    Returns:
        What each reward adds to the advantages, a ``[R, P, G]``, float64. Summed over the rewards, each group with
        signal has zero mean and, with ``scale="group"``, unit spread.

    Reference: DeepSeekMath, arXiv 2402.03300, section 4.1.2, with a weighted sum for its reward.

    >>> sum_then_normalize(torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), torch.tensor([1.0, 0.5])).sum(dim=0)
    tensor([[-1.,  1.]], dtype=torch.float64)
    """
    known = [_known(*pair) for pair in _pairs(reward_RPG, applicable_RPG)]
    part_RPG = _weighted([_centred(*pair, NO_SPREAD) for pair in known], weight_R)
    counts_PG = torch.stack([counts_PG for _, counts_PG in known]).amax(dim=0)
    if scale == "none":
        return part_RPG
    if scale == "batch":
        sum_PG = ordered_sum(_weighted([_from_batch_mean(*pair) for pair in known], weight_R), 0)
        return _divided(part_RPG, _mean(sum_PG.square(), counts_PG, (0, 1)).sqrt())
    return _divided(part_RPG, _mean(ordered_sum(part_RPG, 0).square(), counts_PG, 1).sqrt())


def normalize_then_sum(
    reward_RPG: Tensor, weight_R: Tensor, *, scale: Scale = "group", applicable_RPG: Tensor | None = None
) -> Tensor:
    """Give every reward the same say, whatever its scale, before the weights apply (GDPO).

        A_pg = Σ_r a_rpg = batch_normalize( Σ_r w_r · group_advantage(r)_pg )

    Summing raw rewards first lets the widest one drown the others: of two independent rewards with spreads 0.02 and 0.6
    the sum follows the small one with correlation 0.03, this order with 0.71. With ``scale="none"`` nothing is
    normalised, and both orders are the same.

    Args:
        reward_RPG: one ``[P, G]`` table per reward.
        weight_R: weights, in any common unit; their ratio is what counts.
        scale: what each reward's centred values are divided by.
        applicable_RPG: which reward applies to which sample.

    Returns:
        What each reward adds to the advantages, a ``[R, P, G]``, float64. Summed over the rewards, the whole batch has
        zero mean and unit spread, or is zero if no group has signal. Samples to which no reward applies are no part
        of the batch.

    Reference: GDPO, arXiv 2601.05242.

    >>> normalize_then_sum(torch.tensor([[[1.0, 3.0]], [[0.2, 0.1]]]), torch.tensor([1.0, 0.5])).sum(dim=0)
    tensor([[-1.,  1.]], dtype=torch.float64)
    """
    pairs = _pairs(reward_RPG, applicable_RPG)
    advantages = [group_advantages(reward.double(), scale=scale, applicable_PG=known) for reward, known in pairs]
    part_RPG = _weighted(advantages, weight_R)
    if scale == "none":
        return part_RPG
    counts_PG = torch.stack([_known(*pair)[1] for pair in pairs]).amax(dim=0)
    return _divided(part_RPG, _mean(ordered_sum(part_RPG, 0).square(), counts_PG, (0, 1)).sqrt())  # each mean is 0


AGGREGATIONS = {"normalize_then_sum": normalize_then_sum, "sum_then_normalize": sum_then_normalize}


def difficulty_weights(
    score_PG: Tensor,
    gamma: float,
    *,
    clip: WeightClip = "normalize_first",
    limits: Bounds = (0.5, 5.0),
    bounds: Bounds = (0.0, 1.0),
    known_PG: Tensor | None = None,
) -> Tensor:
    """Weights for the advantages of whole groups: the worse a group is solved, the more it counts (DAR).

        p_p = mean_g clip((score_pg − low) / (high − low), 0, 1),   w_p = (1 − p_p + 1e-6)^gamma
        w_p ← clip( w_p / mean w, limits )                              normalize_first
        w_p ← clip( clip(w_p, limits) / mean clip(w, limits), limits )  as_released

    As released, where all p exceed 0.293 (gamma 2) the first clip makes all weights the lower limit, and so exactly 1.

    Args:
        score_PG: how well each sample does, ``[P, G]``, as measured.
        gamma: 0 weighs all groups alike.
        clip: which of the two.
        limits: least and greatest weight.
        bounds: low and high, the scores of what is not solved at all and of what is; the released code has (0, 1).
        known_PG: boolean ``[P, G]``, false where there is no score. A group without any weighs 1, unseen by the others.

    Returns:
        Weights ``[P]``.

    Reference: DyRef, arXiv 2606.26947, its code (the paper's own formula is not known to us).

    >>> difficulty_weights(torch.tensor([[0.5], [0.6], [0.7], [0.8]]), gamma=2)
    tensor([1.8518, 1.1852, 0.6667, 0.5000])
    >>> difficulty_weights(torch.tensor([[0.5], [0.6], [0.7], [0.8]]), gamma=2, clip="as_released")
    tensor([1., 1., 1., 1.])
    """
    known_PG = torch.ones_like(score_PG, dtype=torch.bool) if known_PG is None else known_PG
    solved_PG = ((score_PG - bounds[0]) / (bounds[1] - bounds[0])).clamp(0, 1).where(known_PG, 0.0)
    solved_P1 = _mean(solved_PG, known_PG.to(score_PG.dtype), 1)
    weight_P1 = (1 - solved_P1 + 1e-6) ** gamma
    weight_P1 = weight_P1.clamp(*limits) if clip == "as_released" else weight_P1
    any_P1 = known_PG.any(dim=1, keepdim=True)
    mean = _mean(weight_P1, any_P1.to(score_PG.dtype), (0, 1))
    return (weight_P1 / mean).clamp(*limits).where(any_P1, 1.0)[:, 0]


def solved_groups(
    reward_PG: Tensor, *, mean_above: float, spread_below: float, known_PG: Tensor | None = None
) -> Tensor:
    """Groups that are good already and differ by little more than noise, which normalisation would blow up.

        dropped_p  ⇔  mean_g r > mean_above  and  std_g r < spread_below

    Args:
        reward_PG: total rewards ``[P, G]``.
        mean_above, spread_below: in the reward's unit.
        known_PG: boolean ``[P, G]``, false for samples without a reward; these take no part.

    Returns:
        Boolean ``[P]``: the groups to leave out.

    Reference: Edit-R1 (UniWorld-V2), arXiv 2510.16888, "low-std group filtering".

    >>> solved_groups(torch.tensor([[0.95, 0.96], [0.1, 0.11], [0.9, 1.0]]), mean_above=0.9, spread_below=0.02)
    tensor([ True, False, False])
    """
    value_PG, counts_PG = _known(reward_PG, known_PG)
    mean_P1 = _mean(value_PG, counts_PG, 1)
    spread_P1 = _mean((value_PG - mean_P1).square(), counts_PG, 1).sqrt()
    return ((mean_P1 > mean_above) & (spread_P1 < spread_below) & (counts_PG.amax(dim=1, keepdim=True) > 0))[:, 0]


def reward_shares(part_RPG: Tensor) -> Tensor:
    """How much of the advantages each reward makes up, ``[R]``; the shares sum to 1.

        share_r = Σ_pg a_rpg·A_pg / Σ_pg A_pg²,   A = Σ_r a_r

    A negative share belongs to a reward that the others are working against. Without any advantage all are 0.

    >>> reward_shares(torch.tensor([[[1.0, -1.0]], [[-0.5, 0.5]]]))          # 1·½ against −½·½, of ½²
    tensor([ 2., -1.])
    """
    advantage_PG = ordered_sum(part_RPG, 0)
    whole = advantage_PG.square().sum()
    shares_R = (part_RPG * advantage_PG).sum(dim=(1, 2)) / whole
    return torch.where(whole > 0, shares_R, torch.zeros_like(shares_R))


def _known(reward_PG: Tensor, applicable_PG: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rewards with zeros where they do not apply, and how much each counts: 1, or 0 there; both float64."""
    if reward_PG.ndim != 2:
        raise ValueError(f"rewards must be [prompts, group], got shape {tuple(reward_PG.shape)}")
    if applicable_PG is None:
        applicable_PG = torch.ones_like(reward_PG, dtype=torch.bool)
    known_PG = torch.where(applicable_PG, reward_PG.double(), 0.0)
    if not torch.isfinite(known_PG).all():
        raise ValueError("rewards must be finite: a failed reward is dropped before this point, never scored")
    return known_PG, applicable_PG.double()


def _pairs(reward_RPG: Tensor, applicable_RPG: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    applicable = [None] * len(reward_RPG) if applicable_RPG is None else list(applicable_RPG)
    return list(zip(reward_RPG, applicable, strict=True))


def ordered_sum(values: Tensor, dim: int) -> Tensor:
    """The sum along an axis, one slice after the other, so that zeros in between change no bit of it.

    A sum in blocks depends on how many values there are, also where some of them are zero.

    >>> ordered_sum(torch.tensor([[1.0, 0.0, 2.0]]), dim=1)
    tensor([3.])
    """
    return reduce(torch.add, values.unbind(dim))


def _mean(value_PG: Tensor, counts_PG: Tensor, dim: int | tuple[int, int]) -> Tensor:
    """The mean of what counts, of each group (1) or of the whole batch (0, 1), with the axes kept."""
    total_P1, count_P1 = (ordered_sum(each, 1)[:, None] for each in (value_PG * counts_PG, counts_PG))
    if dim == 1:
        return total_P1 / count_P1.clamp_min(1)
    return ordered_sum(total_P1, 0)[None] / ordered_sum(count_P1, 0)[None].clamp_min(1)


def _centred(known_PG: Tensor, counts_PG: Tensor, eps: float) -> Tensor:
    """Distances to the group's mean; zeros in a group without spread."""
    mean_P1 = _mean(known_PG, counts_PG, 1)
    centred_PG = (known_PG - mean_P1) * counts_PG
    spread_P1 = _mean(centred_PG.square(), counts_PG, 1).sqrt()
    return torch.where(spread_P1 > eps * mean_P1.abs().clamp_min(1), centred_PG, 0.0)


def _from_batch_mean(known_PG: Tensor, counts_PG: Tensor) -> Tensor:
    return (known_PG - _mean(known_PG, counts_PG, (0, 1))) * counts_PG


def _weighted(parts: list[Tensor], weight_R: Tensor) -> Tensor:
    return torch.stack(parts) * weight_R.double().to(parts[0].device)[:, None, None]


def _divided(part_RPG: Tensor, spread: Tensor) -> Tensor:
    """Parts over the spread of their sum; zeros where they cancel and the sum is rounding."""
    largest_P1 = part_RPG.abs().amax(dim=(0, 2))[:, None]
    is_signal = spread > NO_SPREAD * largest_P1
    return torch.where(is_signal, part_RPG / torch.where(spread > 0, spread, 1.0), 0.0)
