"""Distances that were fitted to people's judgements: LPIPS and DISTS.

Shapes: P rows · B samples · N images · C h w picture inside a network.

Differs from torchmetrics, whose weights these are: a target goes through the network once a row instead of once a
sample, and the network is loaded once a process; each distance is larger is better, so its negative. The results are
the same (``tests/rewards/test_learned_distances.py``).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import image_networks
from rewards.full_reference import opposite
from rewards.types import RewardInputs

Pictures = Sequence[Tensor]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [−1, 1], as LPIPS has them
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = 1e-6  # DISTS' c₁ and c₂


class Lpips:
    """Negative LPIPS distance of an image to its target.

        r = −Σ_l mean_{h,w} Σ_c w_lc·(φ_l(y) − φ_l(y*))²,   φ of unit length at each place

    φ_l are pictures inside a network that was trained on ImageNet, w was fitted to which of two distortions people find
    nearer. The weights w travel in torchmetrics; those of the network are a download.

    Args:
        network: ``alex``, ``vgg`` or ``squeeze``.
        against: ``targets`` or ``drafts``.
        checkpoint: file with the network's weights; by default in torch's cache.
        download: fetch what is missing.
        batch: images that go through the network at once.

    Raises:
        RewardError: a package or the weights are missing, or images and targets differ in size or are too small (31
            pixels for ``alex``, 17 for ``squeeze``, 16 for ``vgg``).

    Cost: a forward pass of the network's convolutions at the image's own size for each sample, and one for each target.

    Hacked by: high-frequency patterns, to which its networks are sensitive and people are not. It was fitted to patches
        of 64 × 64 pixels, so it knows nothing of what a picture shows.

    Reference: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, arXiv 1801.03924.
    """

    uses: frozenset[str] = frozenset()
    range = (float("-inf"), 0.0)

    def __init__(
        self,
        *,
        network: Literal["alex", "vgg", "squeeze"] = "alex",
        against: Literal["targets", "drafts"] = "targets",
        checkpoint: str | None = None,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        heads = image_networks.packaged(f"lpips_models/{network}.pth")
        self.head_L = [heads[name] for name in sorted(heads)]
        self.file = image_networks.obtain(network, checkpoint=checkpoint, download=download)
        self.network, self.batch = network, batch
        self.against, self.needs = against, frozenset({against})

    def pictures(self, images: Tensor) -> list[Tensor]:
        """φ_l of images ``[N, 3, H, W]`` in [0, 1]: a ``[N, C, h, w]`` for each stage."""
        stages = image_networks.load(self.network, self.file, str(images.device))
        found, picture = [], _normalised(2 * images - 1, SHIFT, SCALE)
        for stage in stages:
            picture = stage(picture)
            found.append(picture / (picture.square().sum(dim=1, keepdim=True) + 1e-8).sqrt())
        return found

    def distance(self, images: Pictures, target: Pictures) -> Tensor:
        """Of N images to one target, ``[N]``."""
        parts = [
            ((of_image - of_target).square() * head.to(of_image.device)).sum(dim=1).mean(dim=(1, 2))
            for head, of_image, of_target in zip(self.head_L, images, target, strict=True)
        ]
        return torch.stack(parts).sum(dim=0)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        least = image_networks.NETWORKS[self.network].least
        other = opposite(inputs, self.against, least, f" for LPIPS with {self.network}")
        return _scores(inputs.images, other, self.pictures, self.distance, self.batch)


class Dists:
    """Negative DISTS distance of an image to its target.

        r = −1 + Σ_l Σ_c ( α_lc·(2·μx·μy + c)/(μx² + μy² + c) + β_lc·(2·σxy + c)/(σx² + σy² + c) ),   c = 1e-6

    μ and σ are mean and (co)variance of channel c over all of picture l inside VGG-16, whose pooling is smooth; picture
    0 is the image itself. Means make textures alike wherever their strokes lie, covariances hold the structure. α and
    β were fitted, add up to 1, and travel in torchmetrics; the weights of VGG-16 are a download.

    Args:
        against: ``targets`` or ``drafts``.
        checkpoint: file with the weights of VGG-16; by default in torch's cache.
        download: fetch what is missing.
        batch: images that go through the network at once.

    Raises:
        RewardError: a package or the weights are missing, or images and targets differ in size or are smaller than 16
            pixels.

    Cost: a forward pass of VGG-16 at the image's own size for each sample, and one for each target. Its authors resize
        images to 256 pixels on the shorter side first; here the size is the data's.

    Hacked by: the right texture in the wrong place, which it was made to forgive. Text and faces are texture to it.

    Reference: Ding et al., Image Quality Assessment: Unifying Structure and Texture Similarity, arXiv 2004.07728.
    """

    uses: frozenset[str] = frozenset()
    range = (-2.0, 0.0)

    def __init__(
        self,
        *,
        against: Literal["targets", "drafts"] = "targets",
        checkpoint: str | None = None,
        download: bool = False,
        batch: int = 8,
    ) -> None:
        fitted = image_networks.packaged("dists_models/weights.pt")
        total = fitted["alpha"].sum() + fitted["beta"].sum()
        self.alpha_C, self.beta_C = (fitted[name].flatten() / total for name in ("alpha", "beta"))
        self.file = image_networks.obtain("vgg", checkpoint=checkpoint, download=download)
        self.batch, self.against, self.needs = batch, against, frozenset({against})

    def pictures(self, images: Tensor) -> list[Tensor]:
        """The images ``[N, 3, H, W]`` in [0, 1], and what each stage of VGG-16 makes of them."""
        found, picture = [images], _normalised(images, MEAN, STD)
        for number, stage in enumerate(image_networks.load("vgg", self.file, str(images.device))):
            picture = stage(picture) if number == 0 else stage[1:](smooth_pool(picture))
            found.append(picture)
        return found

    def distance(self, images: Pictures, target: Pictures) -> Tensor:
        """Of N images to one target, ``[N]``."""
        found = [_moments(x, y) for x, y in zip(images, target, strict=True)]
        mean_NC, structure_NC = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        alpha_C, beta_C = self.alpha_C.to(mean_NC.device), self.beta_C.to(mean_NC.device)
        return 1 - (mean_NC * alpha_C + structure_NC * beta_C).sum(dim=1)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        other = opposite(inputs, self.against, image_networks.NETWORKS["vgg"].least, " for DISTS")
        return _scores(inputs.images, other, self.pictures, self.distance, self.batch)


def smooth_pool(picture: Tensor) -> Tensor:
    """Halve a picture ``[N, C, h, w]`` by the root of a smoothed square, as DISTS does instead of taking the maximum.

    >>> smooth_pool(torch.ones(1, 1, 5, 5))[0, 0, 1, 1]
    tensor(1.)
    """
    window_3 = picture.new_tensor([0.25, 0.5, 0.25])  # a Hann window without its zeros, of sum 1
    channels = picture.shape[1]
    window = torch.outer(window_3, window_3).expand(channels, 1, 3, 3)
    return (F.conv2d(picture.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


def _moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """How alike the means and the structure of each channel are: twice ``[N, C]``."""
    mean_x, mean_y = x.mean(dim=(2, 3), keepdim=True), y.mean(dim=(2, 3), keepdim=True)
    means = (2 * mean_x * mean_y + SMALL) / (mean_x.square() + mean_y.square() + SMALL)
    spread = (x - mean_x).square().mean(dim=(2, 3)) + (y - mean_y).square().mean(dim=(2, 3))
    together = ((x - mean_x) * (y - mean_y)).mean(dim=(2, 3))
    return means.flatten(1), (2 * together + SMALL) / (spread + SMALL)


def _normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    shift, scale = (images.new_tensor(value)[:, None, None] for value in (mean, std))
    return (images - shift) / scale


def _scores(
    images: Tensor,
    other: Tensor,
    pictures: Callable[[Tensor], list[Tensor]],
    distance: Callable[[Pictures, Pictures], Tensor],
    batch: int,
) -> Tensor:
    """Negative distances ``[B]``; what is compared with is looked at once a row."""
    group, scores = len(images) // len(other), []
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        for target, samples in zip(other.float().split(1), images.float().split(group), strict=True):
            of_target = pictures(target)
            scores += [-distance(pictures(some), of_target) for some in samples.split(batch)]
    return torch.cat(scores)
