"""What a reward is given, and what it gives back.

Shapes: P rows of the data · G samples of one row (a group) · B = P·G, samples of one row beside each other · C H W
image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


class RewardError(RuntimeError):
    """A reward gave no usable number. It is never replaced by one."""

    exit_code = 4


@dataclass(frozen=True)
class Failure:
    """Why one sample has no score: the kind, for counting, and a message, for reading."""

    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of which some are missing: ``values`` ``[B]``, and for each failed sample its reason."""

    values: Tensor
    failures: Mapping[int, Failure] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RewardInputs:
    """Images to score, and one condition for each row that they were made from.

    Args:
        images: ``[B, 3, H, W]`` in [0, 1]; sample ``b`` belongs to row ``b // G``.
        targets, drafts: ``[P, 3, H, W]`` in [0, 1].
        masks: ``[P, 1, H, W]`` in [0, 1], 1 where the detail is.
        references: for each row its reference images ``[3, h, w]``, of any number and size.
        prompts: one text a row.
        extras: further columns of the data, one value a row.

    Raises:
        ValueError: the images are not a whole number of groups, or two conditions differ in their number of rows.
    """

    images: Tensor
    targets: Tensor | None = None
    drafts: Tensor | None = None
    masks: Tensor | None = None
    references: Sequence[Sequence[Tensor]] | None = None
    prompts: Sequence[str] | None = None
    extras: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {name: len(value) for name, value in self._conditions().items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"every condition needs one value for each row, got {counts}")
        if len(self.images) % self.rows:
            raise ValueError(
                f"{len(self.images)} images are not a whole number of samples for each of {self.rows} rows"
            )

    def _conditions(self) -> dict[str, Sequence[Any] | Tensor]:
        named = {
            "targets": self.targets,
            "drafts": self.drafts,
            "masks": self.masks,
            "references": self.references,
            "prompts": self.prompts,
            **self.extras,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def rows(self) -> int:
        """P; without any condition each image is a row of its own."""
        conditions = self._conditions()
        return len(next(iter(conditions.values()))) if conditions else len(self.images)

    @property
    def group_size(self) -> int:
        """G, the samples of one row."""
        return len(self.images) // self.rows

    def condition(self, name: str) -> Tensor:
        """A tensor condition, still one a row.

        Raises:
            RewardError: the data does not have it.
        """
        value = getattr(self, name)
        if value is None:
            raise RewardError(f"the reward needs {name}, and the data has none: have {sorted(self._conditions())}")
        return value

    def per_sample(self, condition: Tensor) -> Tensor:
        """Repeat a condition ``[P, …]`` for the samples of each row: ``[B, …]``."""
        return condition.repeat_interleave(self.group_size, dim=0)


@dataclass(frozen=True, kw_only=True)
class RewardOutput:
    """Scores of B samples.

    Args:
        total: ``[B]``, the weighted sum of ``scaled``.
        breakdown: for each label its score ``[B]`` as measured, before weight and transform.
        scaled: the same after the transform, still unweighted.
        weights: the weight of each label; 0 means measured, not optimised.
        applicable: for each label ``[B]``, false where the row lacks what the reward would use.
        failures: for each label, the samples without a score.
    """

    total: Tensor
    breakdown: Mapping[str, Tensor]
    scaled: Mapping[str, Tensor]
    weights: Mapping[str, float]
    applicable: Mapping[str, Tensor] = field(default_factory=dict)
    failures: Mapping[str, Mapping[int, Failure]] = field(default_factory=dict)


@runtime_checkable
class Reward(Protocol):
    """Anything that scores images; larger is better.

    Attributes:
        needs: conditions that every row must have.
        uses: conditions that make the reward applicable to a row that has them.
        range: least and greatest possible score.
    """

    needs: frozenset[str]
    uses: frozenset[str]
    range: tuple[float, float]

    def __call__(self, inputs: RewardInputs) -> Tensor | Scores: ...


def check_scores(label: str, scores: Tensor, count: int, bounds: tuple[float, float]) -> Tensor:
    """Refuse scores that are not ``count`` finite numbers inside the reward's own range; a rounding error is let pass.

    Raises:
        RewardError: with the label, the sample and the value.
    """
    if scores.shape != (count,):
        raise RewardError(f"{label}: expected one score for each of {count} images, got shape {tuple(scores.shape)}")
    slack = 1e-4 * max(1.0, *(abs(bound) for bound in bounds if abs(bound) != float("inf")), 0.0)
    low, high = bounds[0] - slack, bounds[1] + slack
    wrong = ~torch.isfinite(scores) | (scores < low) | (scores > high)
    if wrong.any():
        sample = int(wrong.nonzero()[0])
        value = scores[sample].item()
        raise RewardError(
            f"{label}: image {sample} scored {value}, expected a finite number from {bounds[0]} to {bounds[1]}"
        )
    return scores
