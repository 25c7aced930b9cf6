"""Structural similarity: do two images have the same local brightness, contrast and structure?

Shapes: N images · C H W image · h w positions of the window that lie inside the image.

Differs from the paper: the window is uniform instead of Gaussian, as in scikit-image's default; 7 × 7 fits into small
patches.
"""

import torch.nn.functional as F
from torch import Tensor

WINDOW = 7


def ssim(image: Tensor, target: Tensor, *, window: int = WINDOW) -> Tensor:
    """Mean structural similarity of each image to its target, over channels and all positions of the window.

        SSIM = (2·μx·μy + c₁)·(2·σxy + c₂) / ((μx² + μy² + c₁)·(σx² + σy² + c₂)),   c₁ = 0.01², c₂ = 0.03²

    Moments are those of a uniform window; variances and the covariance have Bessel's correction.

    Args:
        image, target: ``[N, C, H, W]`` in [0, 1], at least ``window`` pixels on each side.
        window: side of the window in pixels, odd.

    Returns:
        ``[N]`` in [−1, 1]; 1 for equal images.

    Raises:
        ValueError: shapes differ, or the images are smaller than the window.

    Reference: Wang et al., Image Quality Assessment, 2004, equation 13.

    >>> import torch
    >>> ssim(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    tensor([1.])
    """
    if image.shape != target.shape or image.ndim != 4:
        raise ValueError(
            f"expected two image batches of one shape [N, C, H, W], got {tuple(image.shape)} and {tuple(target.shape)}"
        )
    if min(image.shape[2:]) < window:
        raise ValueError(
            f"images of {image.shape[2]} × {image.shape[3]} pixels are smaller than the window of {window}"
        )
    return _similarity_map(image, target, window).mean(dim=(1, 2, 3))


def _similarity_map(image: Tensor, target: Tensor, window: int) -> Tensor:
    """SSIM at each position of the window, ``[N, C, h, w]``."""

    def local_mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1)

    bessel = window**2 / (window**2 - 1)
    mean_x, mean_y = local_mean(image), local_mean(target)
    variance_x = bessel * (local_mean(image * image) - mean_x**2)
    variance_y = bessel * (local_mean(target * target) - mean_y**2)
    covariance = bessel * (local_mean(image * target) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))


def correlation(image: Tensor, target: Tensor) -> Tensor:
    """Zero-mean normalised cross-correlation: the same structure, whatever the brightness and contrast.

        r = ⟨x − μx, y − μy⟩ / √(‖x − μx‖²·‖y − μy‖²)

    Args:
        image, target: ``[N, C, H, W]``.

    Returns:
        ``[N]`` in [−1, 1]; equal images give 1, also plain ones, and a plain one against another gives 0.

    >>> import torch
    >>> ramp = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> round(correlation(2 * ramp + 1, ramp).item(), 5)
    1.0
    """
    x, y = image.flatten(1), target.flatten(1)
    same = (x == y).all(dim=1)
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    cosine = F.cosine_similarity(x, y, dim=1, eps=1e-8)
    return cosine.masked_fill(same, 1.0)
