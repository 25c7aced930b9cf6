"""How an image is cut into packed tokens: each holds a square of two by two latents, and they follow row by row.

Shapes: P rows · L tokens of an image · D channels of a token.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from policies.image_area import check_sides


@dataclass(frozen=True)
class PackedTokens:
    """The tokens of one model.

    Args:
        side: pixels on each side of what a token holds.
        channels: D, what the network is given of each.

    >>> tokens = PackedTokens(side=16, channels=64)
    >>> tokens.grid((32, 48)), tokens.latent_shape((32, 48))
    ((2, 3), (6, 64))
    """

    side: int
    channels: int

    @classmethod
    def of(cls, pipeline: Any) -> "PackedTokens":
        """Those of a pipeline of diffusers, asked before adapters and engines wrap its transformer."""
        return cls(2 * pipeline.vae_scale_factor, pipeline.transformer.config.in_channels)

    def grid(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of tokens of an image of (height, width).

        Raises:
            PolicyError: a side is not a multiple of the token's.
        """
        check_sides(size, self.side)
        return size[0] // self.side, size[1] // self.side

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """L and D of an image of (height, width); raises as ``grid``."""
        rows, columns = self.grid(size)
        return rows * columns, self.channels

    def latent_mask(self, masks: Tensor) -> Tensor:
        """The share of each token's pixels that lie inside masks ``[P, 1, H, W]``, as ``[P, L, 1]``."""
        return functional.avg_pool2d(masks, self.side).flatten(1).unsqueeze(2)
