"""Build the rewards of a recipe, and score what a step made."""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from rewards import Component, RewardError, RewardInputs, RewardOutput, WeightedRewards
from rewards.registry import REWARDS, TRANSFORMS
from rlrefine.data.records import Batch
from rlrefine.recipe.schema import RewardPart


def build_rewards(parts: dict[str, RewardPart]) -> WeightedRewards | None:
    """The weighted composition that a recipe describes; none without rewards.

    Raises:
        RewardError: a reward lacks what it needs on this machine.
    """
    return WeightedRewards({label: _component(label, part) for label, part in parts.items()}) if parts else None


def _component(label: str, part: RewardPart) -> Component:
    transform: Any = None
    if part.transform is not None:
        transform = TRANSFORMS[part.transform.name].build(asdict(part.transform.settings))
    try:
        reward = REWARDS[part.name].build(asdict(part.settings))
    except RewardError as error:
        raise RewardError(f"rewards.{label}: {error}") from error
    return Component(reward=reward, weight=part.weight, transform=transform)


def reward_inputs(batch: Batch, images: Tensor) -> RewardInputs:
    """What rewards are given for the samples of a batch: each condition once per row, on the images' device."""
    targets, masks = batch.targets, batch.masks
    shared = set.intersection(*(set(example.extras) for example in batch.examples))
    return RewardInputs(
        images=images,
        targets=None if targets is None else targets.to(images.device),
        drafts=batch.drafts.to(images.device),
        masks=None if masks is None else masks.to(images.device),
        references=[
            [reference.image.to(images.device) for reference in example.references] for example in batch.examples
        ],
        prompts=batch.prompts,
        extras={key: [example.extras[key] for example in batch.examples] for key in sorted(shared)},
    )


def gathered(output: RewardOutput, gather: Any) -> RewardOutput:
    """The scores of all processes, in the order of the rows."""
    return RewardOutput(
        total=gather(output.total),
        breakdown={label: gather(value) for label, value in output.breakdown.items()},
        scaled={label: gather(value) for label, value in output.scaled.items()},
        weights=output.weights,
        applicable={label: gather(value) for label, value in output.applicable.items()},
        failures=output.failures,
    )
