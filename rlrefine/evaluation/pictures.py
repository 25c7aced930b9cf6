"""Grids of small pictures, the first thing that anyone looks at."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from rlrefine.data.images import to_image
from rlrefine.data.records import Example

GAP = 2


def grid(rows: Sequence[Sequence[Tensor]]) -> Image.Image:
    """Pictures ``[3, H, W]`` in rows and columns, with a thin white line between them."""
    height = max(picture.shape[1] for row in rows for picture in row)
    width = max(picture.shape[2] for row in rows for picture in row)
    columns = max(len(row) for row in rows)
    sheet = torch.ones(3, len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = r * (height + GAP), c * (width + GAP)
            sheet[:, top : top + picture.shape[1], left : left + picture.shape[2]] = picture
    return to_image(sheet)


def cells(sheet: Image.Image, rows: int, columns: int) -> list[list[Image.Image]]:
    """The pictures of a grid of so many rows and columns again; smaller ones with the white beside them.

    >>> sheet = grid([[torch.zeros(3, 4, 6), torch.ones(3, 4, 6)], [torch.ones(3, 4, 6), torch.zeros(3, 4, 6)]])
    >>> [[picture.getpixel((5, 3))[0] for picture in row] for row in cells(sheet, 2, 2)]
    [[0, 255], [255, 0]]
    """
    height, width = (sheet.height + GAP) // rows, (sheet.width + GAP) // columns
    return [
        [sheet.crop((left, top, left + width - GAP, top + height - GAP)) for left in range(0, columns * width, width)]
        for top in range(0, rows * height, height)
    ]


def sample_grid(examples: Sequence[Example], results: Sequence[Tensor]) -> Image.Image:
    """One row for each example: draft, references, result, target."""
    rows = []
    for example, result in zip(examples, results, strict=True):
        references = [reference.image for reference in example.references]
        target = [example.target] if example.target is not None else []
        rows.append([example.draft, *references, result, *target])
    return grid(rows)
