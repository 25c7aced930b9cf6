"""Group-relative policy optimisation: samples of one row compete, and what did better becomes more likely.

Shapes: P rows · G samples of a row · B samples of a chunk · K stochastic steps · R rewards.

Differs from the papers: OmniRefiner draws its divergence to the old policy and Flow-GRPO to a frozen reference; both
are settings here. Flow-GRPO's "reference" is the base model; ours is the policy that the stage began with, so that
the divergence does not undo the supervised stage.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from policies.base import Policy
from policies.rollout import Scored, replay
from policies.schedule import sigma_schedule
from policies.trajectory import RolloutPlan, Trajectory
from rewards import RewardOutput
from rlrefine.algorithms.advantages import AGGREGATIONS
from rlrefine.algorithms.diagnostics import approximate_kl, reward_spread, zero_variance_groups
from rlrefine.algorithms.kl import kl_v, kl_x
from rlrefine.algorithms.policy_gradient import LossOutput, clip_fractions, clipped_policy_loss
from rlrefine.errors import NumericsError
from rlrefine.training.experience import Experience
from rlrefine.training.settings import GrpoSettings
from rlrefine.training.stochastic import stochastic_steps


class Grpo:
    """Clipped policy gradient on group-relative advantages, with an optional divergence.

    Reference: Flow-GRPO, arXiv 2505.05470; for image refinement OmniRefiner, arXiv 2511.19990, figure 3.
    """

    def __init__(self, settings: GrpoSettings) -> None:
        self.settings = settings
        self.group_size = settings.group_size
        self.updates = settings.updates_per_rollout

    def rollout_plan(self, noise_shift: float, seed: int, step: int) -> RolloutPlan:
        chosen = self.settings.rollout
        return RolloutPlan(
            sigmas=sigma_schedule(chosen.steps, noise_shift),
            stochastic=stochastic_steps(chosen.stochastic, chosen.steps, seed, step),
            dynamics=chosen.dynamics,
            noise=chosen.noise,
            guidance=chosen.guidance,
            log_prob=self.settings.log_prob,
        )

    def credit(self, rewards: RewardOutput) -> tuple[Tensor, Mapping[str, float]]:
        reward_RPG = torch.stack([value.reshape(-1, self.group_size) for value in rewards.scaled.values()])
        weight_R = torch.tensor(list(rewards.weights.values())).to(reward_RPG)
        advantage_PG = AGGREGATIONS[self.settings.aggregation](reward_RPG, weight_R)
        limit = self.settings.advantage_clip
        metrics = {f"reward/{label}": value.mean().item() for label, value in rewards.breakdown.items()}
        metrics |= {
            f"reward_spread/{label}": reward_spread(v.reshape(-1, self.group_size)).item()
            for label, v in rewards.breakdown.items()
        }
        metrics["reward/total"] = rewards.total.mean().item()
        metrics["advantage/largest"] = advantage_PG.abs().max().item()
        metrics["zero_variance_groups"] = zero_variance_groups(rewards.total.reshape(-1, self.group_size)).item()
        return advantage_PG.clamp(-limit, limit), metrics

    def losses(self, policy: Policy, experience: Experience, update: int) -> Iterator[LossOutput]:
        for chunk, trajectory in zip(experience.chunks, experience.trajectories, strict=True):
            conditioning = experience.conditioning[chunk.rows]
            assert experience.credit is not None
            advantage_B = experience.credit[chunk.rows, chunk.samples].flatten()
            for index in range(len(trajectory.plan.stochastic)):
                scored, log_prob_B = replay(policy, conditioning, trajectory, index)
                if update == 0:
                    check_replay(trajectory, index, scored, log_prob_B, self.settings.ratio_tolerance)
                divergence_B = self._divergence(policy, conditioning, trajectory, index, scored)
                share = 1 / (experience.samples_in_step * len(trajectory.plan.stochastic))
                yield self._loss(log_prob_B, trajectory.log_prob[:, index], advantage_B, divergence_B, share)

    def losses_per_update(self, experience: Experience) -> int:
        return sum(len(trajectory.plan.stochastic) for trajectory in experience.trajectories)

    def _divergence(
        self, policy: Policy, conditioning: object, trajectory: Trajectory, index: int, scored: Scored
    ) -> Tensor:
        """The divergence of each sample; zeros, at no cost, where its coefficient is 0."""
        kl = self.settings.kl
        if kl.coef == 0:
            return scored.velocity.new_zeros(len(scored.velocity))
        velocity, mean = trajectory.velocity[:, index], trajectory.mean[:, index]
        if kl.target == "reference":
            with torch.no_grad(), policy.weights("reference"):
                reference, _ = replay(policy, conditioning, trajectory, index)
            velocity, mean = reference.velocity, reference.mean
        return kl_v(scored.velocity, velocity) if kl.form == "v" else kl_x(scored.mean, mean, scored.std)

    def _loss(
        self, log_prob_B: Tensor, old_log_prob_B: Tensor, advantage_B: Tensor, divergence_B: Tensor, share: float
    ) -> LossOutput:
        clip = self.settings.clip_range
        policy_loss_B = clipped_policy_loss(log_prob_B, old_log_prob_B, advantage_B, clip)
        loss = share * (policy_loss_B + self.settings.kl.coef * divergence_B).sum()
        now_B = log_prob_B.detach()
        below_B, above_B = clip_fractions(
            now_B, old_log_prob_B, advantage_B, clip if clip is not None else float("inf")
        )
        metrics = {
            "loss": loss.item(),
            "policy_loss": share * policy_loss_B.sum().item(),
            "kl": share * divergence_B.sum().item(),
            "approximate_kl": share * approximate_kl(now_B, old_log_prob_B).sum().item(),
            "ratio/mean": share * (now_B - old_log_prob_B).exp().sum().item(),
            "clip_fraction/low": share * below_B.sum().item(),
            "clip_fraction/high": share * above_B.sum().item(),
        }
        return LossOutput(loss, metrics)


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
