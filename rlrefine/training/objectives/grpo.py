"""Group-relative policy optimisation: samples of one row compete, and what did better becomes more likely.

Shapes: P rows · G samples of a row · B samples of a chunk · K stochastic steps.

Differs from the papers: OmniRefiner draws its divergence to the old policy and Flow-GRPO to a frozen reference; both
are settings here. Flow-GRPO's "reference" is the base model; ours is the policy that the stage began with, so that
the divergence does not undo the supervised stage.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from policies.base import Policy
from policies.rollout import Scored, replay
from policies.trajectory import RolloutPlan, Trajectory
from policies.weights import WeightSet
from rewards import RewardOutput
from rlrefine.algorithms.diagnostics import approximate_kl
from rlrefine.algorithms.kl import kl_v, kl_x
from rlrefine.algorithms.policy_gradient import LossOutput, clip_fractions, clipped_policy_loss, guarded_log_ratio
from rlrefine.training.experience import Experience
from rlrefine.training.objectives.sampling import compared, settle_replay
from rlrefine.training.settings import GrpoSettings


class Grpo:
    """Clipped policy gradient on group-relative advantages, with an optional divergence.

    Reference: Flow-GRPO, arXiv 2505.05470; for image refinement OmniRefiner, arXiv 2511.19990, figure 3.
    """

    behaviour: WeightSet = "current"

    def __init__(self, settings: GrpoSettings) -> None:
        self.settings, self.group_size, self.updates = settings, settings.group_size, settings.updates_per_rollout

    def credit(self, rewards: RewardOutput) -> tuple[Tensor, Mapping[str, float]]:
        return compared(rewards, self.settings)

    def losses(self, policy: Policy, experience: Experience, update: int) -> Iterator[LossOutput]:
        for chunk, trajectory in zip(experience.chunks, experience.trajectories, strict=True):
            conditioning = experience.conditioning[chunk.rows]
            assert experience.credit is not None
            advantage_B = experience.credit[chunk.rows, chunk.samples].flatten()
            weight_B = experience.weight(chunk)
            for index in range(len(trajectory.plan.stochastic)):
                velocity, mean = self._kept_near(policy, conditioning, trajectory, index)
                scored, log_prob_B = replay(policy, conditioning, trajectory, index)
                settled = update == 0 and settle_replay(
                    experience, trajectory, index, scored, log_prob_B, self._tolerance(experience)
                )
                log_ratio_B = log_prob_B - trajectory.log_prob[:, index]
                used_B = self._log_ratio(log_ratio_B, scored, trajectory, index)
                policy_loss_B = self._step_weight(trajectory.plan, index) * clipped_policy_loss(
                    used_B, advantage_B, self.settings.clip_range
                )
                divergence_B = self._divergence(scored, velocity, mean)
                share = 1 / (experience.samples_in_step * len(trajectory.plan.stochastic))
                loss = share * (weight_B * (policy_loss_B + self.settings.kl.coef * divergence_B)).sum()
                shares = {
                    "policy_loss": policy_loss_B,
                    "kl": divergence_B,
                    "approximate_kl": approximate_kl(log_ratio_B),
                }
                if not experience.same_form:
                    shares["old_log_prob_replaced"] = torch.full_like(log_ratio_B, float(settled))
                yield self._measured(loss, shares, used_B.detach(), advantage_B, weight_B, share)

    def _tolerance(self, experience: Experience) -> float:
        """How far the first ratio may be from 1; between unequal forms a hundredth of what clipping allows."""
        allowed = 0.0 if experience.same_form else min(self.settings.clip_bounds, default=0.0) / 100
        return max(self.settings.ratio_tolerance, allowed)

    def _log_ratio(self, log_ratio_B: Tensor, scored: Scored, trajectory: Trajectory, index: int) -> Tensor:
        """The log-ratio that is clipped: the plain one, or GRPO-Guard's."""
        if self.settings.ratio == "plain":
            return log_ratio_B
        old_mean = trajectory.mean[:, index]
        return guarded_log_ratio(log_ratio_B, scored.mean, old_mean, scored.std, self.settings.log_prob)

    def _step_weight(self, plan: RolloutPlan, index: int) -> float:
        """How much a transition counts."""
        if self.settings.step_weight == "equal":
            return 1.0
        step = plan.stochastic[index]
        return 1 / (plan.sigmas[step] - plan.sigmas[step + 1]).item()

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

    def _measured(
        self,
        loss: Tensor,
        each: Mapping[str, Tensor],
        log_ratio_B: Tensor,
        advantage_B: Tensor,
        weight_B: Tensor,
        share: float,
    ) -> LossOutput:
        """The loss with what to log about it."""
        below_B, above_B = clip_fractions(log_ratio_B, advantage_B, self.settings.clip_range)
        ratio_B = log_ratio_B.exp()
        each = {**each, "ratio/mean": ratio_B, "clip_fraction/low": below_B, "clip_fraction/high": above_B}
        counted = {name: weight_B * value_B for name, value_B in each.items()}
        return LossOutput.measured(loss, counted, share, {"ratio/max": (weight_B * ratio_B).max()})
