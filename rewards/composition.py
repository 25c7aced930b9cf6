"""Compose rewards: measure each, transform it, weigh it, and keep every part visible.

Shapes: B samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.types import Reward, RewardError, RewardInputs, RewardOutput, Scores, check_scores


@dataclass(frozen=True, kw_only=True)
class Component:
    """A reward in a composition; weight 0 means measured, not optimised."""

    reward: Reward
    weight: float = 1.0
    transform: Callable[[Tensor], Tensor] | None = None


class WeightedRewards:
    """The weighted sum of rewards, each under a label of its own.

        total = Σ_r w_r · transform_r(score_r)

    Args:
        components: label → component; at least one.

    Raises:
        RewardError: a reward raised, or gave something that is not one finite number in its range for each image.

    >>> from rewards import MaskedPixel
    >>> reward = WeightedRewards({"pixel": Component(reward=MaskedPixel(), weight=2.0)})
    >>> image, target = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 3, 8, 8)
    >>> reward(RewardInputs(images=image, targets=target, masks=torch.ones(1, 1, 8, 8))).total
    tensor([-0.5000])
    """

    def __init__(self, components: Mapping[str, Component]) -> None:
        if not components:
            raise ValueError("a composition needs at least one reward")
        self.components = dict(components)

    @property
    def weights(self) -> dict[str, float]:
        return {label: component.weight for label, component in self.components.items()}

    @torch.no_grad()
    def __call__(self, inputs: RewardInputs) -> RewardOutput:
        breakdown = {
            label: self._measure(label, component.reward, inputs) for label, component in self.components.items()
        }
        scaled = {}
        for label, component in self.components.items():
            scaled[label] = component.transform(breakdown[label]) if component.transform else breakdown[label]
        total = torch.stack([self.weights[label] * value for label, value in scaled.items()]).sum(dim=0)
        everywhere = torch.ones(len(inputs.images), dtype=torch.bool, device=total.device)
        return RewardOutput(
            total=total,
            breakdown=breakdown,
            scaled=scaled,
            weights=self.weights,
            applicable=dict.fromkeys(breakdown, everywhere),
        )

    def _measure(self, label: str, reward: Reward, inputs: RewardInputs) -> Tensor:
        try:
            scores = reward(inputs)
        except RewardError as error:
            raise RewardError(f"{label}: {error}") from error
        except Exception as error:
            raise RewardError(f"{label}: {type(reward).__name__} raised {type(error).__name__}: {error}") from error
        if isinstance(scores, Scores):
            if scores.failures:
                sample, failure = next(iter(scores.failures.items()))
                raise RewardError(f"{label}: image {sample} has no score ({failure.kind}): {failure.message}")
            scores = scores.values
        scores = check_scores(label, scores.detach().float(), len(inputs.images), reward.range)
        return scores.to(inputs.images.device)  # a reward that computes on the CPU may stand beside others
