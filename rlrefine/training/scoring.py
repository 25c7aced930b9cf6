"""Build the rewards of a recipe, and score what a step made."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from rewards import Component, Failure, Groups, RewardError, RewardInputs, RewardOutput, WeightedRewards
from rewards.isolated.client import isolated
from rewards.measuring import joined
from rewards.registry import REWARDS, TRANSFORMS
from rewards.types import unit_of
from rlrefine.data.records import Batch
from rlrefine.recipe.schema import RewardPart
from rlrefine.training.engine import Engine
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
    settings = asdict(part.settings)
    try:
        if part.isolate is None:
            reward = REWARDS[part.name].build(settings)
        else:
            reward = isolated(label, part.name, settings, part.isolate)
    except (RewardError, TypeError, ValueError) as error:  # the latter of other packages, whose settings check less
        raise RewardError(f"rewards.{label}: {error}") from error
    return Component(reward=reward, weight=part.weight, transform=transform)


def provenance(rewards: WeightedRewards | None) -> dict[str, dict[str, str]]:
    """What rewards say of themselves beside their settings, by label: a judge, what it is asked."""
    components = rewards.components.items() if rewards else ()
    found = {label: getattr(component.reward, "provenance", None) for label, component in components}
    return {label: dict(said) for label, said in found.items() if said}


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
        reference_masks=[
            [None if reference.mask is None else reference.mask.to(images.device) for reference in example.references]
            for example in batch.examples
        ],
        prompts=batch.prompts,
        extras={key: [example.extras[key] for example in batch.examples] for key in sorted(shared)},
    )


def score_in_parts(rewards: WeightedRewards, batch: Batch, images: Tensor, chunks: Sequence[Chunk]) -> RewardOutput:
    """Score the images ``[P·G, …]`` of a batch, chunk by chunk; a score never depends on the images beside it.

    Transforms see whole groups, however these were cut. What failed is among the output's ``failures``.
    """
    group_size, parts = len(images) // len(batch), []
    _whole_groups(rewards, chunks, group_size)
    for chunk in chunks:
        first = chunk.rows.start * group_size + chunk.samples.start
        count = (chunk.rows.stop - chunk.rows.start) * chunk.group_size
        parts.append(rewards.measure(reward_inputs(batch[chunk.rows], images[first : first + count])))
    groups = Groups(size=group_size, references=tuple(len(example.references) for example in batch.examples))
    whole = {label: joined([part[label] for part in parts]) for label in rewards.components}
    return _with_places(rewards.combine(whole, groups), batch, group_size)


def _whole_groups(rewards: WeightedRewards, chunks: Sequence[Chunk], group_size: int) -> None:
    """
    Raises:
        RewardError: a reward that compares the samples of a row would be given a part of them.
    """
    for label, component in rewards.components.items():
        cut = [chunk.group_size for chunk in chunks if chunk.group_size != group_size]
        if unit_of(component.reward) == "group" and cut:
            raise RewardError(f"{label}: expected whole groups of {group_size} samples, found {cut[0]}: reward_batch")


def _with_places(output: RewardOutput, batch: Batch, group_size: int) -> RewardOutput:
    """Say of each failure in which row of the data it is."""

    def placed(sample: int, failure: Failure) -> Failure:
        row = batch.examples[sample // group_size].id
        return replace(failure, where=f"sample {sample % group_size} of row {row}")

    failures = {
        label: {sample: placed(sample, failure) for sample, failure in found.items()}
        for label, found in output.failures.items()
    }
    return replace(output, failures=failures)


def gathered(output: RewardOutput, engine: Engine) -> RewardOutput:
    """The scores of all processes, in the order of the rows, and what failed in any of them."""
    failures: dict[str, dict[int, Failure]] = {label: {} for label in output.weights}
    for process, theirs in enumerate(engine.gather_objects(output.failures)):
        for label, found in theirs.items():
            before = process * len(output.total)  # all have as many
            failures[label] |= {before + sample: failure for sample, failure in found.items()}
    return RewardOutput(
        total=engine.gather(output.total),
        breakdown={label: engine.gather(value) for label, value in output.breakdown.items()},
        scaled={label: engine.gather(value) for label, value in output.scaled.items()},
        weights=output.weights,
        applicable={label: engine.gather(value) for label, value in output.applicable.items()},
        failures=failures,
    )
