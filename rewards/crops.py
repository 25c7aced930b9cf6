"""One square of each row around its mask, for rewards that look at the detail alone.

Shapes: P rows · B samples · C H W image · S side of the square.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rewards.types import RewardInputs


def around_masks(inputs: RewardInputs, side: int) -> RewardInputs:
    """Images and targets cut down to a square of ``side`` pixels around the mask of their row.

    The square's middle is that of the mask's bounding box, moved as little as keeps the square inside the image; that
    of the image where a row has no mask, or an empty one. Nothing but the mask's place is used: the square has none.

    Args:
        inputs: images and targets of one size, no smaller than the square.
    """
    targets = inputs.condition("targets")
    corner_P2 = _corners(inputs.masks, targets, side)
    images = squares(inputs.images, inputs.per_sample(corner_P2), side)
    return replace(inputs, images=images, targets=squares(targets, corner_P2, side), masks=None)


def squares(image: Tensor, corner_B2: Tensor, side: int) -> Tensor:
    """Cut a square out of each image ``[B, C, H, W]``: ``[B, C, side, side]``, from its upper left corner.

    >>> squares(torch.arange(12.0).reshape(1, 1, 3, 4), torch.tensor([[1, 2]]), 2)
    tensor([[[[ 6.,  7.],
              [10., 11.]]]])
    """
    reach_S = torch.arange(side, device=image.device)
    row_BS1 = (corner_B2[:, :1] + reach_S).unsqueeze(2)
    column_B1S = (corner_B2[:, 1:] + reach_S).unsqueeze(1)
    sample_B11 = torch.arange(len(image), device=image.device).reshape(-1, 1, 1)
    return image.permute(0, 2, 3, 1)[sample_B11, row_BS1, column_B1S].permute(0, 3, 1, 2)


def _corners(masks: Tensor | None, images: Tensor, side: int) -> Tensor:
    """The squares' upper left corners ``[P, 2]``, row and column."""
    marked_P1HW = torch.zeros_like(images[:, :1]) if masks is None else masks > 0
    along = [_start(marked_P1HW.any(dim=3)[:, 0], side), _start(marked_P1HW.any(dim=2)[:, 0], side)]
    return torch.stack(along, dim=1)


def _start(marked_PN: Tensor, side: int) -> Tensor:
    """Where a stretch of ``side`` begins whose middle is that of what is marked, or of everything where nothing is."""
    count = marked_PN.shape[1]
    first_P = marked_PN.int().argmax(dim=1)
    after_P = count - marked_PN.flip(1).int().argmax(dim=1)
    return ((first_P + after_P - side) // 2).clamp(0, count - side)
