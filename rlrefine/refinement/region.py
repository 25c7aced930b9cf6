"""Which pixels of a picture are replaced, and what part of it the model sees for that.

Shapes: H W picture; h w region. Sizes are (height, width), boxes of a user (x, y, width, height), in pixels of the
picture as a viewer shows it.
"""

from fractions import Fraction
from math import ceil

import numpy as np
from scipy.ndimage import distance_transform_edt

from rlrefine.data.regions import Box
from rlrefine.errors import DataError, UsageError

MARGIN = 0.5  # of the region's sides, on each side: the region is half as wide as what the model sees, as in training
LARGEST_ZOOM = 4  # times that a small region is enlarged at most
FEATHER = 1 / 16  # of the region's shorter side

UserBox = tuple[int, int, int, int]


def parse_box(text: str) -> UserBox:
    """Read x,y,width,height.

    >>> parse_box("610, 388, 80, 64")
    (610, 388, 80, 64)

    Raises:
        UsageError: it is something else.
    """
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"box: expected x,y,width,height in whole pixels, found {text!r}") from None
    return x, y, width, height


def box_in(box: UserBox, size: tuple[int, int], name: str) -> Box:
    """A user's box in a picture of a size.

    Raises:
        DataError: it is empty, or not wholly inside the picture.

    >>> box_in((2, 1, 3, 4), (8, 8), "a.png")
    Box(top=1, left=2, bottom=5, right=5)
    """
    x, y, width, height = box
    if width < 1 or height < 1:
        raise DataError(f"box: expected a width and height of at least 1, found {width} and {height}")
    if x < 0 or y < 0 or x + width > size[1] or y + height > size[0]:
        raise DataError(
            f"box: expected one inside {name}, which has {size[1]} × {size[0]} pixels; found columns {x} to "
            f"{x + width} and rows {y} to {y + height}"
        )
    return Box(y, x, y + height, x + width)


def bounding_box(selected: np.ndarray) -> Box:
    """The smallest box around what is selected in ``[H, W]``.

    Raises:
        DataError: nothing is.
    """
    rows, columns = np.flatnonzero(selected.any(axis=1)), np.flatnonzero(selected.any(axis=0))
    if not len(rows):
        raise DataError("mask: expected white where the detail is, found none")
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def crop_window(region: Box, size: tuple[int, int], model: tuple[int, int], margin: float = MARGIN) -> Box:
    """What the model sees: the region and a margin around it, with the aspect of the model's images.

    The window lies inside the picture where it can: first it moves, then its margin shrinks. Only a region too long
    for any window of that aspect gets one that leaves the picture.

    Args:
        size: of the picture.
        model: of the images that the model was trained on.
        margin: of the region's sides, on each side.

    >>> crop_window(Box(10, 10, 20, 30), (100, 100), (64, 64))
    Box(top=0, left=0, bottom=40, right=40)
    """
    sides = region.bottom - region.top, region.right - region.left
    needed = max(Fraction(side, unit) for side, unit in zip(sides, model, strict=True))
    wanted = max((1 + 2 * Fraction(margin)) * needed, Fraction(1, LARGEST_ZOOM))
    inside = min(Fraction(side, unit) for side, unit in zip(size, model, strict=True))
    scale = max(needed, min(wanted, inside))
    height, width = (ceil(scale * unit) for unit in model)
    top = _place(region.top + region.bottom, height, size[0])
    left = _place(region.left + region.right, width, size[1])
    return Box(top, left, top + height, left + width)


def _place(doubled_centre: int, length: int, available: int) -> int:
    """Where a stretch begins that is centred as well as it can be without leaving what is available."""
    if length > available:
        return -((length - available) // 2)
    return min(max((doubled_centre - length) // 2, 0), available - length)


def cut(picture: np.ndarray, window: Box) -> np.ndarray:
    """The part of ``[H, W, …]`` in a window; beyond its edges the picture is mirrored."""
    height, width = picture.shape[:2]
    rows = max(0, -window.top), max(0, window.bottom - height)
    columns = max(0, -window.left), max(0, window.right - width)
    part = picture[max(0, window.top) : window.bottom, max(0, window.left) : window.right]
    return np.pad(part, [rows, columns, *[(0, 0)] * (picture.ndim - 2)], mode="symmetric")


def paste_weight(selected: np.ndarray, region: Box, feather: int | None = None) -> np.ndarray:
    """How much of the result each pixel of the region gets, ``[h, w]`` in [0, 1]: 0 where nothing is selected.

        w = min(1, d / (feather + 1))

    with d the distance to the nearest pixel that is not selected. The soft edge lies inside; there is none along the
    picture's border, where there is nothing to blend with.

    Args:
        selected: ``[H, W]``.
        feather: pixels; by default a sixteenth of the region's shorter side.
    """
    height, width = region.bottom - region.top, region.right - region.left
    feather = round(FEATHER * min(height, width)) if feather is None else feather
    top, left = max(0, region.top - 1), max(0, region.left - 1)
    around = selected[top : region.bottom + 1, left : region.right + 1]
    if around.all():
        return np.ones((height, width), dtype=np.float32)
    distance = np.asarray(distance_transform_edt(around), dtype=np.float32)
    inner = distance[region.top - top :, region.left - left :][:height, :width]
    return np.minimum(1, inner / (feather + 1))
