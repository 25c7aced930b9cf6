"""Group-relative policy optimisation: samples of one row compete, and what did better becomes more likely.

Shapes: P rows · G samples of a row · B samples of a chunk · K stochastic steps.

Differs from the papers: OmniRefiner draws its divergence to the old policy and Flow-GRPO to a frozen reference; both
are settings here. Flow-GRPO's "reference" is the base model; ours is the policy that the stage began with, so that
the divergence does not undo the supervised stage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from policies.base import Policy
from policies.rollout import Scored, replay
from policies.trajectory import RolloutPlan, Trajectory
from rewards import RewardOutput
from rlrefine.algorithms.diagnostics import approximate_kl
from rlrefine.algorithms.kl import kl_v, kl_x
from rlrefine.algorithms.policy_gradient import LossOutput, clip_fractions, clipped_policy_loss
from rlrefine.training.experience import Experience
from rlrefine.training.objectives.sampling import advantages_of, plan_of, reward_metrics, settle_replay
from rlrefine.training.settings import GrpoSettings


class Grpo:
    """Clipped policy gradient on group-relative advantages, with an optional divergence.

    Reference: Flow-GRPO, arXiv 2505.05470; for image refinement OmniRefiner, arXiv 2511.19990, figure 3.
    """

    def __init__(self, settings: GrpoSettings) -> None:
        self.settings = settings
        self.group_size = settings.group_size
        self.updates = settings.updates_per_rollout

    def rollout_plan(self, noise_shift: float, seed: int, step: int) -> RolloutPlan:
        return plan_of(self.settings.rollout, self.settings.log_prob, noise_shift, seed, step)

    def credit(self, rewards: RewardOutput) -> tuple[Tensor, Mapping[str, float]]:
        advantage_PG = advantages_of(rewards, self.settings.aggregation, self.group_size)
        largest = advantage_PG.abs().max().item()
        limit = self.settings.advantage_clip
        metrics = {**reward_metrics(rewards, self.group_size), "advantage/largest": largest}
        return advantage_PG.clamp(-limit, limit), metrics

    def losses(self, policy: Policy, experience: Experience, update: int) -> Iterator[LossOutput]:
        for chunk, trajectory in zip(experience.chunks, experience.trajectories, strict=True):
            conditioning = experience.conditioning[chunk.rows]
            assert experience.credit is not None
            advantage_B = experience.credit[chunk.rows, chunk.samples].flatten()
            for index in range(len(trajectory.plan.stochastic)):
                velocity, mean = self._kept_near(policy, conditioning, trajectory, index)
                scored, log_prob_B = replay(policy, conditioning, trajectory, index)
                settled = update == 0 and settle_replay(
                    experience, trajectory, index, scored, log_prob_B, self._tolerance(experience)
                )
                divergence_B = self._divergence(scored, velocity, mean)
                share = 1 / (experience.samples_in_step * len(trajectory.plan.stochastic))
                output = self._loss(log_prob_B, trajectory.log_prob[:, index], advantage_B, divergence_B, share)
                settled_share = {"old_log_prob_replaced": share * len(log_prob_B) * settled}
                more = {} if experience.same_form else settled_share
                yield replace(output, metrics={**output.metrics, **more})

    def _tolerance(self, experience: Experience) -> float:
        """How far the first ratio may be from 1; between unequal forms a hundredth of what clipping allows."""
        clip = self.settings.clip_range
        unequal = 0.0 if experience.same_form or clip is None else clip / 100
        return max(self.settings.ratio_tolerance, unequal)

    def losses_per_update(self, experience: Experience) -> int:
        return sum(len(trajectory.plan.stochastic) for trajectory in experience.trajectories)

    def _kept_near(
        self, policy: Policy, conditioning: object, trajectory: Trajectory, index: int
    ) -> tuple[Tensor, Tensor]:
        """Velocity and mean of the policy that this one is kept near, at no cost where nothing keeps it.

        The reference computes before the graph of the loss begins: where every parameter is trained, its weights take
        the place of the present ones for a moment, and a graph that was there would be spoilt.
        """
        kl = self.settings.kl
        if kl.coef > 0 and kl.target == "reference":
            with torch.no_grad(), policy.weights("reference"):
                reference, _ = replay(policy, conditioning, trajectory, index)
            return reference.velocity, reference.mean
        return trajectory.velocity[:, index], trajectory.mean[:, index]

    def _divergence(self, scored: Scored, velocity: Tensor, mean: Tensor) -> Tensor:
        """The divergence of each sample; zeros where its coefficient is 0."""
        if self.settings.kl.coef == 0:
            return scored.velocity.new_zeros(len(scored.velocity))
        if self.settings.kl.form == "v":
            return kl_v(scored.velocity, velocity)
        return kl_x(scored.mean, mean, scored.std)

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
