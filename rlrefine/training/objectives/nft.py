"""Reinforcement learning on the forward process: samples are brought back to noise, and the velocity there is moved
towards those that did well and away from those that did badly.

Shapes: P rows · G samples of a row · B samples of a chunk, samples of one row beside each other.

Differs from the paper: samples of a row start from one noise and part at the steps that draw noise, as for GRPO, where
the paper starts each from its own and draws none. Noise levels are drawn, ``levels`` for each sample; its code goes
through those of its schedule. The reference is the policy that the stage began with, earlier stages included.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from policies.base import Policy
from policies.settings import Guidance
from policies.trajectory import Trajectory
from policies.weights import WeightSet
from rewards import RewardOutput
from rlrefine.algorithms.flow_matching import interpolate
from rlrefine.algorithms.forward_process import (
    clean_error,
    implicit_velocities,
    negative_aware_loss,
    old_decay,
    optimality,
)
from rlrefine.algorithms.kl import kl_v
from rlrefine.algorithms.policy_gradient import LossOutput
from rlrefine.training.experience import Chunk, Experience
from rlrefine.training.nft_settings import NftSettings
from rlrefine.training.objectives.levels import noise_levels
from rlrefine.training.objectives.sampling import compared


class Nft:
    """Negative-aware fine-tuning of the velocity, against an old policy that follows slowly.

    Reference: DiffusionNFT, arXiv 2509.16117.
    """

    behaviour: WeightSet = "old"

    def __init__(self, settings: NftSettings) -> None:
        self.settings, self.group_size, self.updates = settings, settings.group_size, settings.updates_per_rollout

    def credit(self, rewards: RewardOutput) -> tuple[Tensor, Mapping[str, float]]:
        """How certain it is that each sample is a good one."""
        advantage_PG, metrics = compared(rewards, self.settings)
        return optimality(advantage_PG, self.settings.advantage_clip), metrics

    def losses_per_update(self, experience: Experience) -> int:
        return len(experience.chunks) * self.settings.levels

    def losses(self, policy: Policy, experience: Experience, update: int) -> Iterator[LossOutput]:
        for chunk, trajectory in zip(experience.chunks, experience.trajectories, strict=True):
            for level in range(self.settings.levels):
                time = update * self.settings.levels + level
                yield self._loss(policy, experience, chunk, trajectory, time)

    def after_update(self, policy: Policy, step: int) -> None:
        """The policy that makes the rollouts follows the trained one, quickly at first."""
        old = self.settings.old
        policy.stage.update_old(old_decay(step, rate=old.rate, limit=old.limit, delay=old.delay))

    def _loss(
        self, policy: Policy, experience: Experience, chunk: Chunk, trajectory: Trajectory, time: int
    ) -> LossOutput:
        assert experience.credit is not None
        clean, plan = trajectory.final_latents, trajectory.plan
        uniform, noise = experience.address.renoising(chunk, time, tuple(clean.shape[1:]))
        sigma_B = noise_levels(uniform, self.settings, policy, experience.batch.size).to(clean)
        noisy = interpolate(clean, noise.to(clean), sigma_B)
        given = (noisy, sigma_B, experience.conditioning[chunk.rows].repeat(chunk.group_size), plan.guidance)
        with torch.no_grad(), policy.weights("old"):
            old = policy.velocity(*given)
        reference = self._reference(policy, given)
        velocity = policy.velocity(*given)
        positive_B, negative_B = (
            clean_error(implied, noisy, clean, sigma_B)
            for implied in implicit_velocities(velocity, old, self.settings.beta)
        )
        credit_B = experience.credit[chunk.rows, chunk.samples].flatten().to(clean)
        limit = self.settings.advantage_clip
        policy_loss_B = negative_aware_loss(positive_B, negative_B, credit_B, self.settings.beta, limit)
        divergence_B = torch.zeros_like(policy_loss_B) if reference is None else kl_v(velocity, reference)
        share = 1 / (experience.samples_in_step * self.settings.levels)
        weight_B = experience.weight(chunk)
        loss = share * (weight_B * (policy_loss_B + self.settings.kl_coef * divergence_B)).sum()
        each = {
            "policy_loss": policy_loss_B,
            "kl": divergence_B,
            "error/positive": positive_B,
            "error/negative": negative_B,
            "old_distance": kl_v(velocity, old),
        }
        return LossOutput.measured(loss, {name: weight_B * value_B for name, value_B in each.items()}, share)

    def _reference(self, policy: Policy, given: tuple[Tensor, Tensor, Any, Guidance]) -> Tensor | None:
        """The velocity of the policy that the stage began with; none where leaving it costs nothing."""
        if self.settings.kl_coef == 0:
            return None
        with torch.no_grad(), policy.weights("reference"):
            return policy.velocity(*given)
