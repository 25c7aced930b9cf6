"""Brightness and its derivatives at several scales, as rewards without weights see a picture.

Shapes: N images · C H W image · h w an image made smaller, less a border of one pixel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.types import RewardError

SMOOTH = torch.tensor([1.0, 2.0, 1.0]) / 4
FIRST = torch.tensor([-1.0, 0.0, 1.0]) / 2
SECOND = torch.tensor([1.0, -2.0, 1.0])
DERIVATIVES = torch.stack(
    [
        torch.outer(SMOOTH, FIRST),
        torch.outer(FIRST, SMOOTH),
        torch.outer(SMOOTH, SECOND),
        torch.outer(FIRST, FIRST),
        torch.outer(SECOND, SMOOTH),
    ]
)
"""∂x, ∂y, ∂xx, ∂xy and ∂yy, each smoothed across; exact for polynomials of the second degree."""


def luminance(images: Tensor) -> Tensor:
    """``[N, 3, H, W]`` → ``[N, 1, H, W]``, with the weights of ITU-R BT.601."""
    return (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)


def smaller(images: Tensor, scale: int) -> Tensor:
    """The mean of every ``scale`` × ``scale`` pixels; what is left over at the right and below is cut off."""
    return images if scale == 1 else F.avg_pool2d(images, scale)


def derivatives(plane: Tensor, count: int = len(DERIVATIVES)) -> Tensor:
    """The first ``count`` of ``DERIVATIVES`` of a plane ``[N, 1, H, W]``, per pixel, where the filter lies inside it.

    >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    >>> derivatives(ramp, 2)[0, :, 1, 1]
    tensor([1., 0.])
    """
    return F.conv2d(plane, DERIVATIVES[:count, None].to(plane))


def check_scales(size: Sequence[int], scales: Sequence[int]) -> None:
    """An image is large enough for its derivatives at every scale.

    Raises:
        RewardError: it is not.
    """
    if min(size) // max(scales) < 3:
        raise RewardError(
            f"expected images of at least {3 * max(scales)} pixels at scale {max(scales)}, got {size[0]} × {size[1]}"
        )
