"""Compose rewards: measure each, transform it, weigh it, and keep every part visible.

Shapes: P rows · G samples of a row · B = P·G.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.measuring import begun, raise_failures
from rewards.transforms import GroupTransform
from rewards.types import ElsewhereReward, Groups, Reward, RewardInputs, RewardOutput, Scores


@dataclass(frozen=True, kw_only=True)
class Component:
    """A reward in a composition; weight 0 means measured, not optimised.

    Args:
        transform: what happens to the scores before the weight: a function of each by itself, or of whole groups.
    """

    reward: Reward
    weight: float = 1.0
    transform: Callable[[Tensor], Tensor] | GroupTransform | None = None


class WeightedRewards:
    """The weighted sum of rewards, each under a label of its own.

        total = Σ_r w_r · transform_r(score_r),   over the rewards that apply

    Args:
        components: label → component; at least one.

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

    @property
    def elsewhere(self) -> bool:
        """Whether any of them works elsewhere, while this process goes on."""
        return any(isinstance(component.reward, ElsewhereReward) for component in self.components.values())

    def __call__(self, inputs: RewardInputs) -> RewardOutput:
        """Score images.

        Raises:
            RewardError: a reward raised, or gave something that is not one finite number in its range for an image.
        """
        output = self.score(inputs)
        raise_failures(output)
        return output

    def score(self, inputs: RewardInputs) -> RewardOutput:
        """Score images; one that has no score is among the ``failures``."""
        return self.combine(self.measure(inputs), inputs.groups)

    def measure(self, inputs: RewardInputs) -> dict[str, Scores]:
        """What each reward makes of the images; these may be a part of those that ``combine`` puts together.

        Raises:
            RewardError: the rows lack what a reward needs.
        """
        return self.begin(inputs)()

    @torch.no_grad()
    def begin(self, inputs: RewardInputs) -> Callable[[], dict[str, Scores]]:
        """Have the images measured: rewards that live elsewhere begin now, the others when the scores are asked for.

        Raises:
            RewardError: the rows lack what a reward needs.
        """
        waiting = {label: begun(label, component.reward, inputs) for label, component in self.components.items()}
        return torch.no_grad()(lambda: {label: wait() for label, wait in waiting.items()})

    @torch.no_grad()
    def combine(self, scores: Mapping[str, Scores], groups: Groups) -> RewardOutput:
        """Transform and weigh the scores of whole groups."""
        breakdown = {label: scores[label].values for label in self.components}
        scaled = {label: _transformed(self.components[label], value, groups) for label, value in breakdown.items()}
        applicable = {
            label: torch.ones_like(value, dtype=torch.bool) if (known := scores[label].applicable) is None else known
            for label, value in breakdown.items()
        }
        shares = [
            weight * scaled[label].where(applicable[label], 0.0) if weight else torch.zeros_like(scaled[label])
            for label, weight in self.weights.items()
        ]
        return RewardOutput(
            total=torch.stack(shares).sum(dim=0),
            breakdown=breakdown,
            scaled=scaled,
            weights=self.weights,
            applicable=applicable,
            failures={label: dict(scores[label].failures) for label in self.components},
        )


def _transformed(component: Component, score_B: Tensor, groups: Groups) -> Tensor:
    transform = component.transform
    if isinstance(transform, GroupTransform):
        return transform.of_groups(score_B.reshape(-1, groups.size), groups).flatten()
    return transform(score_B) if transform else score_B
