"""Online direct preference optimisation: samples of one row are ranked, and each should become likelier, as measured
from the policy that the stage began with, than those below it.

Shapes: P rows · G samples of a row · B samples of a chunk, samples of one row beside each other · K stochastic steps.

Differs from the papers: SPIE ranks by a sum of z-scores over the whole batch, which ``score_scale: batch`` does; by
default rewards are compared inside each group, as ``aggregation`` says. Equal samples are not compared. SPIE trains on
every step of its rollout, and here on those that draw noise. The reference is the policy that the stage began with,
earlier stages included.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from policies.base import Policy
from policies.rollout import replay
from policies.weights import WeightSet
from rewards import RewardOutput
from rlrefine.algorithms.advantages import ordered_sum
from rlrefine.algorithms.policy_gradient import LossOutput
from rlrefine.algorithms.preference import (
    accuracies,
    implicit_reward,
    margins,
    preferences,
    ranking_loss,
    tied_pairs,
    undecided_groups,
)
from rlrefine.training.experience import Experience
from rlrefine.training.objectives.sampling import parts_of, reward_metrics, settle_replay
from rlrefine.training.settings import OnlineDpoSettings


class OnlineDpo:
    """A ranking loss on fresh samples, transition by transition.

    Reference: SPIE, arXiv 2504.12833; with two samples of a row, D3PO, arXiv 2311.13231.
    """

    behaviour: WeightSet = "current"

    def __init__(self, settings: OnlineDpoSettings) -> None:
        self.settings, self.group_size, self.updates = settings, settings.group_size, settings.updates_per_rollout

    def credit(self, rewards: RewardOutput) -> tuple[Tensor, Mapping[str, float]]:
        """Scores that rank the samples of a row; only their order counts."""
        part_RPG = parts_of(rewards, self.settings.aggregation, self.group_size, self.settings.score_scale)
        score_PG = ordered_sum(part_RPG, 0).float()
        kept_PG = None if rewards.kept is None else rewards.kept.reshape(score_PG.shape)
        preferred_PGG = preferences(score_PG, self.settings.compare, kept_PG=kept_PG)
        metrics = {
            **reward_metrics(rewards, part_RPG),
            "tied_pairs": tied_pairs(score_PG, kept_PG=kept_PG).item(),
            "undecided_groups": undecided_groups(preferred_PGG).item(),
        }
        return score_PG, metrics

    def losses_per_update(self, experience: Experience) -> int:
        return sum(len(trajectory.plan.stochastic) for trajectory in experience.trajectories)

    def losses(self, policy: Policy, experience: Experience, update: int) -> Iterator[LossOutput]:
        groups = experience.groups_in_step or experience.samples_in_step // self.group_size
        for chunk, trajectory in zip(experience.chunks, experience.trajectories, strict=True):
            assert chunk.group_size == self.group_size, "validated: a micro-batch holds whole groups"
            assert experience.credit is not None
            conditioning = experience.conditioning[chunk.rows]
            weight_PG = experience.weight(chunk).reshape(-1, self.group_size)
            kept_PG = weight_PG > 0
            preferred_PGG = preferences(experience.credit[chunk.rows], self.settings.compare, kept_PG=kept_PG)
            for index in range(len(trajectory.plan.stochastic)):
                with torch.no_grad(), policy.weights("reference"):
                    _, ref_log_prob_B = replay(policy, conditioning, trajectory, index)
                scored, log_prob_B = replay(policy, conditioning, trajectory, index)
                if update == 0:
                    tolerance = self.settings.ratio_tolerance
                    settle_replay(experience, trajectory, index, scored, log_prob_B, tolerance)
                share = 1 / (groups * len(trajectory.plan.stochastic))
                yield self._loss(log_prob_B, ref_log_prob_B, preferred_PGG, weight_PG, share)

    def _loss(
        self, log_prob_B: Tensor, ref_log_prob_B: Tensor, preferred_PGG: Tensor, weight_PG: Tensor, share: float
    ) -> LossOutput:
        clip = self.settings.reference_clip
        log_prob_PG, ref_log_prob_PG = (each.reshape(-1, self.group_size) for each in (log_prob_B, ref_log_prob_B))
        implicit_PG = implicit_reward(log_prob_PG, ref_log_prob_PG, self.settings.beta, clip)
        loss = share * ranking_loss(implicit_PG, preferred_PGG).sum()
        now_PG, ratio_PG = implicit_PG.detach(), (log_prob_PG.detach() - ref_log_prob_PG).exp()
        clipped_PG = (ratio_PG - 1).abs() > (clip if clip is not None else float("inf"))
        accuracy_P = accuracies(now_PG, preferred_PGG) * weight_PG.amax(dim=1)  # of a group that is left out: none

        def kept_mean(value_PG: Tensor) -> Tensor:
            return (weight_PG * value_PG).sum(dim=1) / weight_PG.sum(dim=1).clamp_min(1)

        each = {
            "preference/accuracy": accuracy_P,
            "preference/margin": margins(now_PG, preferred_PGG),
            "reference_ratio/mean": kept_mean(ratio_PG),
            "reference_ratio/clipped": kept_mean(clipped_PG.float()),
        }
        return LossOutput.measured(loss, each, share)
