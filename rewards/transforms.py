"""What may happen to a score before its weight: the shape changes, the order of two scores never does.

Shapes: B samples.
"""

import torch
from torch import Tensor


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
    """y = 1 / (1 + exp(−slope·(x − centre))): differences near ``centre`` count most (discriminative reward scaling).

    Reference: DyRef, arXiv 2606.26947; the form is that of its released code.

    >>> Logistic(centre=0.65, slope=10.0)(torch.tensor([0.65]))
    tensor([0.5000])
    """

    def __init__(self, *, centre: float = 0.65, slope: float = 10.0) -> None:
        self.centre, self.slope = centre, slope

    def __call__(self, score_B: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * (score_B - self.centre))
