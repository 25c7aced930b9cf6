"""Does the edited region look like the style image? Told from colours and oriented texture, without a network.

Shapes: P rows · B samples · F features · C H W image.

Differs from SPIE, whose place it takes where no weights are at hand: statistics of the whole region are compared in
place of each patch of a network with each other one.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.filters import check_scales, derivatives, luminance, smaller
from rewards.moments import cloud_nearness, root_overlap, weighted_moments
from rewards.settings import region_needs
from rewards.types import RewardError, RewardInputs

PLAIN = 1e-6  # mean squared derivative of a region that has no texture: slopes of a thousandth

Moments = tuple[Tensor, Tensor]
Features = Callable[[Tensor, Tensor], list[Moments]]  # images and weights to moments, one pair a scale


def style_moments(inputs: RewardInputs, role: str | None, features: Features) -> list[tuple[Moments, Moments]]:
    """For every scale the moments of each sample's region, and those of its row's style images, in
    their masks if they have any.

    Raises:
        RewardError: a row has no image of that role, or the masks have another size than the images.
    """
    masks = inputs.condition("masks")
    if masks.shape[2:] != inputs.images.shape[2:]:
        raise RewardError(
            f"images of {tuple(inputs.images.shape[2:])} pixels against masks of {tuple(masks.shape[2:])}"
        )
    regions = features(inputs.images, inputs.per_sample(masks))
    styles = [_of_row(inputs, role, features, row) for row in range(inputs.rows)]
    pairs = []
    for scale, region in enumerate(regions):
        means, moments = (torch.cat([style[scale][part] for style in styles]) for part in (0, 1))
        pairs.append((region, (inputs.per_sample(means), inputs.per_sample(moments))))
    return pairs


def _of_row(inputs: RewardInputs, role: str | None, features: Features, row: int) -> list[Moments]:
    """The moments of all style images of a row together, ``[1, F]`` and ``[1, F, F]`` at each scale."""
    images = inputs.references_of(row, role)
    if not images:
        of_role = "" if role is None else f" of the role {role}"
        raise RewardError(f"the reward needs references{of_role}, and row {row} has none")
    each = [
        features(image[None], torch.ones_like(image[None, :1]) if mask is None else mask[None])
        for image, mask in zip(images, inputs.reference_masks_of(row, role), strict=True)
    ]
    return [
        (torch.stack([one[scale][0] for one in each]).mean(dim=0), torch.stack([one[scale][1] for one in each]).mean(0))
        for scale in range(len(each[0]))
    ]


class RegionColour:
    """Nearness of the region's colours to those of the style image, both as Gaussian clouds.

        r = 1 − W₂ / √3,   W₂² = ‖μ_y − μ_s‖² + tr(Σ_y + Σ_s − 2 (Σ_y^½ Σ_s Σ_y^½)^½)

    μ and Σ are mean and covariance of the colours (red, green, blue) in the mask and in
    the style image, or in its mask if it has one. W₂ is
    the least distance that colours must be moved to turn one cloud into the other; it is never more than √3, the
    diagonal of all colours. A row whose mask is empty is measured as a whole.

    Args:
        role: which of a row's references show the style, None for all; several count as one image.

    Cost: sums over the pixels, and eigenvectors of matrices of 3 × 3; no network and no weights.

    Hacked by: a tint whose mean and spread are right, without any texture; and by brightness alone, since lightness
        makes up most of the distance between photos. ``region_texture`` sees the first.

    Reference: Gelbrich, On a formula for the L² Wasserstein metric, 1990.

    >>> style, black = torch.ones(3, 8, 8), torch.zeros(1, 3, 8, 8)
    >>> inputs = RewardInputs(images=black, masks=black[:, :1] + 1, references=[[style]], roles=[["style"]])
    >>> RegionColour()(inputs)
    tensor([0.])
    """

    uses: frozenset[str] = frozenset()
    range = (0.0, 1.0)

    def __init__(self, *, role: str | None = None) -> None:
        self.role = role
        self.needs = region_needs(role)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        [(region, style)] = style_moments(inputs, self.role, lambda *given: [weighted_moments(*given)])
        return cloud_nearness(region, style).float()


class RegionTexture:
    """Likeness of the region's texture to that of the style image: how strong, how fine, in which direction.

        r = mean_s (2·tr(A^½ B A^½)^½ + c) / (tr A + tr B + c)

    A and B are the second moments, in the region and in the style image, of ten features of brightness at the scale s:
    its five derivatives (``rewards.filters``) and their sizes, so that lines differ from noise of the same direction.
    One where they are equal, 2k/(1 + k²) for the same texture k times as strong, near zero for a plain region or
    another direction. Features whose filter reaches out of the mask do not count, so its edge is no texture; a mask
    too small for that, or empty, is taken as it is, or as the whole image.

    Args:
        role: which of a row's references show the style, None for all; several count as one image.
        scales: how many times smaller pictures are looked at, whole numbers.

    Cost: five small convolutions for each scale, and eigenvectors of matrices of 10 × 10; no network and no weights.

    Hacked by: a pattern of the right strength, fineness and directions that is not the material: place and form are not
        compared, and colours not at all. It has to lie over the structure of the draft, so ``gradient_structure`` pays
        for it.

    >>> lines = (torch.arange(16.0) % 4 / 4).expand(1, 3, 16, 16)
    >>> masks = torch.ones(1, 1, 16, 16)
    >>> RegionTexture(scales=[1])(RewardInputs(images=lines, masks=masks, references=[[lines[0]]], roles=[["style"]]))
    tensor([1.])
    """

    uses: frozenset[str] = frozenset()
    range = (0.0, 1.0)

    def __init__(self, *, role: str | None = None, scales: Sequence[int] = (1, 2, 4)) -> None:
        self.role, self.scales = role, tuple(scales)
        self.needs = region_needs(role)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        check_scales(inputs.images.shape[2:], self.scales)
        likeness = [
            self._likeness(region[1], style[1]) for region, style in style_moments(inputs, self.role, self._moments)
        ]
        return torch.stack(likeness).mean(dim=0).float()

    def _likeness(self, region: Tensor, style: Tensor) -> Tensor:
        both = (region + style).diagonal(dim1=1, dim2=2).sum(dim=1)
        return (2 * root_overlap(region, style) + PLAIN) / (both + PLAIN)

    def _moments(self, images: Tensor, weights: Tensor) -> list[Moments]:
        check_scales(images.shape[2:], self.scales)
        plane = luminance(images.double())
        return [self._at(smaller(plane, scale), smaller(weights.double(), scale)) for scale in self.scales]

    def _at(self, plane: Tensor, weights: Tensor) -> Moments:
        found = derivatives(plane)
        whole = -F.max_pool2d(-weights, 3, stride=1)  # the least weight under each filter
        fits = whole.sum(dim=(1, 2, 3), keepdim=True) > 0
        return weighted_moments(
            torch.cat([found, found.abs()], dim=1), torch.where(fits, whole, weights[..., 1:-1, 1:-1])
        )
