"""Reward-weighted regression: the policy learns from its own samples as if they were targets, from good ones more.

Shapes: P rows · G samples of a row · B samples of a chunk, samples of one row beside each other.

Differs from the papers: weights are a softmax within the group of a row (arXiv 2305.13301, section 6.1, takes it over
the batch), of advantages in place of rewards, so that several rewards of different size can be composed.
"""

from collections.abc import Iterator, Mapping

import torch
from my_objective import RewardWeightedSettings
from torch import Tensor

from policies.base import Policy
from policies.weights import WeightSet
from rewards import RewardOutput
from rlrefine.algorithms.advantages import ordered_sum
from rlrefine.algorithms.flow_matching import interpolate, weighted_error
from rlrefine.algorithms.policy_gradient import LossOutput
from rlrefine.training.experience import Experience
from rlrefine.training.objectives.sampling import parts_of, reward_metrics


def reward_weights(advantage_PG: Tensor, temperature: float) -> Tensor:
    """How much each sample of a group counts; of a whole group it is G, as without weights.

        w_g = G · exp(A_g / τ) / Σ_h exp(A_h / τ)

    Args:
        advantage_PG: ``[P, G]``, in spreads of the group.
        temperature: τ; towards 0 only the best counts (RAFT), towards ∞ all count 1.

    Reference: reward-weighted regression, DDPO, arXiv 2305.13301, section 6.1; RAFT, arXiv 2304.06767.

    >>> reward_weights(torch.tensor([[0.0, 0.0], [100.0, -100.0]]), temperature=1.0)
    tensor([[1., 1.],
            [2., 0.]])
    """
    return advantage_PG.shape[1] * torch.softmax(advantage_PG / temperature, dim=1)


class RewardWeighted:
    """L = w · ‖v(x_σ, σ) − (ε − x₀)‖², where x₀ is a sample of the policy itself."""

    behaviour: WeightSet = "current"

    def __init__(self, settings: RewardWeightedSettings) -> None:
        self.settings, self.group_size, self.updates = settings, settings.group_size, settings.updates_per_rollout

    def credit(self, rewards: RewardOutput) -> tuple[Tensor, Mapping[str, float]]:
        part_RPG = parts_of(rewards, "normalize_then_sum", self.group_size)
        weight_PG = reward_weights(ordered_sum(part_RPG, 0).float(), self.settings.temperature)
        effective_P = weight_PG.sum(dim=1) ** 2 / weight_PG.square().sum(dim=1)
        return weight_PG, {**reward_metrics(rewards, part_RPG), "effective_samples": effective_P.mean().item()}

    def losses_per_update(self, experience: Experience) -> int:
        return len(experience.chunks)

    def losses(self, policy: Policy, experience: Experience, update: int) -> Iterator[LossOutput]:
        share, schedule = 1 / experience.samples_in_step, policy.schedule(experience.batch.size)
        for chunk, trajectory in zip(experience.chunks, experience.trajectories, strict=True):
            assert experience.credit is not None
            clean, conditioning = trajectory.final_latents, experience.conditioning[chunk.rows]
            uniform, noise = experience.address.renoising(chunk, update, tuple(clean.shape[1:]))
            noise, sigma_B = noise.to(clean), schedule.levels(torch.tensor(uniform)).to(clean)
            noisy = interpolate(clean, noise, sigma_B)
            guidance = self.settings.rollout.guidance
            velocity = policy.velocity(noisy, sigma_B, conditioning.repeat(chunk.group_size), guidance)
            error_B = weighted_error(velocity, noise - clean)
            weight_B = experience.weight(chunk) * experience.credit[chunk.rows, chunk.samples].flatten().to(clean)
            yield LossOutput.measured(share * (weight_B * error_B).sum(), {"error": error_B}, share)
