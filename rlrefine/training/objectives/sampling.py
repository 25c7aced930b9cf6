"""What objectives that learn from their own samples share: how rollouts are made, what samples are worth among
siblings, and that a replay repeats its rollout.

Shapes: P rows · G samples of a row · B samples of a chunk · R rewards.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from policies.dynamics import Reduction
from policies.rollout import Scored
from policies.schedule import sigma_schedule
from policies.trajectory import RolloutPlan, Trajectory
from rewards import RewardOutput
from rlrefine.algorithms.advantages import AGGREGATIONS, Aggregation
from rlrefine.algorithms.diagnostics import reward_spread, zero_variance_groups
from rlrefine.errors import NumericsError
from rlrefine.training.experience import Experience
from rlrefine.training.settings import RolloutSettings
from rlrefine.training.stochastic import stochastic_steps


def plan_of(rollout: RolloutSettings, log_prob: Reduction, noise_shift: float, seed: int, step: int) -> RolloutPlan:
    """How the rollouts of a step are made: noise levels for this image size, and the steps that draw noise."""
    return RolloutPlan(
        sigmas=sigma_schedule(rollout.steps, noise_shift),
        stochastic=stochastic_steps(rollout.stochastic, rollout.steps, seed, step),
        dynamics=rollout.dynamics,
        noise=rollout.noise,
        guidance=rollout.guidance,
        log_prob=log_prob,
        merge_adapters=rollout.merge_adapters,
    )


def advantages_of(rewards: RewardOutput, aggregation: Aggregation, group_size: int) -> Tensor:
    """What each sample is worth among its siblings, all rewards together: ``[P, G]``."""
    reward_RPG = torch.stack([value.reshape(-1, group_size) for value in rewards.scaled.values()])
    weight_R = torch.tensor(list(rewards.weights.values())).to(reward_RPG)
    return AGGREGATIONS[aggregation](reward_RPG, weight_R)


def reward_metrics(rewards: RewardOutput, group_size: int) -> Mapping[str, float]:
    """Rewards as measured, their spread inside groups, and how many groups have none."""
    metrics = {f"reward/{label}": value.mean().item() for label, value in rewards.breakdown.items()}
    metrics |= {
        f"reward_spread/{label}": reward_spread(value.reshape(-1, group_size)).item()
        for label, value in rewards.breakdown.items()
    }
    metrics["reward/total"] = rewards.total.mean().item()
    metrics["zero_variance_groups"] = zero_variance_groups(rewards.total.reshape(-1, group_size)).item()
    return metrics


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
