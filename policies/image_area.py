"""Sizes of images that keep their shape and have a given number of pixels. No torch here."""

import math

from policies.errors import PolicyError

MULTIPLE = 32  # of both sides, in pixels; every token of the models here fits into it


def of_area(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Height and width with the shape of ``size`` and about so many pixels, in multiples of 32.

    Reference: Qwen-Image-Edit (diffusers ``calculate_dimensions``).

    >>> of_area((480, 640), 1024 * 1024), of_area((64, 64), 64 * 64), of_area((10, 1000), 64 * 64)
    ((896, 1184), (64, 64), (32, 640))
    """
    ratio = size[1] / size[0]
    width = math.sqrt(pixels * ratio)
    height = width / ratio
    return max(MULTIPLE, round(height / MULTIPLE) * MULTIPLE), max(MULTIPLE, round(width / MULTIPLE) * MULTIPLE)


def check_sides(size: tuple[int, ...], multiple: int) -> None:
    """See that an image of (height, width) can be cut into squares.

    Args:
        multiple: pixels on each side of a square.

    Raises:
        PolicyError: it cannot.
    """
    if size[0] % multiple or size[1] % multiple:
        raise PolicyError(
            f"images of {size[0]} × {size[1]} pixels: both sides must be multiples of {multiple} for this model"
        )
