"""What objectives that learn from their own samples share: how rollouts are made, what samples are worth among
siblings, and that a replay repeats its rollout.

Shapes: P rows · G samples of a row · B samples of a chunk · R rewards.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from policies.rollout import Scored
from policies.schedule import Schedule
from policies.trajectory import RolloutPlan, Trajectory
from rewards import RewardOutput
from rlrefine.algorithms.advantages import (
    AGGREGATIONS,
    Aggregation,
    Scale,
    difficulty_weights,
    ordered_sum,
    reward_shares,
    solved_groups,
)
from rlrefine.algorithms.diagnostics import group_spread, zero_variance_groups
from rlrefine.errors import NumericsError
from rlrefine.training.experience import Experience
from rlrefine.training.settings import DifficultySettings, DropSettings, SamplingSettings
from rlrefine.training.stochastic import stochastic_steps


def plan_of(settings: SamplingSettings, schedule: Schedule, seed: int, step: int) -> RolloutPlan:
    """How the rollouts of a step are made: noise levels for this image size, and the steps that draw noise.

    Args:
        settings: of an objective; log-densities are reduced as its ``log_prob`` says, if it looks at any.
    """
    rollout = settings.rollout
    return RolloutPlan(
        sigmas=schedule.sigmas(rollout.steps),
        start=schedule.start(rollout.steps),
        stochastic=stochastic_steps(rollout.stochastic, rollout.steps, seed, step),
        dynamics=rollout.dynamics,
        noise=rollout.noise,
        guidance=rollout.guidance,
        log_prob=getattr(settings, "log_prob", "mean"),
        merge_adapters=rollout.merge_adapters,
    )


class Comparison(Protocol):
    """Settings that say what samples are worth among their siblings."""

    @property
    def group_size(self) -> int: ...

    @property
    def aggregation(self) -> Aggregation: ...

    @property
    def advantage_scale(self) -> Scale: ...

    @property
    def advantage_clip(self) -> float: ...

    @property
    def drop_groups(self) -> DropSettings | None: ...

    @property
    def difficulty(self) -> DifficultySettings | None: ...


def parts_of(rewards: RewardOutput, aggregation: Aggregation, group_size: int, scale: Scale = "group") -> Tensor:
    """What each reward adds to what each sample is worth among its siblings: ``[R, P, G]``, float64."""
    known = [rewards.known(label) for label in rewards.scaled]
    weight_R = torch.tensor(list(rewards.weights.values()))
    return AGGREGATIONS[aggregation](
        torch.stack([value.reshape(-1, group_size) for value in rewards.scaled.values()]),
        weight_R,
        scale=scale,
        applicable_RPG=torch.stack([each.reshape(-1, group_size) for each in known]),
    )


def compared(rewards: RewardOutput, settings: Comparison) -> tuple[Tensor, Mapping[str, float]]:
    """Advantages ``[P, G]``, limited, of the groups that count, with their weights; and what to log about them."""
    group_size = settings.group_size
    part_RPG = parts_of(rewards, settings.aggregation, group_size, settings.advantage_scale)
    metrics = dict(reward_metrics(rewards, part_RPG))
    advantage_PG = ordered_sum(part_RPG, 0).float()
    metrics["advantage/largest"] = advantage_PG.abs().max().item()
    metrics["advantage/spread"] = group_spread(advantage_PG).item()
    advantage_PG = advantage_PG.clamp(-settings.advantage_clip, settings.advantage_clip)
    if (drop := settings.drop_groups) is not None:
        total_PG, known_PG = (each.reshape(-1, group_size) for each in (rewards.total, _with_total(rewards)))
        dropped_P = solved_groups(
            total_PG, mean_above=drop.mean_above, spread_below=drop.spread_below, known_PG=known_PG
        )
        advantage_PG = advantage_PG * ~dropped_P[:, None]
        metrics["dropped_groups"] = dropped_P.sum().item()
    if (difficulty := settings.difficulty) is not None:
        weight_P = difficulty_weights(
            rewards.breakdown[difficulty.reward].reshape(-1, group_size),
            difficulty.gamma,
            clip=difficulty.clip,
            limits=difficulty.limits,
            bounds=difficulty.bounds,
            known_PG=rewards.known(difficulty.reward).reshape(-1, group_size),
        )
        advantage_PG = advantage_PG * weight_P[:, None].to(advantage_PG)
        metrics["group_weight/spread"] = weight_P.std(correction=0).item()
    return advantage_PG, metrics


def reward_metrics(rewards: RewardOutput, part_RPG: Tensor) -> Mapping[str, float]:
    """Rewards as measured, their spread inside groups, what each has to say, and how many groups have nothing to say.

    Means and spreads are of the samples that a reward applies to; one that applies to none has no number.
    """
    with_total = _with_total(rewards)
    metrics = {"reward/total": rewards.total[with_total].mean().item()} if with_total.any() else {}
    for label, value in rewards.breakdown.items():
        known = rewards.known(label)
        if known.any():
            metrics[f"reward/{label}"] = value[known].mean().item()
        whole_P = known.reshape(part_RPG.shape[1:]).all(dim=1)
        if whole_P.any():
            metrics[f"reward_spread/{label}"] = group_spread(value.reshape(part_RPG.shape[1:])[whole_P]).item()
        if label in rewards.applicable and not rewards.applicable[label].all():
            metrics[f"reward_applies/{label}"] = rewards.applicable[label].float().mean().item()
    for label, share in zip(rewards.scaled, reward_shares(part_RPG).tolist(), strict=True):
        metrics[f"reward_share/{label}"] = share
    metrics["zero_variance_groups"] = zero_variance_groups(ordered_sum(part_RPG, 0)).item()
    return metrics


def _with_total(rewards: RewardOutput) -> Tensor:
    """Which samples have a total that counts."""
    return ~rewards.lost if rewards.kept is None else ~rewards.lost & rewards.kept


@torch.no_grad()
def check_replay(trajectory: Trajectory, index: int, scored: Scored, log_prob_B: Tensor, tolerance: float) -> None:
    """Before the first update a replay must repeat the rollout: the ratio is 1 to the last bit.

    Raises:
        NumericsError: it is not; with the first of noise level, velocity and density that differs.
    """
    worst = ((log_prob_B - trajectory.log_prob[:, index]).exp() - 1).abs().max().item()
    if worst <= tolerance:
        return
    sigma = trajectory.sigmas[index].item()
    velocity_gap = (scored.velocity - trajectory.velocity[:, index]).abs().max().item()
    if abs(scored.sigma - sigma) > 1e-7:
        cause = f"the noise level: replay used sigma {scored.sigma:.6g}, the rollout {sigma:.6g}"
    elif velocity_gap > 0:
        cause = (
            f"the network: its velocity differs by up to {velocity_gap:.3g}; are weights and micro-batches the same?"
        )
    else:
        cause = "the transition: the velocities are equal, so mean, spread or log-density are computed in another way"
    raise NumericsError(
        f"replay does not repeat the rollout: max |ratio − 1| is {worst:.3g}, at most {tolerance:g} is allowed. "
        f"The cause is {cause}"
    )


ROUNDING = 0.05
"""How far apart velocities of one network may be in two micro-batches, in bfloat16, as a share of their length."""


@torch.no_grad()
def settle_replay(
    experience: Experience, trajectory: Trajectory, index: int, scored: Scored, log_prob_B: Tensor, tolerance: float
) -> bool:
    """Before the first update, see that ratios begin at 1; gives whether old log-densities had to be replaced.

    A rollout and a replay that went through the network in the same form are equal bit for bit, or something is wrong.
    In unequal micro-batches, or with merged adapters, the network may round in another way; beyond ``tolerance`` what
    the old policy predicted is then taken from this replay, the form in which all later ones are computed.

    Raises:
        NumericsError: the replay is of another noise level, differs although the form is the same, or differs by
            more than rounding can explain.
    """
    same_level = abs(scored.sigma - trajectory.sigmas[index].item()) <= 1e-7
    made = trajectory.velocity[:, index]
    explained = (scored.velocity - made).norm() <= ROUNDING * made.norm()
    if experience.same_form or not same_level or not explained:
        check_replay(trajectory, index, scored, log_prob_B, tolerance)
        return False
    if ((log_prob_B - trajectory.log_prob[:, index]).exp() - 1).abs().max().item() <= tolerance:
        return False
    trajectory.log_prob[:, index] = log_prob_B
    trajectory.velocity[:, index], trajectory.mean[:, index] = scored.velocity, scored.mean
    return True
