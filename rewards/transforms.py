"""What may happen to a score before its weight: the shape changes, the order of two siblings never does.

Shapes: B samples · P rows · G samples of a row. Where a sample has no score there is NaN, and NaN it stays.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rewards.types import Groups


@runtime_checkable
class GroupTransform(Protocol):
    """A transform that looks at a score together with its siblings, or with what their row is like."""

    def of_groups(self, score_PG: Tensor, groups: Groups) -> Tensor:
        """``[P, G]`` → ``[P, G]``."""
        ...


class Affine:
    """y = scale·x + shift, with a positive scale.

    >>> Affine(scale=2.0, shift=1.0)(torch.tensor([0.5]))
    tensor([2.])
    """

    def __init__(self, *, scale: float = 1.0, shift: float = 0.0) -> None:
        self.scale, self.shift = scale, shift

    def __call__(self, score_B: Tensor) -> Tensor:
        return self.scale * score_B + self.shift


class Clip:
    """y = min(max(x, low), high): nothing is gained beyond ``high``.

    >>> Clip(high=0.9)(torch.tensor([0.5, 0.95]))
    tensor([0.5000, 0.9000])
    """

    def __init__(self, *, low: float | None = 0.0, high: float | None = 1.0) -> None:
        self.low, self.high = low, high

    def __call__(self, score_B: Tensor) -> Tensor:
        low = float("-inf") if self.low is None else self.low
        return score_B.clamp(min=low, max=self.high)


class Logistic:
    """y = 1 / (1 + exp(−slope·(x − centre))): differences near ``centre`` count most.

    >>> Logistic(centre=0.65, slope=10.0)(torch.tensor([0.65]))
    tensor([0.5000])
    """

    def __init__(self, *, centre: float = 0.65, slope: float = 10.0) -> None:
        self.centre, self.slope = centre, slope

    def __call__(self, score_B: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * (score_B - self.centre))


class DiscriminativeScaling:
    """Discriminative reward scaling (DRS): a logistic curve that is steeper for rows with more references.

        y = 1 / (1 + exp(−k(n)·(x − τ))),   k(n) = slope + per_reference·(max(n, 2) − 2),   n references in the row

    With ``per_reference=0`` it is ``Logistic``. All siblings have one curve, so what it adds to a comparison inside the
    group is its bend: scores near τ are told apart, and far from it they come to be the same.

    Differs from the paper: it has two references or more, so fewer count as two here; its own formula is not known to
    us, and this is that of its released code, with the values of its published recipe.

    Args:
        tau: τ, the score that becomes one half.
        slope: k of a row with two references.
        per_reference: what every further one adds.

    Reference: DyRef, arXiv 2606.26947.

    >>> drs, scores = DiscriminativeScaling(), torch.tensor([[0.5, 0.65, 0.8]])
    >>> drs.of_groups(scores, Groups(size=3, references=(2,)))
    tensor([[0.1824, 0.5000, 0.8176]])
    >>> drs.of_groups(scores, Groups(size=3, references=(6,)))
    tensor([[0.0356, 0.5000, 0.9644]])
    """

    def __init__(self, *, tau: float = 0.65, slope: float = 10.0, per_reference: float = 3.0) -> None:
        self.tau, self.slope, self.per_reference = tau, slope, per_reference

    def of_groups(self, score_PG: Tensor, groups: Groups) -> Tensor:
        slopes = [self.slope + self.per_reference * (max(count, 2) - 2) for count in groups.references]
        return torch.sigmoid(score_PG.new_tensor(slopes)[:, None] * (score_PG - self.tau))


class Rank:
    """A sample's place among its siblings: 0 for the worst, 1 for the best, whatever the scores are.

        y_i = ( #{j: x_j < x_i} + ½·#{j ≠ i: x_j = x_i} ) / (n − 1)

    n counts the siblings that have a score. Equal scores share the mean of their places; one alone gets ½.

    >>> Rank().of_groups(torch.tensor([[0.1, 9.0, 0.2, 0.2]]), Groups(size=4, references=(0,)))
    tensor([[0.0000, 1.0000, 0.5000, 0.5000]])
    """

    def of_groups(self, score_PG: Tensor, groups: Groups) -> Tensor:
        own, other = score_PG[:, :, None], score_PG[:, None, :]  # NaN is neither less than anything nor equal to it
        below_PG, equal_PG = (own > other).sum(dim=2), (own == other).sum(dim=2)
        siblings_P1 = (~score_PG.isnan()).sum(dim=1, keepdim=True) - 1
        place_PG = (below_PG + (equal_PG - 1) / 2) / siblings_P1.clamp(min=1)
        return place_PG.where(siblings_P1 > 0, 0.5).where(~score_PG.isnan(), float("nan")).to(score_PG.dtype)
