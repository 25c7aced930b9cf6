"""Soft edges for masks: where a detail ends is seldom known to the pixel.

Shapes: P rows · H W image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def feathered(mask: Tensor, pixels: float) -> Tensor:
    """A mask whose edge falls from 1 to 0 over about ``2·pixels`` pixels, half of them inside: a Gaussian blur.

        M' = M * N(0, σ²),   σ = pixels / 2,   cut off at 3σ

    Beyond the border of the image the mask goes on as it ends there, so that a full one stays full.

    Args:
        mask: ``[P, 1, H, W]`` in [0, 1].
        pixels: 0 leaves it as it is.

    >>> step = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).expand(1, 1, 6, 6)
    >>> feathered(step, 2)[0, 0, 0]
    tensor([0.0044, 0.0584, 0.3005, 0.6995, 0.9416, 0.9956])
    """
    if pixels == 0:
        return mask
    sigma = pixels / 2
    radius = max(1, round(3 * sigma))
    place = torch.arange(-radius, radius + 1, device=mask.device, dtype=mask.dtype)
    bell = torch.exp(-place.square() / (2 * sigma**2))
    bell = bell / bell.sum()
    wide = F.pad(mask, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(wide, bell.reshape(1, 1, 1, -1)), bell.reshape(1, 1, -1, 1)).clamp(0, 1)
