"""Has the whole image the colours of the style reference? Told from their mean and spread, without a network.

Shapes: P rows · B samples · C H W image.

Differs from DyRef, whose CSD score it takes the place of where no weights are at hand: it sees colours, and nothing of
strokes, texture or form.
"""

import torch
from torch import Tensor

from rewards.encoders import first_references
from rewards.moments import cloud_nearness, weighted_moments
from rewards.types import RewardInputs


class StyleColour:
    """Nearness of the image's colours to those of its row's style reference, both as Gaussian clouds.

        r = 1 − W₂ / √3,   W₂² = ‖μ_y − μ_s‖² + tr(Σ_y + Σ_s − 2 (Σ_y^½ Σ_s Σ_y^½)^½)

    μ and Σ are mean and covariance of the colours (red, green, blue) of the image and of the reference, which may be of
    another size. To a row without a style reference the reward does not apply.

    Args:
        role: of the reference that shows the style, the first one if there are more; None for any role.

    Cost: sums over the pixels, and eigenvectors of matrices of 3 × 3; no network and no weights.

    Hacked by: a tint whose mean and spread are right, whatever the image shows; ``patch_perceptual`` against the target
        sees it.

    Reference: Gelbrich, On a formula for the L² Wasserstein metric, 1990.

    >>> style, black = torch.ones(3, 8, 8), torch.zeros(1, 3, 16, 16)
    >>> StyleColour()(RewardInputs(images=black, references=[[style]], roles=[["style"]]))
    tensor([0.])
    """

    needs: frozenset[str] = frozenset()
    uses = frozenset({"references.style"})
    range = (0.0, 1.0)

    def __init__(self, *, role: str | None = "style") -> None:
        self.role = role
        self.uses = frozenset({f"references.{role}" if role else "references"})

    def __call__(self, inputs: RewardInputs) -> Tensor:
        styles = [_moments(style[None]) for style in first_references(inputs, self.role)]
        means, moments = (inputs.per_sample(torch.cat(parts)) for parts in zip(*styles, strict=True))
        return cloud_nearness(_moments(inputs.images), (means, moments)).float()


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    return weighted_moments(images, torch.ones_like(images[:, :1]))
