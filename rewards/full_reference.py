"""Well-known metrics of whole images without a network, as torchmetrics computes them.

Shapes: P rows · B samples · C H W image.

Differs from the papers: PSNR has a limit, since equal images would score infinity. MS-SSIM at fewer than five scales
takes the first of their weights, divided by their sum; factors below zero count as zero (``relu``), so that they have a
power; at the smallest scale torchmetrics lets the window reach over the picture's mirrored edge.
"""

import functools
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from rewards import pretrained
from rewards.types import RewardError, RewardInputs

EXTRA = "rewards-metrics"
WINDOW = 11  # pixels that MS-SSIM's Gaussian window (σ 1.5) reaches over
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the scales, from the paper's table


def opposite(inputs: RewardInputs, against: str, least: int = 1, why: str = "") -> Tensor:
    """What images are compared with, one a row: ``[P, 3, H, W]``.

    Raises:
        RewardError: the rows do not have it, it differs from the images in size, or both are too small.
    """
    other = inputs.condition(against)
    ours, theirs = tuple(inputs.images.shape[2:]), tuple(other.shape[2:])
    if ours != theirs:
        raise RewardError(f"expected images and {against} of one size, got {_pixels(ours)} and {_pixels(theirs)}")
    if min(ours) < least:
        raise RewardError(f"expected images of {least} × {least} pixels at least{why}, got {_pixels(ours)}")
    return other


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[0]} × {size[1]} pixels"


def _metric(name: str) -> Callable[..., Tensor]:
    return getattr(pretrained.package("torchmetrics.functional.image", EXTRA), name)


class Psnr:
    """Peak signal-to-noise ratio of an image to its target, in decibels.

        r = min(−10·log10 mean (y − y*)², limit)

    Args:
        against: ``targets`` or ``drafts``.
        limit: what equal images score. 60 dB is an error of 0.001 for each pixel, a quarter of a step of 8 bits.

    Raises:
        RewardError: the package is missing, or images and targets differ in size.

    Range: 0 to ``limit``.

    Cost: a subtraction for each pixel; no network and no weights.

    Hacked by: blur, as any mean of squared errors. The logarithm makes the last invisible errors count as much as the
        first: with a high ``limit`` it rewards exactness where nobody can see it.

    Reference: torchmetrics, ``peak_signal_noise_ratio``.

    >>> import torch
    >>> Psnr()(RewardInputs(images=torch.full((1, 3, 8, 8), 0.1), targets=torch.zeros(1, 3, 8, 8)))
    tensor([20.])
    """

    uses: frozenset[str] = frozenset()

    def __init__(self, *, against: Literal["targets", "drafts"] = "targets", limit: float = 60.0) -> None:
        self.ratio = functools.partial(_metric("peak_signal_noise_ratio"), data_range=1.0, reduction="none")
        self.against, self.needs, self.range = against, frozenset({against}), (0.0, limit)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        other = inputs.per_sample(opposite(inputs, self.against))
        return self.ratio(inputs.images.float(), other.float(), dim=(1, 2, 3)).clamp(max=self.range[1])


class MsSsim:
    """Structural similarity of an image to its target at several scales.

        r = l_M^β_M · Π_{j=1..M} cs_j^β_j,   β = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333 of Σ β, M scales

    l compares brightness (at the smallest scale alone), cs contrast and structure in a Gaussian window of 11 pixels;
    from one scale to the next the picture is halved.

    Args:
        against: ``targets`` or ``drafts``.
        scales: M. Five need 176 pixels on each side, four 99, three 44, two 22, one 11.

    Raises:
        RewardError: the package is missing, or images and targets differ in size or are too small.

    Cost: Gaussian filters over each sample at each scale; no network and no weights.

    Hacked by: a shift of colour or brightness, which it hardly sees; in flat regions noise decides. It forgives blur
        less than PSNR, and more than LPIPS.

    Reference: Wang et al., Multi-scale structural similarity, 2003; torchmetrics.
    """

    uses: frozenset[str] = frozenset()
    range = (0.0, 1.0)

    def __init__(self, *, against: Literal["targets", "drafts"] = "targets", scales: int = 5) -> None:
        betas = tuple(beta / sum(BETAS[:scales]) for beta in BETAS[:scales])
        similarity = _metric("multiscale_structural_similarity_index_measure")
        self.similarity = functools.partial(similarity, data_range=1.0, reduction="none", normalize="relu", betas=betas)
        self.against, self.needs, self.scales = against, frozenset({against}), scales
        self.least = WINDOW * max((scales - 1) ** 2, 2 ** (scales - 1))  # the package's own limit, and the last picture

    def __call__(self, inputs: RewardInputs) -> Tensor:
        why = f" for MS-SSIM at {self.scales} scales (scales: fewer)"
        other = inputs.per_sample(opposite(inputs, self.against, self.least, why))
        return self.similarity(inputs.images.float(), other.float())
