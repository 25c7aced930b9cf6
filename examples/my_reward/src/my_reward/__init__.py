"""A reward in a package of its own."""

import torch.nn.functional as F
from torch import Tensor

from rewards import RewardInputs


class EvenLight:
    """How evenly an image is lit, compared with its target: the mean brightness of each cell of a grid.

        r = −mean_cells |b(y) − b(y*)|

    Args:
        columns: cells of the grid on each side.
    """

    needs = frozenset({"targets"})
    uses: frozenset[str] = frozenset()
    range = (-1.0, 0.0)
    networks = False  # so that a plan can run it on tensors without content

    def __init__(self, *, columns: int = 3) -> None:
        if columns < 1:
            raise ValueError(f"columns: expected at least 1, found {columns}")
        self.columns = columns

    def __call__(self, inputs: RewardInputs) -> Tensor:
        cells_P = self._cells(inputs.condition("targets"))
        return -(self._cells(inputs.images) - inputs.per_sample(cells_P)).abs().mean(dim=(1, 2))

    def _cells(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images.mean(dim=1), self.columns)
