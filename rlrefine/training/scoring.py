"""Build the rewards of a recipe, and score what a step made."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from rewards import Component, Failure, Groups, RewardError, RewardInputs, RewardOutput, Scores, WeightedRewards
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


class Scoring:
    """Scores the images of a step as they come, chunk by chunk; a score never depends on the images beside it.

    Rewards that live elsewhere begin with a chunk as soon as its images are there, so they work while the next ones are
    made; the others score when the scores are asked for. What is asked of whom is the same either way, and the answers
    are put together in the order of the images, whichever comes first.

    Args:
        batch: the rows that the images belong to, with ``group_size`` samples each.
        chunks: how the images are cut, in their order.
    """

    def __init__(self, rewards: WeightedRewards, batch: Batch, group_size: int, chunks: Sequence[Chunk]) -> None:
        _whole_groups(rewards, chunks, group_size)
        self.rewards, self.batch, self.group_size = rewards, batch, group_size
        self._chunks, self._images = list(chunks), list[Tensor]()
        self._waiting: list[Callable[[], dict[str, Scores]]] = []

    def give(self, images: Tensor) -> None:
        """Take the next images ``[b, 3, H, W]`` of the step, as many as there are by now.

        Raises:
            RewardError: the rows lack what a reward needs.
        """
        self._images.append(images)
        while self._chunks and self._given >= (count := self._chunks[0].count):
            together = self._images[0] if len(self._images) == 1 else torch.cat(self._images)
            self._images = [together[count:]]
            self._waiting.append(self._begun(self._chunks.pop(0).rows, together[:count]))

    def _begun(self, rows: slice, images: Tensor) -> Callable[[], dict[str, Scores]]:
        if self.rewards.elsewhere:
            return self.rewards.begin(reward_inputs(self.batch[rows], images))
        return lambda: self.rewards.measure(reward_inputs(self.batch[rows], images))  # one chunk after the other

    @property
    def _given(self) -> int:
        """Images that wait for the rest of their chunk."""
        return sum(len(images) for images in self._images)

    def output(self) -> RewardOutput:
        """The scores of all images. Transforms see whole groups, however these were cut.

        What failed is among the output's ``failures``.
        """
        assert not self._chunks, "every image has been given"
        parts = [waiting() for waiting in self._waiting]
        counts = tuple(len(example.references) for example in self.batch.examples)
        whole = {label: joined([part[label] for part in parts]) for label in self.rewards.components}
        output = self.rewards.combine(whole, Groups(size=self.group_size, references=counts))
        return _with_places(output, self.batch, self.group_size)


def score_in_parts(rewards: WeightedRewards, batch: Batch, images: Tensor, chunks: Sequence[Chunk]) -> RewardOutput:
    """Score the images ``[P·G, …]`` of a batch that are all there."""
    scoring = Scoring(rewards, batch, len(images) // len(batch), chunks)
    scoring.give(images)
    return scoring.output()


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
