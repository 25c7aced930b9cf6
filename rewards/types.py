"""What a reward is given, and what it gives back.

Shapes: P rows of the data · G samples of one row (a group) · B = P·G, samples of one row beside each other · C H W
image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

FIELDS = ("targets", "drafts", "masks", "references", "roles", "reference_masks", "prompts")
"""The conditions that have a field of their own in ``RewardInputs``."""


class RewardError(RuntimeError):
    """A reward gave no usable number. It is never replaced by one."""

    exit_code = 4


@dataclass(frozen=True)
class Failure:
    """Why one sample has no score: the kind, for counting, a message, for reading, and which sample it is, if known.

    The kinds that a composition finds are ``raised``, ``type``, ``shape``, ``nan``, ``infinite`` and ``range``; a
    reward that returns ``Scores`` may name others.
    """

    kind: str
    message: str
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of which some may be missing.

    Args:
        values: ``[B]``; whatever stands where there is none is not looked at.
        failures: for each failed sample its reason.
        applicable: boolean ``[B]``, false where the reward has nothing to say; None where it always has.
    """

    values: Tensor
    failures: Mapping[int, Failure] = field(default_factory=dict)
    applicable: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Groups:
    """What may be known of the rows beside their scores.

    Args:
        size: G, the samples of each row.
        references: how many reference images each row has.
    """

    size: int
    references: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RewardInputs:
    """Images to score, and one condition for each row that they were made from.

    Args:
        images: ``[B, 3, H, W]`` in [0, 1]; sample ``b`` belongs to row ``b // G``.
        targets, drafts: ``[P, 3, H, W]`` in [0, 1].
        masks: ``[P, 1, H, W]`` in [0, 1], 1 where the detail is.
        references: for each row its reference images ``[3, h, w]``, of any number and size.
        roles: what each of them is for, as many a row; without them every one is a ``reference``.
        reference_masks: where in each of them the detail is, ``[1, h, w]``, or None where that is not known.
        prompts: one text a row.
        extras: further columns of the data, one value a row; None where a row has none.

    Raises:
        ValueError: the images are not a whole number of groups, two conditions differ in their number of rows, or a
            row has another number of roles than of references.
    """

    images: Tensor
    targets: Tensor | None = None
    drafts: Tensor | None = None
    masks: Tensor | None = None
    references: Sequence[Sequence[Tensor]] | None = None
    roles: Sequence[Sequence[str]] | None = None
    reference_masks: Sequence[Sequence[Tensor | None]] | None = None
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
        roles = [len(row) for row in self.roles or ()]
        if self.roles is not None and self.references is not None and roles != self.reference_counts:
            raise ValueError(f"every reference needs one role, got {self.reference_counts} references and {self.roles}")

    def _conditions(self) -> dict[str, Sequence[Any] | Tensor]:
        named = {name: getattr(self, name) for name in FIELDS} | dict(self.extras)
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

    @property
    def reference_counts(self) -> list[int]:
        """How many references each row has."""
        return [0] * self.rows if self.references is None else [len(row) for row in self.references]

    @property
    def groups(self) -> Groups:
        return Groups(size=self.group_size, references=tuple(self.reference_counts))

    def has(self, condition: str) -> list[bool]:
        """Which rows have a condition: a field, ``references.ROLE`` for one of that role, or a column of extras."""
        name, _, role = condition.partition(".")
        if name == "references" and self.references is not None:
            return [bool(self.references_of(row, role or None)) for row in range(self.rows)]
        value = getattr(self, name, None) if name in FIELDS else self.extras.get(condition)
        if value is None or name in FIELDS:
            return [value is not None] * self.rows
        return [each is not None for each in value]

    def references_of(self, row: int, role: str | None) -> list[Tensor]:
        """The references of a row that have a role, or all of them, in their order."""
        return [] if self.references is None else self._with_role(row, role, self.references[row])

    def reference_masks_of(self, row: int, role: str | None) -> list[Tensor | None]:
        """The masks of these references, None for one without."""
        masks = [None] * self.reference_counts[row] if self.reference_masks is None else self.reference_masks[row]
        return self._with_role(row, role, masks)

    def _with_role(self, row: int, role: str | None, values: Sequence[Any]) -> list[Any]:
        roles = ["reference"] * len(values) if self.roles is None else self.roles[row]
        return [value for value, its in zip(values, roles, strict=True) if role in (None, its)]

    def part(self, rows: Sequence[int], samples: Sequence[int] | None = None) -> "RewardInputs":
        """Some rows, in this order, with some samples of each, or with all."""
        chosen = range(self.group_size) if samples is None else samples
        places = [row * self.group_size + sample for row in rows for sample in chosen]

        def of(value: Any) -> Any:
            return (
                value if value is None else value[list(rows)] if isinstance(value, Tensor) else [value[p] for p in rows]
            )

        conditions = {name: of(getattr(self, name)) for name in FIELDS}
        extras = {name: of(values) for name, values in self.extras.items()}
        return RewardInputs(images=self.images[places], **conditions, extras=extras)

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
    """Scores of B samples. Where a reward does not apply or has failed there is NaN, and never a number.

    Args:
        total: ``[B]``, the weighted sum of ``scaled`` over the rewards that apply; NaN where one of them has failed and
            its weight is not 0.
        breakdown: for each label its score ``[B]`` as measured, before weight and transform.
        scaled: the same after the transform, still unweighted.
        weights: the weight of each label; 0 means measured, not optimised.
        applicable: for each label ``[B]``, false where the row lacks what the reward would use.
        failures: for each label, the samples without a score.
        kept: ``[B]``, false for samples that nothing is learnt from, since a reward failed; None where all are kept.
    """

    total: Tensor
    breakdown: Mapping[str, Tensor]
    scaled: Mapping[str, Tensor]
    weights: Mapping[str, float]
    applicable: Mapping[str, Tensor] = field(default_factory=dict)
    failures: Mapping[str, Mapping[int, Failure]] = field(default_factory=dict)
    kept: Tensor | None = None

    def known(self, label: str) -> Tensor:
        """Where a reward's number counts, ``[B]``: it applies, has not failed, and the sample is kept."""
        everywhere = torch.ones_like(self.scaled[label], dtype=torch.bool)
        known = self.applicable.get(label, everywhere) & ~self._marked([label])
        return known if self.kept is None else known & self.kept

    @property
    def lost(self) -> Tensor:
        """The samples whose total is not known, ``[B]``: a reward failed there whose weight is not 0."""
        return self._marked([label for label, weight in self.weights.items() if weight != 0])

    def _marked(self, labels: Sequence[str]) -> Tensor:
        marked = torch.zeros_like(self.total, dtype=torch.bool)
        samples = sorted({sample for label in labels for sample in self.failures.get(label, ())})
        if samples:
            marked[samples] = True
        return marked


@runtime_checkable
class Reward(Protocol):
    """Anything that scores images; larger is better.

    Attributes:
        needs: conditions that every row must have.
        uses: conditions without which the reward does not apply to a row; such rows never reach it.
        range: least and greatest possible score.
        unit: ``group`` for one that compares the samples of a row, which it is then given whole; ``sample`` without.

    A condition is ``targets``, ``drafts``, ``masks``, ``references``, ``references.ROLE`` for one of that role, or the
    name of a column of extras.
    """

    needs: frozenset[str]
    uses: frozenset[str]
    range: tuple[float, float]

    def __call__(self, inputs: RewardInputs) -> Tensor | Scores: ...


def unit_of(reward: Reward) -> str:
    """What a reward scores by itself: a ``sample``, or only a whole ``group``, as its attribute ``unit`` says."""
    return getattr(reward, "unit", "sample")


@runtime_checkable
class ElsewhereReward(Reward, Protocol):
    """A reward whose work is done elsewhere, while this process goes on."""

    def begin(self, inputs: RewardInputs) -> Callable[[], Scores]:
        """Have the images scored; what is returned waits for the scores."""
        ...
