"""Where FLUX tokens are: three position axes, of which the first tells images (and regions of images) apart.

Shapes: P rows · L tokens of an image, row by row. Rows and columns start at 0 for every image, so that images lie
over each other.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from policies.errors import PolicyError

Grid = tuple[int, int]  # rows and columns of tokens


def image_positions(grid: Grid, first: int) -> Tensor:
    """Positions ``[L, 3]`` of an image: the same first axis everywhere, then row and column.

    Reference: FLUX.1-Kontext (diffusers ``FluxKontextPipeline._prepare_latent_image_ids``): 0 for the noisy tokens,
    1, 2, … for the conditioning images.

    >>> image_positions((1, 2), first=1)
    tensor([[1., 0., 0.],
            [1., 0., 1.]])
    """
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in grid), indexing="ij")
    return torch.stack([torch.full(grid, float(first)), rows, columns], dim=-1).reshape(-1, 3)


def region_positions(masks: Tensor, grid: Grid, inside: int, outside: int) -> Tensor:
    """Positions ``[P, L, 3]`` of an image whose first axis tells what the mask covers from what it does not.

    Args:
        masks: ``[P, 1, H, W]`` in [0, 1]; brought to the grid by nearest neighbour, and inside where above 0.5.
        grid: rows and columns of tokens.
        inside, outside: the first axis in the mask, and elsewhere.

    Reference: a variant in the code of OmniRefiner's authors that the paper's figure does not show: draft 2 inside
    and 1 outside, reference 3 inside and 4 outside.

    >>> region_positions(torch.tensor([[[[1.0, 0.0]]]]), (1, 2), inside=2, outside=1)
    tensor([[[2., 0., 0.],
             [1., 0., 1.]]])
    """
    covered_PL = functional.interpolate(masks.float(), size=grid, mode="nearest").flatten(1) > 0.5
    positions = image_positions(grid, outside).to(masks.device).repeat(len(masks), 1, 1)
    positions[..., 0] = torch.where(covered_PL, float(inside), float(outside))
    return positions


def masked_positions(masks: Sequence[Sequence[Tensor | None]], sizes: Sequence[Grid], side: int) -> Tensor:
    """Positions ``[P, M, 3]`` of all conditioning images of P rows, their regions told apart by masks.

    The draft comes first, and has 2 in its mask and 1 elsewhere. Of the reference after it the first axis is 3 in its
    mask and 4 elsewhere, of the next 5 and 6, and so on. A reference without a mask counts as masked everywhere.

    Args:
        masks: for each row one for every image, ``[1, H, W]`` like the image.
        sizes: height and width of the images, in pixels.
        side: pixels on each side of a token.

    Raises:
        PolicyError: a draft has no mask, or a mask has another size than its image.
    """
    parts = []
    for place, (slot, size) in enumerate(zip(zip(*masks, strict=True), sizes, strict=True)):
        if place == 0 and any(mask is None for mask in slot):
            raise PolicyError("policy.position_ids: mask needs a mask of the draft in every row, and a row has none")
        given = [torch.ones(1, *size) if mask is None else mask for mask in slot]
        odd = next((mask for mask in given if tuple(mask.shape[1:]) != tuple(size)), None)
        if odd is not None:
            raise PolicyError(
                f"a mask of {odd.shape[1]} × {odd.shape[2]} pixels over an image of {size[0]} × {size[1]}"
            )
        inside, outside = (2, 1) if place == 0 else (2 * place + 1, 2 * place + 2)
        grid = (size[0] // side, size[1] // side)
        parts.append(region_positions(torch.stack(given), grid, inside, outside))
    return torch.cat(parts, dim=1)
