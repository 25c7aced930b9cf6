"""Build the rewards of a recipe, and score what a step made."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from rewards import Component, RewardError, RewardInputs, RewardOutput, WeightedRewards
from rewards.registry import REWARDS, TRANSFORMS
from rlrefine.data.records import Batch
from rlrefine.recipe.schema import RewardPart
from rlrefine.training.experience import Chunk


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
        roles=[[reference.role for reference in example.references] for example in batch.examples],
        prompts=batch.prompts,
        extras={key: [example.extras[key] for example in batch.examples] for key in sorted(shared)},
    )


def score_in_parts(rewards: WeightedRewards, batch: Batch, images: Tensor, chunks: Sequence[Chunk]) -> RewardOutput:
    """Score the images ``[P·G, …]`` of a batch, chunk by chunk; a score never depends on the images beside it."""
    group_size, outputs = len(images) // len(batch), []
    for chunk in chunks:
        first = chunk.rows.start * group_size + chunk.samples.start
        count = (chunk.rows.stop - chunk.rows.start) * chunk.group_size
        outputs.append(rewards(reward_inputs(batch[chunk.rows], images[first : first + count])))
    return _joined(outputs)


def _joined(outputs: Sequence[RewardOutput]) -> RewardOutput:
    if len(outputs) == 1:
        return outputs[0]

    def along(name: str) -> dict[str, Tensor]:
        return {label: torch.cat([getattr(output, name)[label] for output in outputs]) for label in outputs[0].weights}

    return RewardOutput(
        total=torch.cat([output.total for output in outputs]),
        breakdown=along("breakdown"),
        scaled=along("scaled"),
        weights=outputs[0].weights,
        applicable=along("applicable"),
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
